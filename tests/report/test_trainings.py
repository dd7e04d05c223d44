"""How a run's models were trained, as it is read from manifests and sand.toml."""

from pathlib import Path

import pytest

from sandcli.config import resolve
from sandcli.core.artifact import StageName
from sandcli.core.manifest import Identity, Manifest
from sandcli.core.run import Run
from sandcli.fields import fields
from sandcli.report.scores import Training
from sandcli.report.trainings import trainings_of
from tests.helpers import make_run


def note(root: Path, stage: StageName, limit: str = "None", **settings: str) -> None:
    """The manifest of a stage that was made with these settings."""
    named = {name.replace("__", "."): value for name, value in settings.items()}
    made = Manifest(stage=stage, identity=Identity(settings=named, inputs={}, scope={"limit": limit}), counts={})
    run = Run(root)
    run.artifact(stage).note("json").parent.mkdir(exist_ok=True)
    run.artifact(stage).write_manifest(made)


def read(root: Path, d_exp: int = 6) -> dict[str, Training]:
    return trainings_of(Run(root), resolve(root, {}, {}).settings, d_exp)


def differing(one: Training, other: Training) -> set[str]:
    return {name for name in {**one.settings, **other.settings} if one.settings.get(name) != other.settings.get(name)}


def test_each_model_has_the_seed_of_its_training(tmp_path: Path) -> None:
    root = make_run(tmp_path, run__seed=1)
    assert {model: made.seed for model, made in read(root).items()} == {"sft": 1, "model": 1}
    note(root, "sft", run__seed="2")
    note(root, "sample", run__seed="3")
    note(root, "train", run__seed="4")
    assert {model: made.seed for model, made in read(root).items()} == {"sft": 2, "model": 4}


def test_seed_alone_makes_no_difference(tmp_path: Path) -> None:
    one, other = (make_run(tmp_path / str(seed), run__seed=seed, run__label=str(seed)) for seed in (0, 1))
    note(one, "sft", run__seed="0", model="0123", data="4567")
    note(other, "sft", run__seed="1", model="89ab", data="cdef")
    assert not any(differing(read(one)[model], read(other)[model]) for model in ("sft", "model"))


@pytest.mark.parametrize(
    ("setting", "value", "models"),
    [
        ("sft.epochs", 9, {"sft", "model"}),
        ("env.tasks", ["carry"], {"sft", "model"}),
        ("train.epochs", 9, {"model"}),
        ("sample.n", 9, {"model"}),
        ("method.without", "critique", {"model"}),
        ("run.iteration", 2, {"sft", "model"}),
        ("run.workers", 1, set()),
        ("eval.temperature", 0.5, set()),
        ("eval.n", 1, set()),
        ("engine.batch", 3, set()),
    ],
)
def test_settings_of_a_training_are_those_that_count(
    tmp_path: Path, setting: str, value: int | str, models: set[str]
) -> None:
    assert setting in [field.name for field in fields()]
    one, other = make_run(tmp_path / "a"), make_run(tmp_path / "b", **{setting.replace(".", "__"): value})
    found = {model for model in ("sft", "model") if setting in differing(read(one)[model], read(other)[model])}
    assert found == models


def test_flags_that_a_stage_was_run_with_count(tmp_path: Path) -> None:
    one, other = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    note(other, "train", limit="3", train__epochs="9")
    assert differing(read(one)["model"], read(other)["model"]) == {"train.epochs", "sand train --limit"}
    assert not differing(read(one)["sft"], read(other)["sft"])


def test_number_of_updates_may_depend_on_the_seed(tmp_path: Path) -> None:
    made = [make_run(tmp_path / str(steps), train__max_steps=steps) for steps in (0, 5, 6)]
    epochs, five, six = (read(root)["model"] for root in made)
    assert not differing(five, six)
    assert differing(epochs, five) == {"train.max_steps"}


def test_size_of_d_exp_counts_in_the_first_iteration(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a"), make_run(tmp_path / "b", run__iteration=2)
    assert differing(read(first, 6)["sft"], read(first, 7)["sft"]) == {"trajectories of D_exp"}
    assert not differing(read(second, 6)["sft"], read(second, 7)["sft"])
