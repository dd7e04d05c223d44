"""Crash-safe JSONL: complete records survive any damage to the file, and nothing else is read as a record."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandcli.core.artifact import StageName
from sandcli.core.stage import Options
from sandcli.core.store import Journal, Records, lock
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.files import write_atomic
from sandcli.records import Critique, Rollout
from tests.core.damage import folder
from tests.core.runs import LIMIT
from tests.helpers import artifact, environment, lines, make_run, perform


def critique(name: str, step: int, text: str = "Fine.") -> Critique:
    return Critique(id=name, step=step, candidate=0, action="look", reward=0.5, critique=text, tokens=3)


def journalled(path: Path, records: Iterable[Critique]) -> Path:
    journal = Journal(path, Critique)
    for record in records:
        journal.append(record)
    journal.close()
    return path


def sealed(folder: Path, records: Iterable[Critique]) -> bytes:
    journal = Journal(folder / "c.jsonl.part", Critique)
    for record in records:
        journal.append(record)
    journal.seal(folder / "c.jsonl", lambda made: None)
    journal.close()
    return (folder / "c.jsonl").read_bytes()


def reopened(path: Path) -> tuple[list[Critique], list[str]]:
    """The records that a new process finds, and the notices that it prints."""
    notices: list[str] = []
    journal = Journal(path, Critique, notices.append)
    found = list(journal)
    journal.close()
    return found, notices


def test_appended_records_are_found_again(tmp_path: Path) -> None:
    records = [critique("a", 0), critique("b", 1, 'Über\n"quoted" \u2028 \x00')]
    path = journalled(tmp_path / "j.part", records)
    assert reopened(path) == (records, [])
    assert path.read_bytes().count(b"\n") == 2


def test_record_can_be_read_while_its_journal_is_open(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.part", Critique)
    journal.append(critique("b", 1))
    journal.append(critique("a", 2))
    assert ("b", 1, 0) in journal
    assert ("b", 2, 0) not in journal
    assert journal.get(("a", 2, 0)) == critique("a", 2)
    assert journal.ordered_keys() == [("a", 2, 0), ("b", 1, 0)]
    journal.close()


def test_torn_last_line_is_cut_off_with_a_notice(tmp_path: Path) -> None:
    path = journalled(tmp_path / "j.part", [critique("a", 0)])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id":"b","st')
    found, notices = reopened(path)
    assert found == [critique("a", 0)]
    assert len(notices) == 1
    assert notices[0].startswith(f"{path}:2: cut off")
    assert path.read_bytes() == whole


def test_last_line_without_a_line_break_is_torn_even_if_it_decodes(tmp_path: Path) -> None:
    path = journalled(tmp_path / "j.part", [critique("a", 0), critique("b", 0)])
    path.write_bytes(path.read_bytes()[:-1])
    assert reopened(path)[0] == [critique("a", 0)]


def test_journal_continues_after_a_torn_line(tmp_path: Path) -> None:
    path = journalled(tmp_path / "j.part", [critique("a", 0)])
    path.write_bytes(path.read_bytes() + b'{"id":')
    journalled(path, [critique("b", 0)])
    assert reopened(path) == ([critique("a", 0), critique("b", 0)], [])


def test_reader_leaves_a_torn_line_to_the_writer(tmp_path: Path) -> None:
    path = journalled(tmp_path / "j.part", [critique("a", 0)])
    path.write_bytes(path.read_bytes() + b'{"id":')
    before = path.read_bytes()
    records = Records(path, Critique)
    assert list(records) == [critique("a", 0)]
    records.close()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "bad",
    [
        b'{"id":"b","st\n',
        b"\n",
        b"null\n",
        b'{"id":"b","step":0,"candidate":0,"action":"look","reward":0.5,"tokens":3}\n',
        b'{"id":"b","step":"0","candidate":0,"action":"look","reward":0.5,"critique":"","tokens":3}\n',
        b'{"id":"b","step":0,"candidate":0,"action":"look","reward":0.5,"critique":"","tokens":3,"more":1}\n',
        b'{"id":"\xff","step":0,"candidate":0,"action":"look","reward":0.5,"critique":"","tokens":3}\n',
    ],
    ids=["cut", "empty", "null", "field missing", "wrong type", "unknown field", "not UTF-8"],
)
def test_bad_line_in_the_middle_is_named_by_file_and_line(tmp_path: Path, bad: bytes) -> None:
    path = journalled(tmp_path / "j.part", [critique("a", 0)])
    whole = path.read_bytes()
    path.write_bytes(whole + bad + whole.replace(b'"a"', b'"c"'))
    before = path.read_bytes()
    for attempt in (
        lambda: Journal(path, Critique),
        lambda: len(Records(path, Critique)),
        lambda: list(Records(path, Critique)),
    ):
        with pytest.raises(UsageError) as caught:
            attempt()
        assert caught.value.what.startswith(f"{path}:2: ")
        assert "\n" not in caught.value.what
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", [{"reward": 7.5}, {"reward": -1.0}, {"step": -1}, {"tokens": -3}])
def test_value_out_of_range_is_named_by_file_and_line(tmp_path: Path, change: dict[str, float]) -> None:
    path = tmp_path / "c.jsonl"
    good = {"id": "a", "step": 0, "candidate": 0, "action": "look", "reward": 0.5, "critique": "", "tokens": 3}
    path.write_text("".join(json.dumps(line) + "\n" for line in (good, {**good, "id": "b", **change})))
    with pytest.raises(UsageError, match=rf"^{path}:2: not a valid record: Expected .*`\$\.{next(iter(change))}`$"):
        list(Records(path, Critique))


def test_rollout_without_a_step_is_no_rollout(tmp_path: Path) -> None:
    empty = {"id": "a", "step": 0, "candidate": 0, "action": "look", "thought": "", "expert": True, "count": 1}
    path = tmp_path / "r.jsonl"
    path.write_text(
        json.dumps({**empty, "steps": [], "reward": 0, "success": False, "end": "done", "tokens": 0}) + "\n"
    )
    with pytest.raises(UsageError, match=r"r\.jsonl:1: not a valid record: Expected .*`\$\.steps`"):
        list(Records(path, Rollout))


def test_missing_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "j.part"
    path.write_text('{"id":"b","step":0}\n')
    with pytest.raises(UsageError, match="candidate"):
        list(Records(path, Critique))


def test_later_record_supersedes_an_earlier_one(tmp_path: Path) -> None:
    records = [critique("a", 0, "old"), critique("b", 0), critique("a", 0, "new")]
    path = journalled(tmp_path / "j.part", records)
    found, _ = reopened(path)
    assert [record.critique for record in found] == ["new", "Fine."]
    sealed(tmp_path, records)
    assert [line["critique"] for line in lines(tmp_path / "c.jsonl")] == ["new", "Fine."]


def test_sealing_sorts_numbers_as_numbers(tmp_path: Path) -> None:
    sealed(tmp_path, [critique("b", 1), critique("a", 10), critique("a", 9)])
    assert [(line["id"], line["step"]) for line in lines(tmp_path / "c.jsonl")] == [("a", 9), ("a", 10), ("b", 1)]


def test_sealing_leaves_no_journal(tmp_path: Path) -> None:
    sealed(tmp_path, [critique("a", 0)])
    assert [path.name for path in tmp_path.iterdir()] == ["c.jsonl"]


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations([critique(name, step) for name in "ab" for step in (0, 2, 11)]))
def test_records_give_the_same_bytes_in_any_order(tmp_path: Path, records: list[Critique]) -> None:
    in_order = sorted(records, key=lambda record: record.key)
    assert sealed(tmp_path, records) == sealed(tmp_path, in_order)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_journal_cut_at_any_byte_keeps_every_complete_record(tmp_path: Path, data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.text(max_size=8), min_size=1, max_size=4))
    records = [critique("a", step, text) for step, text in enumerate(texts)]
    path = tmp_path / "j.part"
    path.unlink(missing_ok=True)
    whole = journalled(path, records).read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:at])
    complete = whole[:at].count(b"\n")
    found, notices = reopened(path)
    assert found == records[:complete]
    assert len(notices) == (0 if whole[:at].endswith(b"\n") or at == 0 else 1)
    journalled(path, records[complete:])
    assert path.read_bytes() == whole


def test_unsealed_artifact_takes_more_records(tmp_path: Path) -> None:
    sealed(tmp_path, [critique("a", 0), critique("c", 0)])
    (tmp_path / "c.jsonl").rename(tmp_path / "c.jsonl.part")
    sealed(tmp_path, [critique("b", 0)])
    assert [line["id"] for line in lines(tmp_path / "c.jsonl")] == ["a", "b", "c"]


def test_failed_replacement_leaves_the_old_file(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"new"
        raise RuntimeError

    path = tmp_path / "f"
    write_atomic(path, [b"o", b"ld"])
    with pytest.raises(RuntimeError):
        write_atomic(path, broken())
    assert path.read_bytes() == b"old"


def test_lock_is_held_once_and_names_its_holder(tmp_path: Path) -> None:
    with lock(tmp_path / "l", "sand x"):
        pid = (tmp_path / "l").read_text()
        with (
            pytest.raises(PrerequisiteError, match=rf"sand x is running .*\(pid {pid}\)"),
            lock(tmp_path / "l", "sand x"),
        ):
            pass
    with lock(tmp_path / "l", "sand x"):
        pass


def test_lock_that_fails_names_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandcli.core.store.fcntl.flock", failing_with(errno.EIO))
    with pytest.raises(PrerequisiteError, match=f"^{tmp_path}/l: cannot lock: Input/output error$"), lock_of(tmp_path):
        pass


def test_file_system_without_locks_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandcli.core.store.fcntl.flock", failing_with(errno.ENOLCK))
    said: list[str] = []
    with lock(tmp_path / "l", "sand x", said.append):
        assert said == [f"{tmp_path}/l: this file system has no locks: do not start this stage twice at the same time"]


def failing_with(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def lock_of(folder: Path) -> AbstractContextManager[None]:
    return lock(folder / "l", "sand x")


@pytest.mark.parametrize("stage", ["sample", "eval"])
def test_folder_in_place_of_an_artifact_is_named(run: Path, stage: StageName) -> None:
    made = artifact(run, stage)
    folder(made.path)
    with pytest.raises(PrerequisiteError, match=f"{made.path}: cannot read: Is a directory"):
        perform(stage, run, limit=LIMIT)
    perform(stage, run, limit=LIMIT, options=Options(force=True))
    assert made.path.is_file()


def test_folder_in_place_of_d_delib_is_named(run: Path) -> None:
    folder(run / "deliberations.jsonl")
    with pytest.raises(PrerequisiteError, match=r"deliberations\.jsonl: cannot write: Is a directory"):
        perform("synthesize", run, limit=LIMIT)


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))
from sandcli.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sample", "rollout"])
def test_full_disk_is_one_clear_error_and_loses_nothing(tmp_path: Path, stage: StageName) -> None:
    for name in ("whole", "cut"):
        perform("collect", make_run(tmp_path / name))
        if stage == "rollout":
            perform("sample", tmp_path / name)
    perform(stage, tmp_path / "whole")
    expected, journal = artifact(tmp_path / "whole", stage).path, artifact(tmp_path / "cut", stage).journal
    code = LIMITED.format(expected.stat().st_size // 2)
    ran = subprocess.run(
        [sys.executable, "-c", code, stage, "--run", str(tmp_path / "cut")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = [line for line in ran.stderr.splitlines() if not line.startswith(("engine:", "environment:"))]
    assert len(said) == 2, ran.stderr
    assert re.fullmatch(f"error: {journal}: cannot write: (File too large|No space left on device)", said[0])
    assert said[1] == "  fix: free some space there, then run the same command again"
    assert ran.returncode == 3
    kept = journal.read_bytes()
    assert kept.count(b"\n") > 3
    assert set(kept.splitlines()) < set(expected.read_bytes().splitlines())
    perform(stage, tmp_path / "cut")
    assert (tmp_path / "cut" / expected.name).read_bytes() == expected.read_bytes()


def test_a_byte_order_mark_is_skipped_and_gone_after_sealing(tmp_path: Path) -> None:
    first = sealed(tmp_path, [critique("a", 0), critique("b", 1)])
    path = tmp_path / "c.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + first)
    with Records(path, Critique) as records:
        assert [list(records), records.get(("a", 0, 0)), records.get(("b", 1, 0))] == [
            [critique("a", 0), critique("b", 1)],
            critique("a", 0),
            critique("b", 1),
        ]
    path.rename(tmp_path / "c.jsonl.part")
    assert sealed(tmp_path, [critique("A", 0)]).startswith(b'{"id":"A"')
    assert path.read_bytes().count(b"\xef\xbb\xbf") == 0


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_modes_of_a_journal_and_a_sealed_file_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        journalled(tmp_path / "j.part", [critique("a", 0)])
        sealed(tmp_path, [critique("a", 0)])
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("j.part", "c.jsonl")] == [mode, mode]
