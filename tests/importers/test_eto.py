"""Expert data in ETO's form: both forms of messages, and errors that name the line or row."""

import json
from pathlib import Path
from typing import Any

import pytest

from sandcli.agent.turns import Turn
from sandcli.envs.scienceworld.world import ScienceWorld
from sandcli.errors import UsageError
from sandcli.importers.eto import RecordedTrajectory, read_trajectories
from sandcli.records import Task
from tests.helpers import REPO

SAMPLE = REPO.parent / "shared" / "data" / "eto_sciworld_sample.json"

MESSAGES = [
    ("human", "You are in a house. Reply with OK."),
    ("gpt", "OK"),
    ("human", "Bring the lamp."),
    ("gpt", "Thought: I look.\nAction: look"),
    ("human", "Observation: A hall."),
    ("gpt", "Thought: I go.\nAction: go to kitchen"),
    ("human", "Observation: You go."),
]
READ = RecordedTrajectory(
    "fetch_0",
    "fetch_0",
    "Bring the lamp.",
    [Turn("I look.", "look"), Turn("I go.", "go to kitchen")],
    ["A hall.", "You go."],
)


def row(messages: list[tuple[str, str]], name: Any = "fetch_0") -> dict[str, Any]:
    return {"id": name, "conversations": [{"from": who, "value": text, "loss": None} for who, text in messages]}


def file(folder: Path, content: object) -> Path:
    path = folder / "rows.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def error(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read_trajectories(path)
    assert caught.value.fix
    assert "\n" not in caught.value.what
    return caught.value.what


def test_reader_accepts_sharegpt_messages(tmp_path: Path) -> None:
    assert read_trajectories(file(tmp_path, [row(MESSAGES)])) == [READ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_reader_accepts_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row(MESSAGES)]), encoding=encoding)
    assert read_trajectories(path) == [READ]


@pytest.mark.parametrize("field", ["messages", "conversations"])
def test_reader_accepts_role_and_content_messages(tmp_path: Path, field: str) -> None:
    roles = {"human": "user", "gpt": "assistant"}
    messages = [{"role": roles[who], "content": text} for who, text in MESSAGES]
    assert read_trajectories(file(tmp_path, [{"id": "fetch_0", field: messages}])) == [READ]


def test_last_turn_may_have_no_observation(tmp_path: Path) -> None:
    (found,) = read_trajectories(file(tmp_path, [row(MESSAGES[:-1])]))
    assert (found.turns, found.observations) == (READ.turns, READ.observations[:1])


def test_first_message_is_the_task_without_a_preface(tmp_path: Path) -> None:
    assert read_trajectories(file(tmp_path, [row(MESSAGES[2:])])) == [READ]


def test_id_may_be_a_number(tmp_path: Path) -> None:
    (found,) = read_trajectories(file(tmp_path, [row(MESSAGES, 412)]))
    assert found.id == "412"


def test_missing_file_is_named(tmp_path: Path) -> None:
    assert error(tmp_path / "none.json") == f"{tmp_path}/none.json: No such file or directory"


def test_invalid_json_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = file(tmp_path, '[\n{"id": "a",\n oops}]')
    assert error(path).startswith(f"{path}:3: not JSON: ")


def test_binary_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b'["\xff"]')
    assert error(path).startswith(f"{path}: not JSON: ")


@pytest.mark.parametrize("content", [{}, [], "3", '"rows"'])
def test_content_other_than_a_list_of_rows_is_an_error(tmp_path: Path, content: object) -> None:
    path = file(tmp_path, content)
    assert error(path) == f"{path}: not a list of rows"


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("text", "Expected `object`"),
        ({"conversations": []}, "neither an id nor a game_file"),
        ({"id": "b", "conversations": [{"from": "gpt", "value": 3}]}, "value"),
        ({"id": "b"}, "(b) has no turn with an action"),
        (row(MESSAGES[:3], "b"), "(b) has no turn with an action"),
        (row(MESSAGES[3:], "b"), "(b) has no turn with an action"),
        (row([*MESSAGES, MESSAGES[-1]], "b"), "(b) has 2 turns, 3 observations"),
        (row([*MESSAGES[:4], MESSAGES[5], MESSAGES[5]], "b"), "(b) has 3 turns, 0 observations"),
        (row([*MESSAGES[:5], ("gpt", "I am lost."), *MESSAGES[4:]], "b"), "(b)"),
    ],
)
def test_invalid_row_is_an_error_with_its_number(tmp_path: Path, bad: object, why: str) -> None:
    path = file(tmp_path, [row(MESSAGES), bad])
    message = error(path)
    assert message.startswith(f"{path}: row 2")
    assert why in message


def test_turn_without_an_action_is_an_error(tmp_path: Path) -> None:
    messages = [*MESSAGES[:5], ("gpt", "I am lost."), ("human", "Observation: Eh?"), MESSAGES[5]]
    path = file(tmp_path, [row(messages)])
    assert error(path).startswith(f"{path}: row 1 (fetch_0)")


def test_reader_reads_the_published_sample() -> None:
    if not SAMPLE.exists():
        pytest.skip(f"the sample of the ETO data is missing: {SAMPLE}")
    (found,) = read_trajectories(SAMPLE)
    assert found.id == "9_412"
    assert found.instruction.startswith("Your task is to determine if metal pot is electrically conductive.")
    assert len(found.turns) == len(found.observations) + 1
    assert found.turns[0].action == "look around"
    assert found.turns[1].action == "teleport to kitchen"
    assert found.observations[0].startswith("This room is called the foundry.")
    assert found.observations[1] == "You teleport to the kitchen."
    assert ScienceWorld().task_of(found.id) == Task(name="test-conductivity", variation=412)
