"""D_delib: deliberations take the place of the expert's thoughts."""

from sandcli.method.d_delib import deliberated, undeliberated
from sandcli.records import Thought
from tests.method.made_up import DETOUR, SHORT, rollout, trajectory


def test_thought_is_dropped_if_a_switch_changed_the_action_at_its_step() -> None:
    replaced = rollout(1.0, 1, "take lamp", "go to hall", "drop lamp")
    thoughts = [
        Thought(id="a", step=t, thought=f"So I will {action}.", attempts=1, rejected=[], tokens=1)
        for t, action in enumerate(DETOUR)
    ]
    after = deliberated(trajectory(), replaced, thoughts)
    assert [step.action for step in after.steps] == SHORT
    assert [step.deliberated for step in after.steps] == [True, False, False, False]


def test_control_keeps_the_original_thoughts_and_the_switches() -> None:
    replaced = rollout(1.0, 1, "take lamp", "go to hall", "drop lamp")
    assert list(undeliberated([trajectory()], {})) == [trajectory()]
    (after,) = undeliberated([trajectory()], {"a": replaced})
    assert ([step.action for step in after.steps], after.reward) == (SHORT, 1.0)
    assert not any(step.deliberated for step in after.steps)
