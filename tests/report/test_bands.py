"""Difficulty bands, with and without ties."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcli.report.bands import BANDS, BandLimits, band_limits, banded_scores
from sandcli.report.rows import agent_rows
from tests.report.made_up import evaluation, everywhere, score, scores

REWARDS = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("rewards", "limits", "counts"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], (0.2, 0.4), (2, 2, 2)),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], (0.3, 0.5), (3, 2, 2)),
        ([0.0, 0.0, 0.0, 0.0, 0.5, 1.0], (0.0, 0.0), (4, 0, 2)),
        ([0.0, 0.2, 0.2, 0.2, 0.9, 1.0], (0.2, 0.2), (4, 0, 2)),
        ([0.0, 0.0, 0.0, 1.0, 1.0], (0.0, 0.0), (3, 0, 2)),
        ([0.0, 1.0, 1.0, 1.0, 1.0], (0.0, 0.0), (1, 0, 4)),
        ([0.0, 0.0, 0.0], (0.0, 0.0), (3, 0, 0)),
    ],
    ids=["even", "odd", "mostly zero", "ties", "binary", "mostly solved", "all equal"],
)
def test_the_bands_are_tertiles(
    rewards: list[float], limits: tuple[float, float], counts: tuple[int, int, int]
) -> None:
    found = band_limits(rewards)
    assert found == BandLimits(*limits)
    bands = Counter(found.band(reward) for reward in rewards)
    assert tuple(bands[band] for band in BANDS) == counts


@given(REWARDS)
def test_a_better_task_is_never_in_a_harder_band(rewards: list[float]) -> None:
    limits = band_limits(rewards)
    order = [BANDS.index(limits.band(reward)) for reward in sorted(rewards)]
    assert order == sorted(order)
    assert order[0] == 0
    assert len(set(rewards)) == 1 or order[-1] == 2


@given(st.sets(st.floats(0, 1), min_size=3, max_size=40))
def test_distinct_rewards_give_thirds(rewards: set[float]) -> None:
    bands = Counter(map(band_limits(list(rewards)).band, rewards))
    assert max(bands.values()) - min(bands[band] for band in BANDS) <= 2


def test_bands_follow_the_base_model_of_the_same_group() -> None:
    base = [score(0, 0.0), score(1, 0.5), score(2, 1.0)]
    model = [score(2, 0.1), score(0, 0.9), score(7, 0.3)]
    other = evaluation("runs/other", base="m/other", model=model)
    found = banded_scores(agent_rows([evaluation(base_model=base, model=model), other]))
    assert [part.row.label for part in found] == ["base", "SAND, iteration 1"]
    assert {band: [s.task for s in kept] for band, kept in found[1].scores.items()} == {
        "hard": ["boil_0"],
        "medium": [],
        "easy": ["boil_2"],
    }


def test_each_test_set_has_bands_of_its_own() -> None:
    base = scores([0.0, 1.0], "seen") + scores([0.5, 0.1], "unseen")
    found = banded_scores(agent_rows([evaluation(base_model=base, model=everywhere(0.2, 0.3))]))
    assert [(str(part.suite), [s.task for s in part.scores["hard"]]) for part in found if part.row.kind == "sand"] == [
        ("ScienceWorld seen", ["boil_0"]),
        ("ScienceWorld unseen", ["boil_1"]),
    ]


def test_equal_rewards_of_the_base_model_give_no_bands() -> None:
    assert not banded_scores(agent_rows([evaluation(base_model=everywhere(1.0, 1.0), model=everywhere(0.4, 0.6))]))
