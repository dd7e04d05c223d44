"""Decision and deed: what a deliberation decides against what the agent does."""

from typing import Any

import pytest

from sandcli.episodes import Episode
from sandcli.records import Step, Task
from sandcli.report.decisions import decided, decisions, decisions_of
from sandcli.report.estimates import Estimate
from sandcli.report.rows import agent_rows
from sandcli.report.scores import Decisions
from tests.report.made_up import evaluation, score

OPTIONS = "My options: (1) look around; (2) go to kitchen; (3) pick up seed; (4) pick up seed in jar. The second."


@pytest.mark.parametrize(
    ("conclusion", "decision"),
    [
        ("So I will go to kitchen.", "go to kitchen"),
        ("So I will `Go  to kitchen`, because it is near.", "go to kitchen"),
        ("Therefore, I will look around", "look around"),
        ("It is near.\n\nSo  I will go to kitchen.", "go to kitchen"),
        ("So I will pick up seed in jar.", "pick up seed in jar"),
        ("So I will pick up seed.", "pick up seed"),
        ("So I will wait. So I will look around.", "look around"),
        ("So I will go to garden.", None),
        ("So I will take it.", None),
        ("The kitchen is best.", None),
        ("", None),
    ],
)
def test_a_decision_is_a_listed_option(conclusion: str, decision: str | None) -> None:
    assert decided(f"{OPTIONS} {conclusion}") == decision


def test_a_text_that_is_no_deliberation_decides_nothing() -> None:
    assert decided("") is None
    assert decided("So I will look around.") is None


def episode(*steps: tuple[str, str, bool]) -> Episode:
    taken = [Step(thought=t, action=a, observation="", score=0.0, deliberated=d) for t, a, d in steps]
    outcome: dict[str, Any] = {"reward": 0.0, "success": False, "end": "max_steps", "tokens": 1}
    return Episode(
        split="seen", task=Task(name="x"), model="m", instruction="", steps=taken, deliberated=len(taken), **outcome
    )


def test_only_deliberated_steps_count() -> None:
    kitchen = f"{OPTIONS} So I will go to kitchen."
    found = episode(
        (kitchen, "go to kitchen", True),
        (kitchen, "Go to kitchen.", True),
        (kitchen, "look around", True),
        (f"{OPTIONS} So I will take it.", "go to kitchen", True),
        (kitchen, "look around", False),
    )
    assert decisions_of(found) == Decisions(same=2, other=1, unread=1)


def test_each_agent_has_a_row_for_each_test_set() -> None:
    model = [
        score(0, 0.5, decisions=Decisions(3, 1, 2)),
        score(1, 0.5, decisions=Decisions(1, 3, 0)),
        score(2, 0.5, decisions=Decisions(0, 0, 4)),
        score(0, 0.5, "unseen", decisions=Decisions(0, 0, 1)),
    ]
    sheet = decisions(agent_rows([evaluation(sft=[score(0, 0.1)], model=model)]))
    assert sheet is not None
    assert [(row.label, *row.cells[:4]) for row in sheet.rows] == [
        ("SAND, iteration 1", "ScienceWorld seen", 4, 4, 6),
        ("SAND, iteration 1", "ScienceWorld unseen", 0, 0, 1),
    ]
    assert [row.cells[4] for row in sheet.rows] == [Estimate(50, 25, 75), None]


def test_without_deliberated_steps_there_is_no_table() -> None:
    assert decisions(agent_rows([evaluation(model=[score(0, 0.1)])])) is None
