"""Evaluation with deliberation left free, suppressed and forced."""

from pathlib import Path
from typing import Any

import pytest

from sandcli.core.run import Run
from sandcli.core.stage import Options
from sandcli.errors import UsageError
from tests.helpers import POLICY, Rules, lines, make_run, perform, state, write_rules

RULES: Rules = [{"when": POLICY, "replies": [" look; (2) eat lamp.\nAction: look"]}]
"""A turn that is a deliberation only after the opening of one, and an action only after `Action:`."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_rules(tmp_path / "rules.json", RULES)
    return make_run(tmp_path / "run", env__step_limit=2, eval__models="base", eval__splits="seen")


def test_deliberation_can_be_suppressed_and_forced(run: Path) -> None:
    perform("eval", run, limit=1, eval__deliberation=["free", "never", "always"])
    free, always, never = lines(run / "eval.jsonl")  # in the order of their names
    assert [e["deliberation"] for e in (free, never, always)] == ["free", "never", "always"]
    assert [step["action"] for step in free["steps"]] == ["", ""]
    assert [step["action"] for step in never["steps"]] == ["look; (2) eat lamp"] * 2
    assert [step["action"] for step in always["steps"]] == ["look"] * 2
    assert [e["deliberated"] for e in (free, never, always)] == [0, 0, 2]
    assert always["steps"][0]["thought"] == "My options: (1) look; (2) eat lamp."


@pytest.mark.slow
def test_another_mode_adds_episodes_and_keeps_the_others(run: Path) -> None:
    perform("eval", run, limit=1)
    before = lines(run / "eval.jsonl")
    perform("eval", run, limit=1, eval__deliberation=["never"])
    assert [episode for episode in lines(run / "eval.jsonl") if episode["deliberation"] == "free"] == before
    assert len(lines(run / "eval.jsonl")) == 2


def test_unknown_mode_is_refused(run: Path) -> None:
    with pytest.raises(UsageError, match="'sometimes' is unknown"):
        perform("eval", run, limit=1, eval__deliberation=["sometimes"])


SAMPLED: dict[str, Any] = {"eval__n": 3, "eval__temperature": 0.7}


def actions(run: Path) -> list[list[str]]:
    return [[step["action"] for step in episode["steps"]] for episode in lines(run / "eval.jsonl")]


@pytest.fixture
def fickle(run: Path) -> Path:
    """Every answer depends on the seed."""
    replies = [f"Action: go to {room}" for room in ("kitchen", "garden", "hall", "roof", "moon")]
    write_rules(run.parent / "rules.json", [{"when": POLICY, "replies": replies}])
    return run


def test_sampled_episodes_are_numbered_and_differ(fickle: Path) -> None:
    made = perform("eval", fickle, limit=2, **SAMPLED)
    episodes = lines(fickle / "eval.jsonl")
    assert [(e["task"]["variation"], e["draw"]) for e in episodes] == [(v, d) for v in (6, 7) for d in range(3)]
    assert len({tuple(one) for one in actions(fickle)}) > 2
    rewards = [e["reward"] for e in episodes]
    assert made.manifest is not None
    assert made.manifest.figures["reward base seen"] == pytest.approx(sum(rewards) / 6, abs=1e-4)


def test_more_episodes_keep_those_that_there_are(fickle: Path) -> None:
    perform("eval", fickle, limit=2, **SAMPLED)
    before = lines(fickle / "eval.jsonl")
    assert state("eval", fickle, limit=2, eval__n=5, eval__temperature=0.7)[:3] == ("wider", 6, 4)
    perform("eval", fickle, limit=2, eval__n=5, eval__temperature=0.7)
    after = lines(fickle / "eval.jsonl")
    assert [episode for episode in after if episode["draw"] < 3] == before and len(after) == 10
    assert state("eval", fickle, limit=2, **SAMPLED).kind == "done"


@pytest.mark.slow
def test_seed_counts_only_if_turns_are_sampled(fickle: Path) -> None:
    perform("eval", fickle, limit=1)
    greedy = actions(fickle)
    assert state("eval", fickle, limit=1, run__seed=1).kind == "done"
    perform("eval", fickle, limit=1, options=Options(force=True), **SAMPLED)
    sampled = actions(fickle)
    assert state("eval", fickle, limit=1, run__seed=1, **SAMPLED).reasons == ["run.seed: was 0, is 1"]
    perform("eval", fickle, limit=1, options=Options(force=True), run__seed=1, **SAMPLED)
    assert actions(fickle) != sampled
    perform("eval", fickle, limit=1, options=Options(force=True), run__seed=1)
    assert actions(fickle) == greedy


def test_file_without_numbers_of_episodes_is_read_and_stays_done(run: Path) -> None:
    perform("eval", run, limit=2)
    path = run / "eval.jsonl"
    path.write_text(path.read_text().replace(',"draw":0', ""))
    perform("eval", run, limit=2, options=Options(accept_stale=True))
    assert state("eval", run, limit=2).kind == "done"
    assert [episode.draw for episode in Run(run).episodes()] == [0, 0]


def test_counterfactual_needs_greedy_episodes(fickle: Path) -> None:
    perform("eval", fickle, limit=1, eval__temperature=0.7)
    with pytest.raises(UsageError, match=r"greedy, and eval\.temperature is 0\.7"):
        perform("counterfactual", fickle, limit=1, eval__temperature=0.7)
