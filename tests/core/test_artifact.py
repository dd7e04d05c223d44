"""Artifacts: sealed ones are checked before they are read, hand edits are accepted, and old ones are set aside."""

import time
from pathlib import Path

import pytest

from sandcli.core.artifact import StageName
from sandcli.core.manifest import Identity, Manifest
from sandcli.core.run import ARTIFACTS, D_DELIB, Run
from sandcli.core.stage import Options
from sandcli.errors import Exit, Interrupted, PrerequisiteError, UsageError
from sandcli.records import Failure
from sandcli.report.build import build_report
from tests.core.damage import Damage, cut, delete_a_line, double_a_line, empty, zeros
from tests.core.runs import LIMIT
from tests.helpers import artifact, contents, lines, perform, state


@pytest.mark.parametrize("damage", [cut, empty, zeros, delete_a_line, double_a_line])
@pytest.mark.parametrize(
    ("stage", "reader"),
    [("collect", "sample"), ("sample", "rollout"), ("rollout", "critique"), ("critique", "synthesize")],
)
def test_damaged_artifact_is_refused_by_its_reader(
    run: Path, stage: StageName, reader: StageName, damage: Damage
) -> None:
    damage(artifact(run, stage).path)
    before = contents(run)
    with pytest.raises((PrerequisiteError, UsageError), match=rf"{artifact(run, stage).name}(:\d+: | was changed)"):
        perform(reader, run, limit=LIMIT)
    assert contents(run) == before


@pytest.mark.parametrize("damage", [cut, empty, zeros, delete_a_line, double_a_line])
def test_damaged_evaluation_is_refused_by_the_report(run: Path, damage: Damage) -> None:
    damage(artifact(run, "eval").path)
    with pytest.raises((PrerequisiteError, UsageError)) as caught:
        build_report([run])
    assert caught.value.what.startswith(f"{run}/eval.jsonl")


@pytest.mark.parametrize("damage", [cut, empty, zeros, delete_a_line, double_a_line])
def test_damaged_d_delib_is_refused_and_made_again(run: Path, damage: Damage) -> None:
    path = run / "deliberations.jsonl"
    whole = path.read_bytes()
    damage(path)
    with pytest.raises(PrerequisiteError, match=r"deliberations\.jsonl was changed"):
        Run(run).deliberations()
    perform("synthesize", run, limit=LIMIT)
    assert path.read_bytes() == whole
    assert len(list(Run(run).deliberations())) == LIMIT


def test_edited_record_is_accepted_by_its_stage(run: Path) -> None:
    path = run / "thoughts.jsonl"
    thought = next(line["thought"] for line in lines(path) if line["thought"])
    path.write_text(path.read_text().replace("would take longer", "would take much longer"))
    with pytest.raises(PrerequisiteError, match="was changed after `sand synthesize` finished") as caught:
        Run(run).thoughts()
    assert f"sand synthesize --run {run} checks it" in caught.value.fix
    assert perform("synthesize", run, limit=LIMIT).exit is Exit.DONE
    edited = thought.replace("would take longer", "would take much longer")
    assert edited in {record.thought for record in Run(run).thoughts()}
    assert edited in {step.thought for made in Run(run).deliberations() for step in made.steps}
    assert state("synthesize", run, limit=LIMIT).kind == "done"


def test_deleted_record_is_made_again(run: Path) -> None:
    path = run / "samples.jsonl"
    whole = path.read_bytes()
    delete_a_line(path)
    perform("sample", run, limit=LIMIT)
    assert path.read_bytes() == whole


def test_deletion_is_kept_if_asked_for(run: Path) -> None:
    path = run / "samples.jsonl"
    delete_a_line(path)
    left = path.read_bytes()
    perform("sample", run, limit=LIMIT, options=Options(accept_stale=True))
    assert path.read_bytes() == left
    assert len(list(Run(run).samples())) == len(left.splitlines())


def test_last_record_without_a_line_break_counts(run: Path) -> None:
    path = run / "samples.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.removesuffix(b"\n"))
    perform("sample", run, limit=LIMIT)
    assert path.read_bytes() == whole


def test_edit_of_the_last_observation_reaches_d_delib(run: Path) -> None:
    path = run / "expert.jsonl"
    path.write_text(path.read_text().replace("You drop the lamp.", "You put down the lamp."))
    perform("collect", run, limit=LIMIT)
    assert "You put down the lamp." not in (run / "deliberations.jsonl").read_text()
    for stage in ("sample", "synthesize"):
        perform(stage, run, limit=LIMIT, options=Options(accept_stale=True))
    assert "You put down the lamp." in (run / "deliberations.jsonl").read_text()


def test_interrupted_force_is_resumed_by_the_same_command(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sandcli.stages.sample import SampleStage

    step = SampleStage.step
    done: list[object] = []

    async def interrupted(self: SampleStage, unit: object, earlier: object) -> object:
        if len(done) == 3:
            raise Interrupted("sample")
        done.append(unit)
        return await step(self, unit, earlier)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(SampleStage, "step", interrupted)
        with pytest.raises(Interrupted):
            perform("sample", run, limit=LIMIT, options=Options(force=True), run__in_flight=1)
    kept = artifact(run, "sample").journal.read_bytes()
    assert kept.count(b"\n") == 3
    perform("sample", run, limit=LIMIT, options=Options(force=True))
    assert len(list((run / "aside").iterdir())) == 1
    assert set(kept.splitlines()) <= set((run / "samples.jsonl").read_bytes().splitlines())


def manifest(**settings: str) -> Manifest:
    return Manifest(stage="sample", identity=Identity(settings=settings, inputs={}, scope={}))


def empty_run(folder: Path) -> Run:
    (folder / "sand.toml").touch()
    (folder / "manifests").mkdir()
    return Run(folder)


def test_manifest_is_read_back(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    made = manifest(n="3")
    made.counts, made.left_out, made.loss = {"units": 2}, {"a": "why"}, [(1, 0.5)]
    run.artifact("sample").begin(made)
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


def test_failures_are_replaced_as_a_whole(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    failures = [Failure(unit=["a", n], reason="timeout", detail="x", attempts=3) for n in (1, 2)]
    assert run.artifact("sample").failures() == []
    run.artifact("sample").set_failures(failures)
    assert run.artifact("sample").failures() == failures
    run.artifact("sample").set_failures(failures[:1])
    assert run.artifact("sample").failures() == failures[:1]
    run.artifact("sample").set_failures([])
    assert not run.artifact("sample").note("failures.jsonl").exists()


def test_set_aside_moves_what_the_stage_made_and_nothing_else(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
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


def test_set_aside_moves_what_loggers_wrote(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    for path in (run.artifact("sft").path, run.artifact("sft").log.with_suffix("")):
        path.mkdir(parents=True)
        (path / "file").write_text(path.parent.name)
    moved = run.artifact("sft").set_aside()
    assert len(moved) == 2 and not run.artifact("sft").log.with_suffix("").exists()
    assert all((Path(name) / "file").exists() for name in moved)


def test_set_aside_twice_keeps_both(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    for text in ("first", "second"):
        run.artifact("sample").path.write_text(text)
        run.artifact("sample").set_aside()
    assert sorted(path.read_text() for path in (tmp_path / "aside").rglob("samples.jsonl")) == ["first", "second"]


def test_retrained_model_makes_its_evaluation_stale(run: Path) -> None:
    model = run / "other"
    model.mkdir()
    (model / "rules.json").write_text("[]")
    found = state("eval", run, 2, engine__script=str(model / "rules.json"))
    assert found.kind == "stale" and "units made from other input" in found.reasons[0]


def test_expert_data_from_elsewhere_is_never_made_from_nothing(run: Path) -> None:
    made = artifact(run, "collect").manifest()
    assert made is not None
    made.identity.settings["source"] = "D_delib of ../it0"
    artifact(run, "collect").write_manifest(made)
    with pytest.raises(UsageError, match="this run cannot make it again"):
        perform("collect", run, limit=2, options=Options(force=True))
    assert (run / "expert.jsonl").exists()
    (run / "expert.jsonl").unlink()
    with pytest.raises(UsageError, match="this run cannot make it again"):
        perform("collect", run, limit=2)


def test_acceptance_ends_with_the_artifact(run: Path) -> None:
    perform("sample", run, limit=2, options=Options(accept_stale=True), run__seed=1)
    (run / "samples.jsonl").unlink()
    manifest = perform("sample", run, limit=2, run__seed=1).manifest
    assert manifest is not None and manifest.accepted == []


def test_damaged_manifest_does_not_stop_force(run: Path) -> None:
    for kind in ("json", "json.part", "units.json"):
        artifact(run, "sample").note(kind).write_text('{"stage": ')
    assert perform("sample", run, limit=2, options=Options(force=True)).exit is Exit.DONE


def test_emptied_expert_data_is_refused_by_every_reader_and_collected_again(run: Path) -> None:
    path = run / "expert.jsonl"
    whole = path.read_bytes()
    empty(path)
    for stage in ("sample", "rollout", "critique", "synthesize"):
        with pytest.raises(PrerequisiteError, match=r"expert\.jsonl was changed"):
            perform(stage, run, limit=LIMIT)
    perform("collect", run, limit=LIMIT)
    assert path.read_bytes() == whole


def test_emptied_expert_data_from_elsewhere_is_not_accepted(run: Path) -> None:
    made = artifact(run, "collect").manifest()
    assert made is not None
    made.identity.settings["source"] = "D_delib of ../it0"
    artifact(run, "collect").write_manifest(made)
    empty(run / "expert.jsonl")
    with pytest.raises(UsageError, match=r"expert\.jsonl holds no trajectory"):
        perform("collect", run, limit=LIMIT)
    assert (run / "expert.jsonl").exists()


def test_empty_expert_data_is_neither_accepted_nor_sampled_from(run: Path) -> None:
    empty(run / "expert.jsonl")
    with pytest.raises(UsageError, match=r"no trajectory was accepted$"):
        perform("collect", run, limit=LIMIT, options=Options(accept_stale=True))
    (run / "manifests" / "collect.json").unlink()
    (run / "expert.jsonl").write_bytes(b"")  # as if put there by hand
    with pytest.raises(UsageError, match=r"expert\.jsonl holds no trajectory"):
        perform("sample", run, limit=LIMIT, options=Options(force=True))


def test_artifact_set_aside_is_durable_in_its_new_place_before_it_leaves_the_old(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("sandcli.files.fsync_path", synced.append)
    (first, *_) = artifact(run, "sample").set_aside()
    aside = Path(first).parent
    assert synced[:4] == [aside, run / "aside", run, run]


def no_model(*_: object) -> None:
    raise PrerequisiteError("the model does not load", "copy it again")


def test_artifact_stays_in_place_if_the_model_does_not_load(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact(run, "sample").set_failures([Failure(unit=["a"], reason="timeout", detail="x", attempts=3)])
    before = contents(run)
    monkeypatch.setattr("sandcli.core.context.open_engine", no_model)
    with pytest.raises(PrerequisiteError, match="does not load"):
        perform("sample", run, limit=LIMIT, options=Options(force=True), run__seed=1)
    assert contents(run) == before
    assert not (run / "aside").exists()


def test_folder_and_its_checkpoints_are_put_back(tmp_path: Path) -> None:
    made = empty_run(tmp_path).artifact("train")
    for path in (made.path, made.journal / "checkpoints", made.log.parent):
        path.mkdir(parents=True)
        (path / "file").write_text(path.name)
    made.log.write_text("{}\n")
    made.write_manifest(manifest())
    before = contents(tmp_path)
    moved = made.set_aside()
    made.begin(manifest(n="3"))
    made.open_journal(resume=False)
    made.put_back(moved)
    assert contents(tmp_path) == before
