"""The rollout stage: how long an alternative may be, and what beats the expert."""

from pathlib import Path

import msgspec

from sandcli.core.run import Run
from sandcli.core.stage import Options
from sandcli.records import Key, Rollout
from sandcli.stages.rollout import RolloutStage
from tests.helpers import POLICY, context, lines, make_run, perform, rules, write_rules
from tests.method.made_up import rollout


def test_alternative_gets_as_many_steps_as_an_expert_beyond_the_limit(tmp_path: Path) -> None:
    idle = [rule for rule in rules() if rule["when"] == POLICY]
    idle[0]["replies"] = ["Action: look"]
    write_rules(tmp_path / "rules.json", idle)
    root = make_run(tmp_path / "run", env__step_limit=2)
    for stage in ("collect", "sample", "rollout"):
        perform(stage, root, limit=1)
    (expert,) = lines(root / "expert.jsonl")
    length = len(expert["steps"])
    assert length > 2
    for record in lines(root / "rollouts.jsonl"):
        assert record["step"] + len(record["steps"]) == length


def test_only_a_known_expert_is_beaten(tmp_path: Path) -> None:
    stage = RolloutStage(context(make_run(tmp_path / "run")))
    expert = msgspec.structs.replace(rollout(0.25, 1, "look", candidate=0), count=1)
    records: list[Rollout] = [expert, rollout(0.5, 1, "take lamp"), rollout(0.5, 2, "take lamp")]
    assert stage.metrics(records).counts["better_than_expert"] == 1


def test_rollout_ends_after_so_many_steps(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    for stage in ("collect", "sample"):
        perform(stage, root, limit=2)
    assert RolloutStage(context(root, rollout__max_steps=1)).models() == {}  # nobody acts
    made: dict[int, dict[Key, Rollout]] = {}
    for most in (0, 2, 1):
        perform("rollout", root, options=Options(force=True), rollout__max_steps=most)
        made[most] = {one.key: one for one in Run(root).rollouts()}
        assert made[most].keys() == made[0].keys()
        for key, one in made[most].items():
            whole = made[0][key]
            assert one.steps == (whole.steps[:most] if most else whole.steps)
            if len(one.steps) < len(whole.steps):
                before = Run(root).trajectories().get(key[:1]).steps[: one.step]
                assert one.reward == max(step.score for step in [*before, *one.steps])
                assert (one.end, one.success) == ("max_steps", False)
            else:
                assert (one.reward, one.end) == (whole.reward, whole.end)
    assert any(len(one.steps) > 2 for one in made[0].values())
    assert sum(one.tokens for one in made[1].values()) == 0
