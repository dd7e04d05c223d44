"""The trend test: known correlations, ties, and p-values that hold what they promise."""

import numpy as np
import pytest

from sandcli.report.bands import banded_scores
from sandcli.report.details import difficulty
from sandcli.report.rows import agent_rows
from sandcli.report.trend import PERMUTATIONS, trend, trend_notes
from tests.report.made_up import evaluation, score, scores


@pytest.mark.parametrize(
    ("one", "other", "rho"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 99], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),
        ([1, 2, 2, 3], [1, 2, 3, 4], 3 / np.sqrt(10)),
    ],
    ids=["rising", "falling", "with detours", "with a tie"],
)
def test_rho_of_known_values(one: list[float], other: list[float], rho: float) -> None:
    found = trend(one, other)
    assert found is not None
    assert found.rho == pytest.approx(rho)
    assert found.tasks == len(one)


def test_the_p_value_is_the_share_of_orders_at_least_as_extreme() -> None:
    found = trend([1, 2, 3, 4], [1, 2, 3, 4])
    assert found is not None and found.p == pytest.approx(2 / 24, abs=0.01)


def test_a_strong_trend_has_the_smallest_p_value() -> None:
    found = trend(range(30), range(30))
    assert found is not None and found.p == 1 / (1 + PERMUTATIONS)


def test_unrelated_values_have_evenly_spread_p_values() -> None:
    rng = np.random.default_rng(5)
    found = [trend(list(rng.random(12)), list(rng.integers(0, 3, 12))) for _ in range(60)]
    small = sum(one.p <= 0.25 for one in found if one is not None)
    assert 7 <= small <= 25


@pytest.mark.parametrize("one", [[], [0.5], [0.5, 0.5, 0.5]], ids=["nothing", "one task", "equal values"])
def test_without_differences_there_is_no_trend(one: list[float]) -> None:
    assert trend(one, list(range(len(one)))) is None


def test_the_table_by_difficulty_gives_the_trend_of_agents_that_deliberate() -> None:
    base = scores([0.0, 0.25, 0.5, 0.75, 1.0])
    model = [score(task, 0.5, deliberated=4 - task) for task in range(5)]
    rows = agent_rows([evaluation(base_model=base, sft=scores([0.1] * 5), model=[*model, score(9, 0.5)])])
    what, line = trend_notes(banded_scores(rows))
    assert "negative: it deliberates more on harder tasks" in what
    assert line.startswith("tiny, ScienceWorld seen, SAND, iteration 1: rho -1.00, p 0.01") and line.endswith("n = 5.")
    sheet = difficulty(rows)
    assert sheet is not None and list(sheet.notes[-2:]) == [what, line]


def test_agents_that_never_deliberate_have_no_trend() -> None:
    assert not trend_notes(banded_scores(agent_rows([evaluation(base_model=scores([0.0, 1.0]))])))
