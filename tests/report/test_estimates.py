"""Intervals: known values and properties."""

from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcli.report.estimates import Estimate, bootstrap, share, wilson

REWARDS = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def test_equal_values_have_no_interval() -> None:
    assert bootstrap([0.5] * 7) == Estimate(0.5, 0.5, 0.5)


def test_the_interval_matches_theory() -> None:
    values = [0.0, 1.0] * 200
    found = bootstrap(values)
    half = 1.96 * 0.5 / np.sqrt(400)
    assert list(found) == pytest.approx([0.5, 0.5 - half, 0.5 + half], abs=0.006)


def test_groups_have_equal_weight_whatever_their_size() -> None:
    found = bootstrap([1.0] * 9, [0.0])
    assert found == Estimate(0.5, 0.5, 0.5)


def test_the_mean_of_groups_has_a_narrower_interval_than_each() -> None:
    values = [0.0, 1.0] * 50
    one, four = bootstrap(values), bootstrap(values, values, values, values)
    assert (four.high - four.low) == pytest.approx((one.high - one.low) / 2, rel=0.15)


@given(REWARDS)
def test_an_interval_is_within_the_values_and_reproducible(values: list[float]) -> None:
    found = bootstrap(values)
    assert found.mean == pytest.approx(fmean(values))
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert found == bootstrap(values)


def test_large_samples_are_drawn_in_chunks() -> None:
    many = bootstrap(list(np.random.default_rng(1).random(5000)))  # more than one chunk
    half = 1.96 * np.sqrt(1 / 12) / np.sqrt(5000)
    assert many.high - many.low == pytest.approx(2 * half, rel=0.1)


@pytest.mark.parametrize(
    ("successes", "tasks", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (5, 10, 0.2366, 0.7634)],
)
def test_wilson(successes: int, tasks: int, low: float, high: float) -> None:
    found = wilson(successes, tasks)
    assert list(found) == pytest.approx([successes / tasks, low, high], abs=1e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_rate_and_is_symmetric(case: tuple[int, int]) -> None:
    successes, tasks = case
    found, mirrored = wilson(successes, tasks), wilson(tasks - successes, tasks)
    assert 0 <= found.low <= found.mean + 1e-12 and found.mean - 1e-12 <= found.high <= 1
    assert found.low == pytest.approx(1 - mirrored.high)


def test_a_share_counts_trials_not_clusters() -> None:
    found = share([(1, 1), (0, 9)])
    assert found.mean == 0.1
    assert (found.low, found.high) == (0, 1)


def test_a_share_of_single_trials_is_a_mean() -> None:
    assert share([(1, 1), (0, 1), (1, 1)]) == bootstrap([1, 0, 1])
