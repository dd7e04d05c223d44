"""The pairs stage: the expert against episodes, or against rollouts."""

from pathlib import Path

import pytest

from sandcli.core.run import Run
from sandcli.errors import Exit, PrerequisiteError
from tests.core.runs import rewrite
from tests.helpers import accept_edit, lines, make_run, perform, state, write_rules
from tests.stages.test_explore import RULES


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_rules(tmp_path / "rules.json", RULES)
    root = make_run(tmp_path / "run", env__tasks="carry", method__name="eto", explore__temperature=1.0)
    perform("collect", root, limit=3)
    perform("explore", root, explore__n=4)
    return root


def test_every_episode_that_earned_less_is_rejected_for_the_expert(run: Path) -> None:
    done = perform("pairs", run)
    assert done.exit is Exit.DONE and done.manifest is not None
    failed = [episode for episode in Run(run).explored() if episode.reward < 1]
    pairs = list(Run(run).pairs())
    assert 0 < len(pairs) == len(failed) < 12
    assert done.manifest.counts["expert_chosen"] == len(pairs) and "explored_chosen" not in done.manifest.counts
    assert sum(why == "both earned the same" for why in done.manifest.left_out.values()) == 12 - len(pairs)
    assert {pair.chosen_from for pair in pairs} == {"expert"}
    assert "nothing to do" in perform("pairs", run).message


def test_more_episodes_add_pairs_and_keep_those_that_there_are(run: Path) -> None:
    perform("pairs", run)
    before = lines(run / "pairs.jsonl")
    perform("explore", run, explore__n=6)
    perform("pairs", run)
    after = lines(run / "pairs.jsonl")
    assert len(after) > len(before) and all(line in after for line in before)


def test_changed_expert_makes_its_pairs_stale(run: Path) -> None:
    perform("pairs", run)
    rewrite(run / "expert.jsonl", 0, reward=0.5)
    accept_edit("collect", run, limit=3)
    assert state("pairs", run).kind == "stale"


def test_rollouts_are_compared_from_their_step_on(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", pairs__source="rollouts", method__name="eto", sample__n=4)
    with pytest.raises(PrerequisiteError, match=r"expert\.jsonl is missing"):
        perform("pairs", root)
    perform("collect", root, limit=3)
    with pytest.raises(PrerequisiteError, match=r"rollouts\.jsonl is missing"):
        perform("pairs", root)
    perform("sample", root)
    perform("rollout", root)
    perform("pairs", root)
    worse = [rollout for rollout in Run(root).rollouts() if not rollout.expert and rollout.reward < 1]
    pairs = list(Run(root).pairs())
    assert pairs and [pair.key for pair in pairs] == [rollout.key for rollout in worse]
    assert all(len(pair.prompt) == 1 + 2 * pair.place[0] for pair in pairs)
