"""Critics' verdicts against the rewards."""

from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace as changed

from sandcli.core.manifest import Identity, Manifest
from sandcli.core.run import Run
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.method.critique import Case
from sandcli.method.inconsistency import ExpertStep
from sandcli.report.critics import (
    Compared,
    Critics,
    Opinion,
    advanced_or_not,
    agreement,
    by_chance,
    critics_sheet,
    opinion,
    read_critics,
)
from sandcli.report.estimates import Estimate
from tests.report.made_run import FLAGGED, branch, critique, expert, make_complete, replace

ADVANCED, HINDERED = "I advanced the task, because it is near.", "I hindered the task, because it is far."


@pytest.mark.parametrize(
    ("candidate", "reward", "end", "compared", "by_reward"),
    [
        (0, 1.0, "done", "expert's", "advanced"),
        (1, 1.0, "done", "equal", "advanced"),
        (1, 0.5, "done", "less", "hindered"),
        (1, 0.5, "max_steps", "less", "did not affect"),
    ],
)
def test_an_opinion_compares_with_the_expert(
    candidate: int, reward: float, end: str, compared: Compared, by_reward: str
) -> None:
    rollout = changed(branch("a", 1, candidate, reward), end=end)
    found = opinion(Case(ExpertStep(expert("a"), 1), rollout), critique(rollout, ADVANCED))
    assert found == ("a", "advanced", by_reward, compared)


def test_a_better_candidate_is_more() -> None:
    rollout = branch("a", 1, 1, 1.0)
    case = Case(ExpertStep(changed(expert("a"), reward=0.5), 1), rollout)
    assert opinion(case, critique(rollout, "No idea.")) == ("a", "", "advanced", "more")


OPINIONS = Counter(
    {
        Opinion("a", "advanced", "advanced", "equal"): 3,
        Opinion("a", "advanced", "did not affect", "less"): 1,
        Opinion("b", "hindered", "did not affect", "less"): 2,
        Opinion("b", "hindered", "hindered", "less"): 2,
        Opinion("b", "", "hindered", "less"): 5,
        Opinion("b", "hindered", "advanced", "expert's"): 7,
    }
)


def test_agreement_is_over_verdicts_on_other_candidates() -> None:
    assert agreement(OPINIONS) == Estimate(62.5, 50, 75)
    assert by_chance(OPINIONS) == pytest.approx(100 * (4 * 3 + 4 * 2) / 64)
    merged = advanced_or_not(OPINIONS)
    assert agreement(merged) == Estimate(87.5, 75, 100)
    assert by_chance(merged) == pytest.approx(100 * (4 * 3 + 4 * 5) / 64)


def test_without_verdicts_there_is_no_agreement() -> None:
    silent = {Opinion("a", "", "hindered", "less"): 2, Opinion("a", "advanced", "advanced", "expert's"): 1}
    assert (agreement(silent), by_chance(silent)) == (None, None)
    sheet = critics_sheet({("tiny", "it1"): Critics(silent)})
    assert sheet is not None and [row.cells for row in sheet.rows[-2:]] == [
        ["none given", 0, 2, 0, 0, None],
        ["all", 1, 2, 0, 0, None],
    ]


def test_the_table_counts_verdicts_by_reward() -> None:
    sheet = critics_sheet({("tiny", "it1"): Critics(OPINIONS, outdated=4)})
    assert sheet is not None
    assert [row.cells[:5] for row in sheet.rows] == [
        ["advanced", 0, 1, 3, 0],
        ["hindered", 7, 4, 0, 0],
        ["did not affect", 0, 0, 0, 0],
        ["none given", 0, 5, 0, 0],
        ["all", 7, 10, 3, 0],
    ]
    assert sheet.notes[-3:] == [
        "it1: agreement 62.5 %; the same verdicts in random order 31.2 %.",
        "it1: agreement on whether the action advanced the task 87.5 %; the same verdicts in random order 50.0 %.",
        "it1: 4 critiques of other rollouts are left out.",
    ]


def test_critiques_are_read_with_their_rollouts(tmp_path: Path) -> None:
    run = make_complete(tmp_path)
    found = read_critics(run)
    assert found is not None and found.opinions == {
        Opinion("a", "hindered", "advanced", "expert's"): 2,
        Opinion("a", "hindered", "hindered", "less"): 2,
        Opinion("b", "hindered", "advanced", "expert's"): 2,
        Opinion("b", "hindered", "hindered", "less"): 2,
    }
    assert (found.outdated, found.given) == (0, False)


def test_critiques_of_other_rollouts_are_left_out(tmp_path: Path) -> None:
    run = make_complete(tmp_path)
    replace(run, "rollout", branch(*FLAGGED[0], 0), branch(*FLAGGED[0], 1, 0.25))
    found = read_critics(run)
    assert found is not None and (sum(found.opinions.values()), found.outdated) == (1, 1)


def test_verdicts_given_by_the_rewards_are_told(tmp_path: Path) -> None:
    run = make_complete(tmp_path)
    path = run.artifact("critique").note("json")
    path.parent.mkdir()
    identity = Identity(settings={"critique.verdict": "reward"}, inputs={}, scope={})
    run.artifact("critique").write_manifest(Manifest(stage="critique", identity=identity))
    found = read_critics(run)
    assert found is not None and found.given
    sheet = critics_sheet({("tiny", "it1"): found})
    assert sheet is not None and "so they always agree" in sheet.notes[-1]


def test_missing_and_damaged_artifacts(tmp_path: Path) -> None:
    run = make_complete(tmp_path)
    path = run.artifact("critique").path
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UsageError, match=r"critiques\.jsonl:8: not a valid record"):
        read_critics(run)
    path.unlink()
    assert read_critics(run) is None
    path.write_bytes(b"")
    assert read_critics(run) is None
    run.artifact("rollout").path.unlink()
    with pytest.raises(PrerequisiteError, match=r"rollouts\.jsonl is missing"):
        read_critics(run)


def test_without_critiques_there_is_no_table() -> None:
    assert critics_sheet({}) is None
    assert read_critics(Run("nowhere")) is None
