"""Evaluation with deliberation left free, suppressed and forced."""

from pathlib import Path

import pytest

from sandcli.errors import UsageError
from tests.helpers import POLICY, Rules, lines, make_run, perform, write_rules

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


def test_another_mode_adds_episodes_and_keeps_the_others(run: Path) -> None:
    perform("eval", run, limit=1)
    before = lines(run / "eval.jsonl")
    perform("eval", run, limit=1, eval__deliberation=["never"])
    assert [episode for episode in lines(run / "eval.jsonl") if episode["deliberation"] == "free"] == before
    assert len(lines(run / "eval.jsonl")) == 2


def test_unknown_mode_is_refused(run: Path) -> None:
    with pytest.raises(UsageError, match="'sometimes' is unknown"):
        perform("eval", run, limit=1, eval__deliberation=["sometimes"])
