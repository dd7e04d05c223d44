"""Manifests and notes: damage is reported or repaired, costs no record and never stops `sand status`."""

import shutil
from pathlib import Path

import pytest

from sandcli.core.stage import Options
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.pipeline import stages_of
from sandcli.status import status_of
from tests.core.damage import DAMAGE, Damage, cut, double_a_line, flip, folder, not_text
from tests.core.runs import LIMIT, STAGES, edit, failing
from tests.helpers import artifact, context, make_run, perform, state


@pytest.mark.parametrize("damage", [cut, flip, not_text, folder])
def test_damaged_manifest_is_reported_and_costs_no_record(run: Path, damage: Damage, begun: list[str]) -> None:
    note, before = artifact(run, "sample").note("json"), (run / "samples.jsonl").read_bytes()
    damage(note)
    with pytest.raises(PrerequisiteError, match=rf"samples\.jsonl cannot be checked: {note} is damaged"):
        perform("rollout", run, limit=LIMIT)
    with pytest.raises(PrerequisiteError, match=f"{note} is damaged"):
        perform("sample", run, limit=LIMIT)
    if damage is folder:
        note.rmdir()
    perform("sample", run, limit=LIMIT, options=Options(accept_stale=True))
    assert (run / "samples.jsonl").read_bytes() == before
    assert begun == []
    assert state("rollout", run, limit=LIMIT).kind == "done"


def test_lost_manifest_costs_no_record(run: Path, begun: list[str]) -> None:
    before = (run / "samples.jsonl").read_bytes()
    artifact(run, "sample").note("json").unlink()
    with pytest.raises(PrerequisiteError, match="has no manifest"):
        perform("sample", run, limit=LIMIT)
    perform("sample", run, limit=LIMIT, options=Options(accept_stale=True))
    assert (run / "samples.jsonl").read_bytes() == before
    assert begun == []


@pytest.mark.parametrize("damage", [cut, double_a_line])
def test_records_without_a_manifest_are_checked_line_by_line(run: Path, damage: Damage) -> None:
    artifact(run, "sample").note("json").unlink()
    damage(run / "samples.jsonl")
    with pytest.raises(UsageError, match=r"samples\.jsonl:1[23]: not a valid record"):
        perform("rollout", run, limit=LIMIT)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["json", "json.part", "units.json", "failures.jsonl", "journal", "artifact"])
def test_status_always_answers(run: Path, finished: Path, kind: str) -> None:
    for damage in DAMAGE:
        for stage in STAGES:
            made = artifact(run, stage)
            path = {"journal": made.journal, "artifact": made.path}.get(kind, made.note(kind))
            if not path.exists():  # any value of roughly the right type
                path.write_bytes((made.note("json") if kind == "json.part" else made.path).read_bytes())
            damage(path)
        own = stages_of(context(run).settings)
        listed = [line.stage for line in status_of(context(run))]
        assert listed in (own, [*own, "explore"]), damage  # explore is shown if anything is left of it
        shutil.rmtree(run)
        shutil.copytree(finished, run)


def test_status_reports_a_changed_artifact(run: Path) -> None:
    flip(run / "deliberations.jsonl")
    (changed,) = (line for line in status_of(context(run)) if line.stage == "synthesize")
    assert (changed.state, changed.note) == (
        "stale",
        "changed after the stage finished; run the stage again to check it",
    )


@pytest.mark.parametrize("damage", [cut, not_text, Path.unlink])
def test_lost_digests_make_no_finished_stage_stale(run: Path, damage: Damage, begun: list[str]) -> None:
    note = artifact(run, "sample").note("units.json")
    before = note.read_bytes()
    damage(note)
    assert perform("sample", run, limit=LIMIT).message.endswith("nothing to do")
    assert note.read_bytes() == before
    assert begun == []


def test_lost_digests_are_reported_if_the_input_changed_since(run: Path) -> None:
    note = artifact(run, "sample").note("units.json")
    note.unlink()
    edit(run / "expert.jsonl", 1, instruction="Bring it.")
    with pytest.raises(PrerequisiteError, match=f"{note} is lost"):
        perform("sample", run, limit=LIMIT)


@pytest.fixture(scope="module")
def with_failures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose samples are finished without the steps of one trajectory."""
    root = make_run(tmp_path_factory.mktemp("failures") / "run", sample__n=2)
    with pytest.MonkeyPatch.context() as patch:
        perform("collect", root, limit=2)
        with failing(patch, "(House 1.)"):
            perform("sample", root, limit=2, options=Options(accept_failures=True))
    for stage in ("rollout", "critique"):
        perform(stage, root, limit=2)
    return root


@pytest.mark.parametrize("damage", [cut, not_text, folder, Path.unlink])
def test_damaged_list_of_failures_is_rewritten(
    with_failures: Path, tmp_path: Path, damage: Damage, begun: list[str]
) -> None:
    root = Path(shutil.copytree(with_failures, tmp_path / "run"))
    note = artifact(root, "sample").note("failures.jsonl")
    damage(note)
    with pytest.raises(UsageError, match=f"{note} is damaged: ") as caught:
        perform("synthesize", root, limit=2)
    assert caught.value.fix == f"sand sample --run {root} tries these units again"
    assert begun == []
    if damage is folder:
        note.rmdir()
    perform("sample", root, limit=2)
    assert sorted(begun) == [f'sample ["fetch_1",{step}]' for step in range(4)]
    assert artifact(root, "sample").failures() == []


@pytest.mark.slow
def test_flipped_bit_anywhere_in_a_manifest_changes_nothing_that_is_read(run: Path) -> None:
    made = artifact(run, "sample")
    note = made.note("json")
    whole, known = note.read_bytes(), made.manifest()
    assert known is not None
    known.checksum = ""
    for at in range(len(whole)):
        note.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        found = made.manifest()
        if found is not None:  # only the name of the checksum is hit
            found.checksum = ""
            assert found == known, at
