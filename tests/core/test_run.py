"""Run directories: how they begin, what they note of each stage, and how an iteration follows another."""

import time
from pathlib import Path

import pytest

from sandcli.config import resolve
from sandcli.core.manifest import Identity, Manifest
from sandcli.core.run import ARTIFACTS, D_DELIB, Run
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.models import fingerprint
from sandcli.new_run import assigned, start_run
from sandcli.records import Failure
from tests.helpers import artifact, contents, context, lines, make_run, perform, state


def manifest(**settings: str) -> Manifest:
    return Manifest(stage="sample", identity=Identity(settings=settings, inputs={}, scope={}))


def begun(folder: Path) -> Run:
    run = Run(folder)
    run.must_exist()
    return run


def test_a_new_run_holds_its_settings(tmp_path: Path) -> None:
    start_run(tmp_path / "it1", None, assigned(["sample.n=3", " env.tasks = boil, melt "]))
    settings = resolve(tmp_path / "it1", {}, {}).settings
    assert settings.sample.n == 3
    assert settings.env.tasks == ["boil", "melt"]
    assert sorted(path.name for path in (tmp_path / "it1").iterdir()) == ["manifests", "sand.toml"]


def test_a_run_is_not_begun_twice(tmp_path: Path) -> None:
    start_run(tmp_path, None, assigned(["sample.n=3"]))
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="is a run already"):
        start_run(tmp_path, None, {})
    assert contents(tmp_path) == before


@pytest.mark.parametrize("assignment", ["sample.n", "sample.m=3", "sample.n=many", "sample.n=0", "engine.kind=vlm"])
def test_a_wrong_setting_begins_no_run(tmp_path: Path, assignment: str) -> None:
    with pytest.raises(UsageError):
        start_run(tmp_path / "it1", None, assigned([assignment]))
    start_run(tmp_path / "it1", None, assigned(["sample.n=3"]))


def test_without_the_directory_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError) as caught:
        Run(tmp_path / "none").must_exist()
    assert caught.value.fix == f"sand init --run {tmp_path}/none"


def test_a_missing_artifact_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError) as caught:
        Run(tmp_path).rollouts()
    assert caught.value.what == f"{tmp_path}/rollouts.jsonl is missing"
    assert caught.value.fix == f"sand rollout --run {tmp_path}"


def test_a_manifest_is_read_back(tmp_path: Path) -> None:
    run = begun(tmp_path)
    made = manifest(n="3")
    made.counts, made.left_out, made.loss = {"units": 2}, {"a": "why"}, [(1, 0.5)]
    run.artifact("sample").begin(made.identity)
    part = run.artifact("sample").manifest(part=True)
    assert part is not None
    assert part.identity == made.identity
    assert run.artifact("sample").manifest() is None
    run.artifact("sample").write_manifest(made)
    run.artifact("sample").finish()
    assert run.artifact("sample").manifest() == made
    assert made.versions["sandcli"]
    assert made.finished.startswith(time.strftime("%Y-"))
    assert run.artifact("sample").manifest(part=True) is None


def test_a_broken_manifest_is_named(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.artifact("sample").note("json").write_text('{"stage": ')
    with pytest.raises(UsageError) as caught:
        run.artifact("sample").manifest()
    assert caught.value.what.startswith(f"{run.artifact('sample').note('json')}: not a manifest")


def test_failures_are_replaced_as_a_whole(tmp_path: Path) -> None:
    run = begun(tmp_path)
    failures = [Failure(unit=["a", n], reason="timeout", detail="x", attempts=3) for n in (1, 2)]
    assert run.artifact("sample").failures() == []
    run.artifact("sample").set_failures(failures)
    assert run.artifact("sample").failures() == failures
    run.artifact("sample").set_failures(failures[:1])
    assert run.artifact("sample").failures() == failures[:1]
    run.artifact("sample").set_failures([])
    assert not run.artifact("sample").note("failures.jsonl").exists()


def test_what_a_stage_made_is_set_aside_and_nothing_else(tmp_path: Path) -> None:
    run = begun(tmp_path)
    for stage in ARTIFACTS:
        run.artifact(stage).path.write_text(stage)
        run.artifact(stage).write_manifest(Manifest(stage=stage, identity=manifest().identity))
    run.artifact("synthesize").derived[D_DELIB].write_text("D_delib")
    moved = [Path(name) for name in run.artifact("synthesize").set_aside()]
    assert sorted(path.name for path in moved) == ["deliberations.jsonl", "synthesize.json", "thoughts.jsonl"]
    assert {path.read_text() for path in moved if path.suffix == ".jsonl"} == {"synthesize", "D_delib"}
    assert not run.artifact("synthesize").path.exists()
    assert not run.artifact("synthesize").derived[D_DELIB].exists()
    assert all(run.artifact(stage).path.exists() for stage in ARTIFACTS if stage != "synthesize")


def test_what_loggers_wrote_goes_with_the_log(tmp_path: Path) -> None:
    run = begun(tmp_path)
    for path in (run.artifact("sft").path, run.artifact("sft").log.with_suffix("")):
        path.mkdir(parents=True)
        (path / "file").write_text(path.parent.name)
    moved = run.artifact("sft").set_aside()
    assert len(moved) == 2 and not run.artifact("sft").log.with_suffix("").exists()
    assert all((Path(name) / "file").exists() for name in moved)


def test_setting_aside_twice_keeps_both(tmp_path: Path) -> None:
    run = begun(tmp_path)
    for text in ("first", "second"):
        run.artifact("sample").path.write_text(text)
        run.artifact("sample").set_aside()
    assert sorted(path.read_text() for path in (tmp_path / "aside").rglob("samples.jsonl")) == ["first", "second"]


def first_iteration(folder: Path) -> Path:
    """A finished first iteration; its model is an empty folder."""
    root = make_run(folder, env__tasks="carry", sample__n=3)
    for stage in ("collect", "sample", "rollout", "critique", "synthesize"):
        perform(stage, root, limit=2)
    (root / "model").mkdir()
    return root


def test_the_next_iteration_starts_from_the_deliberations_and_the_model(tmp_path: Path) -> None:
    root = first_iteration(tmp_path / "it1")
    start_run(tmp_path / "it2", root, assigned(["sample.n=2"]))
    settings = resolve(tmp_path / "it2", {}, {}).settings
    assert lines(tmp_path / "it2" / "expert.jsonl") == lines(root / "deliberations.jsonl")
    assert (tmp_path / "it2" / settings.model.policy).resolve() == root / "model"
    assert (settings.sample.n, settings.env.tasks, settings.train.epochs) == (2, ["carry"], 1)


def test_the_next_iteration_finds_its_expert_data_done(tmp_path: Path) -> None:
    root = first_iteration(tmp_path / "it1")
    start_run(tmp_path / "it2", root, {})
    assert perform("sample", tmp_path / "it2", limit=1).message.endswith(" records")
    assert state("collect", tmp_path / "it2").kind == "done"


def test_the_next_iteration_needs_the_model(tmp_path: Path) -> None:
    root = first_iteration(tmp_path / "it1")
    (root / "model").rmdir()
    with pytest.raises(PrerequisiteError, match="model is missing"):
        start_run(tmp_path / "it2", root, {})
    assert not (tmp_path / "it2" / "sand.toml").exists()


def test_the_next_iteration_finds_what_lay_beside_the_first(tmp_path: Path) -> None:
    root = first_iteration(tmp_path / "it1")
    (root / "games").mkdir()
    (root / "sand.toml").write_text((root / "sand.toml").read_text().replace("# games", 'games = "games" #'))
    start_run(tmp_path / "further" / "it2", root, {})
    settings = resolve(tmp_path / "further" / "it2", {}, {}).settings
    assert (tmp_path / "further" / "it2" / settings.env.games).resolve() == root / "games"


def test_the_next_iteration_is_of_the_same_world(tmp_path: Path) -> None:
    root = first_iteration(tmp_path / "it1")
    with pytest.raises(UsageError, match="not of alfworld"):
        start_run(tmp_path / "it2", root, assigned(["env.name=alfworld"]))


def test_the_next_iteration_needs_a_model_of_the_same_deliberations(tmp_path: Path) -> None:
    root = first_iteration(tmp_path / "it1")
    settings = {"data": fingerprint(root / "deliberations.jsonl")}
    made = Manifest(stage="train", identity=Identity(settings=settings, inputs={}, scope={}))
    artifact(root, "train").write_manifest(made)
    start_run(tmp_path / "it2", root, {})
    made = Manifest(stage="train", identity=Identity(settings={"data": "another"}, inputs={}, scope={}))
    artifact(root, "train").write_manifest(made)
    with pytest.raises(PrerequisiteError, match=r"is not what .*model was trained on") as caught:
        start_run(tmp_path / "it3", root, {})
    assert caught.value.fix == f"sand train --run {root} --force"


def test_a_relative_model_is_meant_from_the_run_directory(tmp_path: Path) -> None:
    root = tmp_path / "it2"
    for folder in (tmp_path / "it1" / "model", root):
        folder.mkdir(parents=True)
    (tmp_path / "it1" / "model" / "config.json").write_text('{"model_type": "llama"}')
    policy = context(root, model__base="../it1/model", model__policy="../it1/model").policy()
    assert policy.folder.resolve() == tmp_path / "it1" / "model"


def test_a_units_seed_depends_on_the_runs_seed_and_its_key_alone(tmp_path: Path) -> None:
    first, second = context(tmp_path, limit=1), context(tmp_path, run__seed=1)
    assert first.seed("sample", "a", 1) == context(tmp_path, run__workers=3).seed("sample", "a", 1)
    different = [first.seed("sample", "a", 2), first.seed("rollout", "a", 1), second.seed("sample", "a", 1)]
    assert len({first.seed("sample", "a", 1), *different}) == 4
    assert all(0 <= seed < 2**31 for seed in different)
