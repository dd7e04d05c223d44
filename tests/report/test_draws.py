"""Tasks that were played several times count once, and give pass@k."""

from fractions import Fraction
from itertools import combinations

import pytest

from sandcli.report.details import success
from sandcli.report.draws import one_a_task, pass_at, passes
from sandcli.report.rows import agent_rows
from sandcli.report.scores import Decisions
from sandcli.report.tables import table2, table4
from tests.report.made_up import evaluation, score, scores


@pytest.mark.parametrize(
    ("n", "c", "k"), [(n, c, k) for n in range(1, 6) for c in range(n + 1) for k in range(1, n + 1)]
)
def test_pass_at_k_is_the_share_of_all_choices_with_a_success(n: int, c: int, k: int) -> None:
    choices = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at(k, n, c) == pytest.approx(float(Fraction(sum(map(any, choices)), len(choices))))


def test_task_counts_once_however_often_it_was_played() -> None:
    found = one_a_task([*[score(0, 0.0)] * 3, score(0, 1.0), score(1, 1.0)])
    assert [(one.task, one.reward, one.success) for one in found] == [("boil_0", 0.25, 0.25), ("boil_1", 1.0, 1.0)]
    (row,) = agent_rows([evaluation(model=found)])
    assert table2([row]).rows[0].cells[0].mean == 62.5  # type: ignore[union-attr]
    assert success([row]).rows[0].cells[1].mean == 62.5  # type: ignore[union-attr]


def test_same_task_of_another_split_is_another_task() -> None:
    assert len(one_a_task([score(0, 1.0), score(0, 0.0, "unseen")])) == 2


def test_rates_are_averaged_over_episodes_and_not_over_their_steps() -> None:
    short, long = score(0, 1.0, steps=1, deliberated=1), score(0, 1.0, steps=9, deliberated=0, tokens=300)
    (both,) = one_a_task([short, long])
    assert both.deliberation_rate == 0.5
    assert both.reward_per_step == pytest.approx((1 + 1 / 9) / 2)
    assert (both.steps, both.tokens) == (5, 200)
    table = table4(agent_rows([evaluation(model=[both])]))
    assert table is not None and table.rows[0].cells[0].mean == 200  # type: ignore[union-attr]


def test_passes_are_shown_up_to_the_episodes_that_every_task_has() -> None:
    often = one_a_task([*[score(task, 0.0) for task in (0, 1) for _ in range(5)], score(0, 1.0)])
    sheet = passes(agent_rows([evaluation(model=often, sft=scores([1.0, 0.0]))]))
    assert sheet is not None
    assert sheet.columns == ["test set", "tasks", "episodes", "pass@1", "pass@2", "pass@4", "pass@5"]
    by_label = {row.label: [getattr(cell, "mean", cell) for cell in row.cells[1:]] for row in sheet.rows}
    assert by_label["SFT"] == [2, 1, 50.0, None, None, None]
    assert by_label["SAND, iteration 1"] == [2, 5, *map(pytest.approx, (100 / 12, 100 / 6, 100 / 3, 500 / 12))]


def test_without_a_task_that_was_played_twice_there_is_no_table() -> None:
    assert passes(agent_rows([evaluation(model=scores([1.0, 0.0]))])) is None


def test_decisions_of_all_episodes_count() -> None:
    (task,) = one_a_task([score(0, 1.0, decisions=Decisions(1, 2, 0)), score(0, 0.0, decisions=Decisions(3, 0, 1))])
    assert task.decisions == Decisions(4, 2, 1)
