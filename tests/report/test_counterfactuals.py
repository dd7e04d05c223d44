"""The table of deliberated steps that were taken without deliberating."""

from pathlib import Path
from typing import Any

import pytest

from sandcli.core.run import Run
from sandcli.report.build import Report, build_report, tables_for_terminal
from sandcli.report.counterfactuals import changes_of, counterfactual
from sandcli.report.rows import agent_rows
from sandcli.report.scores import Change
from tests.helpers import lines, perform
from tests.report.made_up import evaluation, scores
from tests.stages.test_counterfactual import run  # noqa: F401  (run is a fixture)


def change(task: int, gain: float | None) -> Change:
    """A step of a task; without a gain, the action is the same."""
    return Change("seen", f"boil_{task}", gain is None, gain or 0.0)


def test_differences_are_over_steps_with_another_action(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    changes = [change(0, 0.5), change(0, 0.1), change(0, None), change(1, -0.1), change(2, 0.0), change(2, None)]
    found: dict[str, Any] = {"base": scores([0.0, 0.5, 1.0]), "model": scores([0.4, 0.5, 0.6])}
    sheet = counterfactual(agent_rows([evaluation(scores=found, changes={"model": changes})]))
    assert sheet is not None
    assert [(row.label, *row.cells[:3]) for row in sheet.rows] == [
        ("SAND, iteration 1", "ScienceWorld seen", "all", 6),
        ("SAND, iteration 1", "ScienceWorld seen", "hard", 3),
        ("SAND, iteration 1", "ScienceWorld seen", "medium", 1),
        ("SAND, iteration 1", "ScienceWorld seen", "easy", 2),
    ]
    others: list[Any] = [row.cells[3] for row in sheet.rows]
    assert others == [pytest.approx(100 * 4 / 6), pytest.approx(100 * 2 / 3), 100, 50]
    difference: Any = sheet.rows[0].cells[4]
    assert (round(difference.mean, 6), difference.tasks) == (round(100 * (0.3 - 0.1 + 0) / 3, 6), 3)
    (printed,) = tables_for_terminal(Report([], [], [sheet], [], []))
    assert max(map(len, str(printed).splitlines())) <= 80


def test_without_records_there_is_no_table() -> None:
    assert counterfactual(agent_rows([evaluation(model=scores([0.5]))])) is None


@pytest.mark.slow
def test_records_are_read_with_their_episodes(run: Path) -> None:  # noqa: F811
    perform("eval", run, limit=1, eval__deliberation=["free", "never"])
    perform("counterfactual", run, limit=1)
    found, outdated = changes_of(Run(run))
    assert ({model: kept for model, kept in found.items() if kept}, outdated) == (
        {"base": [Change("seen", "fetch_6", False, 1.0), Change("seen", "fetch_6", True, 0.0)]},
        0,
    )
    assert "counterfactual" in [sheet.name for sheet in build_report([run]).sheets]


@pytest.mark.slow
def test_records_of_episodes_that_were_played_again_are_left_out(run: Path) -> None:  # noqa: F811
    perform("eval", run, limit=1)
    perform("counterfactual", run, limit=1)
    path = run / "counterfactuals.jsonl"
    path.write_text(path.read_text().replace('"action":"go to kitchen","reward":1.0', '"action":"dance","reward":1.0'))
    assert [record["action"] for record in lines(path)] == ["dance", "take lamp"]
    perform("counterfactual", run, limit=1)  # accepts the edit
    found, outdated = changes_of(Run(run))
    assert (found, outdated) == ({"base": [Change("seen", "fetch_6", True, 0.0)]}, 1)
    (line,) = [line for line in build_report([run]).warnings if "played again" in line]
    assert line.endswith(f"sand counterfactual --run {run} --force")
