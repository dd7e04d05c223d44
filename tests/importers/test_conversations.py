"""Recorded conversations in the published formats, and why a row cannot be used."""

from typing import Any

import pytest

from sandcli.agent.turns import Turn
from sandcli.envs.scienceworld.world import ScienceWorld
from sandcli.importers.conversations import RecordedTrajectory, UnusableRow, read_row, read_trajectory
from sandcli.importers.rows import read_rows
from sandcli.messages import Message
from sandcli.records import Task
from tests.helpers import REPO

SAMPLE = REPO.parent / "shared" / "data" / "eto_sciworld_sample.json"

Messages = list[tuple[str, str]]
MESSAGES: Messages = [
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
    None,
    (Message("user", "You are in a house. Reply with OK."), Message("assistant", "OK")),
)


def read(content: object) -> RecordedTrajectory:
    return read_trajectory(read_row(content))


def row(messages: Messages, **more: Any) -> dict[str, Any]:
    said = [{"from": who, "value": text, "loss": None} for who, text in messages]
    return {"id": "fetch_0", "conversations": said, **more}


def test_sharegpt_messages_are_read() -> None:
    assert read(row(MESSAGES)) == READ


@pytest.mark.parametrize("field", ["messages", "conversations"])
def test_role_and_content_messages_are_read(field: str) -> None:
    roles = {"human": "user", "gpt": "assistant"}
    messages = [{"role": roles[who], "content": text} for who, text in MESSAGES]
    assert read({"id": "fetch_0", field: messages}) == READ


def test_agentgym_row_is_read() -> None:
    plain = [(who, text.removeprefix("Observation: ")) for who, text in MESSAGES]
    turns = {3: "Thought:\nI look.\n\nAction:\nlook", 5: "Thought:\nI go.\n\nAction: \ngo to kitchen\n"}
    messages = [(who, turns.get(number, text)) for number, (who, text) in enumerate(plain)]
    content = row(messages, id=None, item_id="sciworld_7")
    assert read(content) == READ._replace(id="sciworld_7", task="sciworld_7")


def test_action_may_be_on_the_line_of_the_thought() -> None:
    messages = [*MESSAGES[:3], ("gpt", "Thought: I look. Action: look"), *MESSAGES[4:]]
    assert read(row(messages)) == READ


def test_missing_columns_of_a_parquet_row_are_ignored() -> None:
    said = [{"from": who, "value": text, "role": None, "content": None} for who, text in MESSAGES]
    assert read({"id": "fetch_0", "conversations": said, "messages": None, "item_id": None}) == READ


def test_last_turn_may_have_no_observation() -> None:
    found = read(row(MESSAGES[:-1]))
    assert (found.turns, found.observations) == (READ.turns, READ.observations[:1])


def test_first_message_is_the_task_without_a_preamble() -> None:
    assert read(row(MESSAGES[2:])) == READ._replace(preamble=())


def test_task_comes_after_an_example_episode() -> None:
    task = ("human", "Now it is your turn. Your task is to bring the lamp.")
    example = [*MESSAGES[:2], ("human", "An example. Your task is to find the cat."), *MESSAGES[3:6]]
    found = read(row([*example, task, *MESSAGES[3:]]))
    preamble = [Message("assistant" if who == "gpt" else "user", text) for who, text in example]
    assert found == READ._replace(instruction=task[1], preamble=tuple(preamble))


def test_system_message_is_part_of_the_preamble() -> None:
    found = read(row([("system", "Rules."), *MESSAGES]))
    assert found.preamble == (Message("system", "Rules."), *READ.preamble)


def test_game_file_names_the_task_and_an_id_may_be_a_number() -> None:
    found = read(row(MESSAGES, id=0, game_file="train/a/b/game.tw-pddl"))
    assert (found.id, found.task) == ("0", "train/a/b/game.tw-pddl")


def test_recorded_reward_is_kept() -> None:
    assert read(row(MESSAGES, reward=0.5)).reward == 0.5


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("text", "a row has no known format: Expected `object`"),
        ({"conversations": []}, "a row names no task: "),
        ({"id": "b"}, "a row has no messages: "),
        ({"id": "b", "conversations": [{"from": "gpt", "value": 3}]}, "a row has no known format: "),
        (row(MESSAGES[:3]), "no action follows a task"),
        (row(MESSAGES[3:]), "no action follows a task"),
        (row(MESSAGES[1:2] + MESSAGES[3:]), "no action follows a task"),
        (row([*MESSAGES, MESSAGES[-1]]), "turns and observations do not alternate: 2 turns, 3 observations"),
        (row([*MESSAGES[:4], MESSAGES[5], MESSAGES[5]]), "turns and observations do not alternate: 3 turns, 0"),
        (row([*MESSAGES[:5], ("gpt", "I am lost."), MESSAGES[6]]), "a turn has no action: 1 of 2 turns"),
        (row([*MESSAGES[:5], ("gpt", "Thought: eh.\nAction:"), MESSAGES[6]]), "a turn has no action: 1 of 2 turns"),
    ],
)
def test_unusable_row_says_why(content: object, why: str) -> None:
    with pytest.raises(UnusableRow) as caught:
        read(content)
    assert str(caught.value).startswith(why)


def test_published_sample_is_read() -> None:
    if not SAMPLE.exists():
        pytest.skip(f"the sample of the ETO data is missing: {SAMPLE}")
    found = read(next(read_rows(SAMPLE)).content)
    assert found.id == "9_412"
    assert found.instruction.startswith("Your task is to determine if metal pot is electrically conductive.")
    assert len(found.turns) == len(found.observations) + 1
    assert found.turns[0].action == "look around"
    assert found.turns[1].action == "teleport to kitchen"
    assert found.observations[0].startswith("This room is called the foundry.")
    assert found.observations[1] == "You teleport to the kitchen."
    assert ScienceWorld().task_of(found.id) == Task(name="test-conductivity", variation=412)
