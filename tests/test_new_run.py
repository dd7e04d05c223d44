"""`sand init`: how a run starts, alone or as the iteration after another."""

import os
import shutil
from pathlib import Path

import pytest

import sandcli
from sandcli.config import resolve
from sandcli.core.manifest import Identity, Manifest
from sandcli.engines.base import Model
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.models import fingerprint
from sandcli.new_run import assigned, start_run
from tests.helpers import artifact, contents, context, lines, make_run, perform, state
from tests.trainer import Trainer


def test_new_run_holds_its_settings(tmp_path: Path) -> None:
    start_run(tmp_path / "it1", None, assigned(["sample.n=3", " env.tasks = boil, melt "]))
    settings = resolve(tmp_path / "it1", {}, {}).settings
    assert settings.sample.n == 3
    assert settings.env.tasks == ["boil", "melt"]
    assert sorted(path.name for path in (tmp_path / "it1").iterdir()) == ["manifests", "sand.toml"]


@pytest.mark.parametrize("protocol", [None, "eto"])
def test_path_given_at_the_command_line_works_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str | None
) -> None:
    (tmp_path / "data" / "games").mkdir(parents=True)
    (tmp_path / "own.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    given = ["env.games=data/games", "env.name=alfworld", "model.base=org/model", "agent.preamble=own.json"]
    start_run(Path("runs/it1"), None, assigned(given), protocol=protocol)
    settings = resolve(tmp_path / "runs" / "it1", {}, {}).settings
    assert (settings.env.games, settings.model.base) == ("../../data/games", "org/model")
    assert settings.agent.preamble == "../../own.json"
    monkeypatch.chdir("/")
    assert context(tmp_path / "runs" / "it1").path(settings.env.games) == f"{tmp_path}/runs/it1/../../data/games"


@pytest.mark.parametrize(("given", "kept"), [("p.json", "../../p.json"), ("scienceworld-dev", "scienceworld-dev")])
def test_panel_is_a_published_one_or_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, kept: str
) -> None:
    for name in ("p.json", "scienceworld-dev"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    start_run(Path("runs/it1"), None, assigned([f"eval.panel={given}"]))
    assert resolve(tmp_path / "runs" / "it1", {}, {}).settings.eval.panel == kept


def test_run_is_not_started_twice(tmp_path: Path) -> None:
    start_run(tmp_path, None, assigned(["sample.n=3"]))
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="is a run already"):
        start_run(tmp_path, None, {})
    assert contents(tmp_path) == before


@pytest.mark.parametrize("assignment", ["sample.n", "sample.m=3", "sample.n=many", "sample.n=0", "engine.kind=vlm"])
def test_wrong_setting_starts_no_run(tmp_path: Path, assignment: str) -> None:
    with pytest.raises(UsageError):
        start_run(tmp_path / "it1", None, assigned([assignment]))
    start_run(tmp_path / "it1", None, assigned(["sample.n=3"]))


def test_guided_deliberations_need_samples(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without sampling there are none"):
        start_run(tmp_path / "run", None, assigned(["method.without=sampling", "synthesize.form=guided"]))


@pytest.mark.parametrize(
    "assignments",
    [
        ["engine.urls=http://u:hidden@a", "engine.urls=http://u:hidden@b"],
        ["engine.urls:http://u:hidden@a"],
        ["engine.url=http://u:hidden@a"],
        ["model.base=\udcff", "engine.urls=http://u:hidden@a"],
    ],
)
def test_error_about_assignments_holds_no_password(assignments: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        assigned(assignments)
    assert "hidden" not in caught.value.what + caught.value.fix


def test_settings_with_a_password_are_private(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        start_run(tmp_path / "open", None, assigned(["engine.urls=http://a"]))
        start_run(tmp_path / "private", None, assigned(["engine.urls=http://a,http://u:hidden@b"]))
    finally:
        os.umask(umask)
    modes = {name: (tmp_path / name / "sand.toml").stat().st_mode & 0o777 for name in ("open", "private")}
    assert modes == {"open": 0o644, "private": 0o600}
    assert resolve(tmp_path / "private", {}, {}).settings.engine.urls == ["http://a", "http://u:hidden@b"]


@pytest.mark.parametrize(
    "value",
    [
        "sample.temperature=inf",
        "run.timeout=1e10",
        "model.base=\udcff",
        "method.switch=\udcff",
        "run.seed=" + "9" * 5000,
    ],
)
def test_value_that_cannot_be_read_back_starts_no_run(tmp_path: Path, value: str) -> None:
    with pytest.raises(UsageError):
        start_run(tmp_path / "run", None, assigned([value]))
    assert not (tmp_path / "run").exists()


def test_switch_needs_rollouts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="compares rollouts"):
        start_run(tmp_path / "run", None, assigned(["method.without=critique", "method.switch=better"]))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("variant", ["method.without=critique", "method.switch=better"])
def test_baseline_has_no_variant_of_sand(tmp_path: Path, variant: str) -> None:
    with pytest.raises(UsageError, match=r"are variants of sand, and method\.name is rft"):
        start_run(tmp_path / "run", None, assigned(["method.name=rft", variant]))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("preset", [None, "alfworld-llama3.1-8b"])
@pytest.mark.parametrize(
    ("settings", "switch"),
    [
        ([], "shorter"),
        (["method.without=critique"], "never"),
        (["method.without=deliberations"], "shorter"),
        (["method.name=rft"], "never"),
    ],
)
def test_alfworld_switches_as_the_paper_does(
    tmp_path: Path, preset: str | None, settings: list[str], switch: str
) -> None:
    start_run(tmp_path, None, assigned(["env.name=alfworld", *settings]), preset)
    assert resolve(tmp_path, {}, {}).settings.method.switch == switch


@pytest.mark.parametrize("preset", [None, "scienceworld-smollm2-135m"])
def test_knowagent_trains_an_adapter_of_the_base_model_whatever_the_preset_says(
    tmp_path: Path, preset: str | None
) -> None:
    start_run(tmp_path, None, assigned(["method.name=knowagent", "model.base=org/model", "train.epochs=2"]), preset)
    settings = resolve(tmp_path, {}, {}).settings
    assert (settings.model.policy, settings.agent.knowledge, settings.explore.temperature) == (
        "org/model",
        "world",
        0.9,
    )
    train = settings.train
    assert (train.method, train.lora_rank, train.learning_rate, train.batch_size) == ("lora", 8, 1e-4, 16)
    assert train.epochs == 2
    assert settings.agent.max_tokens == (512 if preset is None else 256)


@pytest.mark.parametrize(("world", "trained"), [("scienceworld", (1, 32, 5e-6)), ("alfworld", (2, 16, 1e-5))])
def test_early_experience_begins_with_the_base_model(
    tmp_path: Path, world: str, trained: tuple[int, int, float]
) -> None:
    given = ["method.name=early-experience", "model.base=org/model", f"env.name={world}"]
    start_run(tmp_path, None, assigned(given), f"{world}-llama3.1-8b" if world == "alfworld" else None)
    settings = resolve(tmp_path, {}, {}).settings
    assert (settings.model.policy, settings.sample.n, settings.rollout.max_steps) == ("org/model", 3, 1)
    assert (settings.train.epochs, settings.train.batch_size, settings.train.learning_rate) == trained


def test_d_exp_of_another_world_is_refused(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one")
    perform("collect", one, limit=1)
    with pytest.raises(UsageError, match=r"one are of tests\.toyworld:ToyWorld, not of scienceworld"):
        start_run(tmp_path / "two", None, {}, d_exp=one)
    assert not (tmp_path / "two" / "sand.toml").exists()


def test_next_iteration_takes_no_preset(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--from takes its settings from"):
        start_run(tmp_path / "it2", make_run(tmp_path / "it1"), {}, "alfworld-qwen2.5-7b")
    assert not (tmp_path / "it2").exists()


def test_setting_has_one_value(tmp_path: Path) -> None:
    start_run(tmp_path / "same", None, assigned(["method.without=critique", "method.without=critique"]))
    with pytest.raises(UsageError, match=r"method\.without is set twice, to sampling and critique"):
        start_run(tmp_path / "run", None, assigned(["method.without=sampling", "method.without=critique"]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished first iteration; its model is an empty folder."""
    root = make_run(tmp_path_factory.mktemp("new_run") / "it1", env__tasks="carry", sample__n=3)
    for stage in ("collect", "sample", "rollout", "critique", "synthesize"):
        perform(stage, root, limit=2)
    (root / "model").mkdir()
    return root


@pytest.fixture
def it1(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to start the next iteration from."""
    return Path(shutil.copytree(finished, tmp_path / "it1"))


def test_next_iteration_does_not_import_the_data_of_the_first(it1: Path, tmp_path: Path) -> None:
    file = it1 / "sand.toml"
    file.write_text(file.read_text().replace('# source = ""', 'source = "rows.json"'))
    assert resolve(it1, {}, {}).settings.collect.source == "rows.json"
    start_run(tmp_path / "it2", it1, {})
    assert resolve(tmp_path / "it2", {}, {}).settings.collect.source == ""
    assert state("collect", tmp_path / "it2").kind == "done"


def test_next_iteration_starts_from_d_delib_and_the_model(it1: Path, tmp_path: Path) -> None:
    start_run(tmp_path / "it2", it1, assigned(["sample.n=2"]))
    settings = resolve(tmp_path / "it2", {}, {}).settings
    assert lines(tmp_path / "it2" / "expert.jsonl") == lines(it1 / "deliberations.jsonl")
    assert (tmp_path / "it2" / settings.model.policy).resolve() == it1 / "model"
    assert (settings.sample.n, settings.env.tasks, settings.train.epochs) == (2, ["carry"], 1)


def test_next_iteration_finds_its_expert_data_done(it1: Path, tmp_path: Path) -> None:
    start_run(tmp_path / "it2", it1, {})
    assert perform("sample", tmp_path / "it2", limit=1).message.endswith(" records")
    assert state("collect", tmp_path / "it2").kind == "done"


def test_next_iteration_needs_the_model(it1: Path, tmp_path: Path) -> None:
    (it1 / "model").rmdir()
    with pytest.raises(PrerequisiteError, match="model is missing"):
        start_run(tmp_path / "it2", it1, {})
    assert not (tmp_path / "it2" / "sand.toml").exists()


def test_next_iteration_finds_the_folders_of_the_first(it1: Path, tmp_path: Path) -> None:
    (it1 / "games").mkdir()
    (it1 / "sand.toml").write_text((it1 / "sand.toml").read_text().replace("# games", 'games = "games" #'))
    start_run(tmp_path / "further" / "it2", it1, {})
    settings = resolve(tmp_path / "further" / "it2", {}, {}).settings
    assert (tmp_path / "further" / "it2" / settings.env.games).resolve() == it1 / "games"


def test_next_iteration_trains_for_one_epoch_whatever_the_first_did(it1: Path, tmp_path: Path) -> None:
    toml = (it1 / "sand.toml").read_text()
    (it1 / "sand.toml").write_text(toml.replace("[train]", "[train]\nmax_steps = 7\n").replace("# max_steps", "# "))
    assert resolve(it1, {}, {}).settings.train.max_steps == 7
    start_run(tmp_path / "it2", it1, {})
    settings = resolve(tmp_path / "it2", {}, {}).settings
    assert (settings.train.max_steps, settings.train.epochs) == (0, 1)


def test_next_iteration_is_of_the_same_world(it1: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not of alfworld"):
        start_run(tmp_path / "it2", it1, assigned(["env.name=alfworld"]))


def test_next_iteration_needs_a_model_trained_on_the_same_d_delib(it1: Path, tmp_path: Path) -> None:
    settings = {"data": fingerprint(it1 / "deliberations.jsonl")}
    made = Manifest(stage="train", identity=Identity(settings=settings, inputs={}, scope={}))
    artifact(it1, "train").write_manifest(made)
    start_run(tmp_path / "it2", it1, {})
    made = Manifest(stage="train", identity=Identity(settings={"data": "another"}, inputs={}, scope={}))
    artifact(it1, "train").write_manifest(made)
    with pytest.raises(PrerequisiteError, match=r"is not what .*model was trained on") as caught:
        start_run(tmp_path / "it3", it1, {})
    assert caught.value.fix == f"sand train --run {it1} --force"


def test_another_method_after_a_run_gets_its_own_defaults(tmp_path: Path, words: Model, trainer: Trainer) -> None:
    sand = make_run(tmp_path / "sand", method__without="deliberations", model__base=str(words.folder))
    sandcli.iterate(sand, iterations=1)
    start_run(tmp_path / "same", sand, assigned(["method.name=sand"]))
    start_run(tmp_path / "eto", sand, assigned(["method.name=eto", "method.without=none"]))
    start_run(tmp_path / "mpo", sand, assigned(["method.name=mpo", "method.without=none", "explore.n=2"]))
    same, eto, mpo = (resolve(tmp_path / name, {}, {}).settings for name in ("same", "eto", "mpo"))
    assert (same.explore.n, same.explore.temperature, same.method.switch) == (4, 1.0, "never")
    assert (eto.explore.n, eto.explore.temperature, eto.pairs.extra_turns) == (1, 0.0, 5)
    assert (mpo.explore.n, mpo.explore.temperature, mpo.eval.models) == (2, 0.7, ["policy"])


def test_planner_is_found_from_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planners" / "x").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    start_run(tmp_path / "runs" / "a", None, assigned(["method.name=mpo", "eval.planner=planners/x"]))
    assert resolve(tmp_path / "runs" / "a", {}, {}).settings.eval.planner == "../../planners/x"
    start_run(tmp_path / "runs" / "b", None, assigned(["method.name=mpo"]))
    assert resolve(tmp_path / "runs" / "b", {}, {}).settings.eval.planner == "model"
