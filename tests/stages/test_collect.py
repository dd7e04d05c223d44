"""`sand collect` from recorded trajectories, on the toy world."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sandcli
from sandcli.core.stage import Options, Summary
from sandcli.errors import Exit, UsageError
from tests.helpers import artifact, built, lines, make_run, perform, sand, state

FETCH = {
    "go to kitchen": "You are in the kitchen.",
    "take lamp": "You take the lamp.",
    "go to hall": "You are in the hall, lamp in hand.",
    "drop lamp": "You drop the lamp.",
}
TASK = "Bring the lamp from the kitchen to the hall. (House {}.)"

Row = dict[str, Any]


def row(name: str = "fetch_0", steps: dict[str, str] | None = None, task: str = "", **more: Any) -> Row:
    """A row in ETO's form; the last turn has no observation."""
    said = ["You live in a house.", "OK", task or TASK.format(name.rpartition("_")[2])]
    for action, observation in (FETCH if steps is None else steps).items():
        said += [f"Thought: I must.\nAction: {action}", f"Observation: {observation}"]
    speakers = ("human", "gpt")
    messages = [{"from": speakers[number % 2], "value": text} for number, text in enumerate(said[:-1])]
    return {"id": name, "conversations": messages, **more}


def changed(**steps: str) -> dict[str, str]:
    """The steps with other observations; `take_lamp` is `take lamp`."""
    return FETCH | {action.replace("_", " "): text for action, text in steps.items()}


def write(path: Path, *rows: Any) -> Path:
    path.write_text(json.dumps(rows))
    return path


def collect(root: Path, source: Path, **more: Any) -> Summary:
    return sandcli.collect(root, source=source, **more)


def kinds(summary: Summary) -> dict[str, str]:
    assert summary.manifest is not None
    return {json.loads(unit)[0]: reason for unit, reason in summary.manifest.left_out.items()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def test_rows_that_cannot_be_used_are_left_out_and_counted_beside_those_that_can(root: Path, tmp_path: Path) -> None:
    lost = row("fetch_4")
    lost["conversations"][5]["value"] = "I am lost."
    source = write(tmp_path / "rows.json", row(), row("fetch_99"), lost, row(), {"id": "fetch_2"}, "text")
    summary = collect(root, source)
    assert summary.exit is Exit.DONE
    assert [record["id"] for record in lines(root / "expert.jsonl")] == ["fetch_0"]
    why = kinds(summary)
    assert why["fetch_99, row 2"].startswith("no such task or game here: 'fetch_99' names no toy task")
    assert why["fetch_4, row 3"].startswith("a turn has no action: ")
    assert why["fetch_0, row 4"] == "an id occurs twice"
    assert why["fetch_2, row 5"].startswith("a row has no messages: ")
    assert why["row 6"].startswith("a row has no known format: ")
    assert state("collect", root).kind == "done"


def test_texts_come_from_the_replay_and_thoughts_and_actions_from_the_recording(root: Path, tmp_path: Path) -> None:
    recorded = row(steps=changed(take_lamp="You have the lamp now."), task="Fetch it.")
    summary = collect(root, write(tmp_path / "rows.json", recorded, row("fetch_2")))
    first, _ = lines(root / "expert.jsonl")
    assert [(step["thought"], step["action"], step["observation"]) for step in first["steps"]] == [
        ("I must.", action, text) for action, text in FETCH.items()
    ]
    assert (first["instruction"], first["reward"]) == (TASK.format(0), 1.0)
    assert summary.manifest is not None
    assert summary.manifest.differences == {
        "the task's sentence": (1, f"fetch_0: recorded 'Fetch it.', now {TASK.format(0)!r}"),
        "really different": (
            1,
            "fetch_0: step 1 (take lamp): recorded 'You have the lamp now.', observed 'You take the lamp.'",
        ),
    }


def _messages(recorded: Row) -> list[Row]:
    """The messages of a row as chat templates name them."""
    roles = {"human": "user", "gpt": "assistant"}
    return [{"role": roles[said["from"]], "content": said["value"]} for said in recorded["conversations"]]


def _agentgym(recorded: Row) -> Row:
    """The row in AgentGym's form: the first messages are instructions, and each says whether it carries loss."""
    said = [{**message, "loss": message["from"] == "gpt" or None} for message in recorded["conversations"]]
    return {"item_id": recorded["id"], "conversations": said}


FORMS: dict[str, Callable[[Row], Row]] = {
    "eto": lambda recorded: recorded,
    "chat": lambda recorded: {"id": recorded["id"], "messages": _messages(recorded)},
    "agentgym": _agentgym,
}


def _as_list(path: Path, rows: list[Row]) -> None:
    write(path, *rows)


def _as_lines(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))


def _as_parquet(path: Path, rows: list[Row]) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow.parquet import write_table

    write_table(arrow.Table.from_pylist(rows), path)


def _as_folder(path: Path, rows: list[Row]) -> None:
    path.mkdir()
    for number, each in enumerate(rows):
        write(path / f"{number}.json", each)


CONTAINERS: dict[str, Callable[[Path, list[Row]], None]] = {
    "rows.json": _as_list,
    "rows.jsonl": _as_lines,
    "rows.parquet": _as_parquet,
    "folder": _as_folder,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_rows_of_every_form_in_every_container_give_the_same_trajectories(
    root: Path, tmp_path: Path, container: str, form: str
) -> None:
    CONTAINERS[container](tmp_path / container, [FORMS[form](row(name)) for name in ("fetch_0", "fetch_2")])
    assert collect(root, tmp_path / container).exit is Exit.DONE
    first, second = lines(root / "expert.jsonl")
    assert (first["id"], second["id"]) == ("fetch_0", "fetch_2")
    assert [(step["thought"], step["action"]) for step in first["steps"]] == [("I must.", action) for action in FETCH]


def test_as_recorded_keeps_the_recorded_texts(root: Path, tmp_path: Path) -> None:
    recorded = row(steps=changed(take_lamp="You have the lamp now."), task="Fetch it.")
    collect(root, write(tmp_path / "rows.json", recorded), as_recorded=True)
    (record,) = lines(root / "expert.jsonl")
    assert record["instruction"] == "Fetch it."
    assert [step["observation"] for step in record["steps"]] == [*changed(take_lamp="You have the lamp now.").values()]


def test_collection_says_that_data_are_our_own_unless_others_recorded_them(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandcli.stages.collect.PAPER_WORLDS", ("toyworld",))
    said = "2 records; D_exp is our own (gold, thoughts none), the paper's is the ETO data (--from)"
    assert built("collect", root).summary([1, 2]) == said
    source = write(tmp_path / "rows.json", row())
    assert built("collect", root, collect__source=str(source)).summary([1, 2]) == "2 records"


def test_strict_leaves_out_what_differs(root: Path, tmp_path: Path) -> None:
    recorded = row(steps=changed(take_lamp="You have the lamp now."))
    summary = collect(root, write(tmp_path / "rows.json", recorded, row("fetch_2")), strict=True)
    assert [record["id"] for record in lines(root / "expert.jsonl")] == ["fetch_2"]
    assert kinds(summary)["fetch_0"].startswith("texts differ: 1 of 4; step 1 (take lamp): ")


def test_failed_and_edited_rows_are_left_out(root: Path, tmp_path: Path) -> None:
    dropped = {action: text for action, text in FETCH.items() if action != "take lamp"}
    renamed = {"go to cellar": "You are in the cellar.", **FETCH}
    rows = [row("fetch_0"), row("fetch_2", dropped), row("fetch_4", renamed)]
    why = kinds(collect(root, write(tmp_path / "rows.json", *rows)))
    assert why == {
        "fetch_2": "the recorded outcome is not reached: 0.25 of 1.00",
        "fetch_4": "edited after the recording, or recorded under other settings: step 0 (go to cellar) was answered "
        "'You are in the cellar.'",
    }


def test_mistake_that_the_recording_has_too_is_kept(root: Path, tmp_path: Path) -> None:
    """Experts of the published data look at things that have another name by then."""
    stumble = {"fly": "I do not understand.", **FETCH}
    summary = collect(root, write(tmp_path / "rows.json", row("fetch_6", stumble)))
    assert not kinds(summary)
    (record,) = lines(root / "expert.jsonl")
    assert record["steps"][0]["observation"] == stumble["fly"] and record["reward"] == 1.0


@pytest.mark.slow
def test_import_that_accepts_nothing_fails_in_one_line(root: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "rows.json", row(steps={"fly": "You fly.", "look": ""}), row("fetch_99"))
    done = sand("collect", "--run", root, "--from", source)
    assert done.returncode == Exit.USAGE
    assert "error: file:rows.json: no trajectory was accepted (" in done.stderr
    assert "edited after the recording, or recorded under other settings: 1" in done.stderr
    assert "no such task or game here: 1" in done.stderr
    assert "set env.simplifications and env.games to those of the recording" in done.stderr
    assert not (root / "expert.jsonl").exists()
    assert state("collect", root).kind == "missing"


def test_data_of_another_world_are_refused_in_one_line_before_anything_is_started(root: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "rows.json", row("9_412"), row("9_413"))
    with pytest.raises(
        UsageError, match=r"none of its 2 rows can be used; '9_412, row 1': .*'9_412' names no toy task"
    ) as caught:
        collect(root, source)
    assert "set env.name and env.games to the data's world" in caught.value.fix
    assert not artifact(root, "collect").journal.exists()


def test_expert_that_solves_nothing_is_an_error(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", env__tasks="riddle")
    with pytest.raises(
        UsageError, match=r"no trajectory was accepted .the expert's own path does not reach the full score: 2"
    ):
        perform("collect", root)


def test_source_may_be_a_setting(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", collect__source="rows.json", collect__rows="strict")
    write(root / "rows.json", row(), row("fetch_2", task="Fetch it."))
    assert perform("collect", root).exit is Exit.DONE
    (record,) = lines(root / "expert.jsonl")
    assert (record["id"], record["source"]) == ("fetch_0", "file:rows.json")
    assert state("collect", root).kind == "done"
    assert state("collect", root, collect__rows="replayed").reasons == ["collect.rows: was strict, is replayed"]
    write(root / "rows.json", row())
    assert any(reason.startswith("file: was ") for reason in state("collect", root).reasons)


def test_strict_and_as_recorded_contradict_each_other(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="contradict each other"):
        collect(root, write(tmp_path / "rows.json", row()), strict=True, as_recorded=True)


@pytest.mark.slow
def test_limit_takes_the_first_rows_and_can_be_widened(root: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "rows.json", row(), row("fetch_2"))
    collect(root, source, limit=1)
    assert len(lines(root / "expert.jsonl")) == 1
    assert collect(root, source, force=True).exit is Exit.DONE
    assert len(lines(root / "expert.jsonl")) == 2


def test_imported_data_stay_valid_for_commands_that_do_not_name_them(root: Path, tmp_path: Path) -> None:
    collect(root, write(tmp_path / "rows.json", row()))
    assert state("collect", root).kind == "done"
    with pytest.raises(UsageError, match=r"came from elsewhere .file:rows.json."):
        perform("collect", root, options=Options(force=True))
