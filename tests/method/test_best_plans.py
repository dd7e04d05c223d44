"""The data of a planner's SFT: of each task, the plan that helped the policy most."""

from msgspec.structs import replace

from sandcli.agent.conversation import training_messages
from sandcli.episodes import Episode, GivenPlan
from sandcli.messages import Message
from sandcli.method.best_plans import best_plans
from sandcli.records import Task, Trajectory
from tests.method.made_up import episode, trajectory

PREAMBLE = [Message("system", "You plan.")]


def played(plan: int, *rewards: float, task: int = 0) -> list[Episode]:
    given = GivenPlan(draw=plan, text=f"Plan {plan}.", tokens=2)
    return [replace(episode(n, "go", reward=reward, task=task), plan=given) for n, reward in enumerate(rewards)]


def of_task(number: int) -> Trajectory:
    return replace(trajectory(), id=str(number), task=Task(name="fetch", variation=number), instruction=f"Do {number}.")


def ask(instruction: str) -> list[Message]:
    return [*PREAMBLE, Message("user", f"Task: {instruction}")]


def test_plan_with_the_highest_mean_reward_is_learned_as_the_planner_is_asked() -> None:
    episodes = [
        *played(0, 1.0, 0.0),
        *played(1, 0.75, 0.75),
        *played(2, 1.0, 0.5),  # equal to the one before
        *played(0, 0.0, 0.0, task=1),  # nothing helped
        *played(0, 1.0, 1.0, task=2),
    ]
    first, last = best_plans(map(of_task, range(4)), episodes, ask)  # the last task was not played
    assert (first.id, first.reward, first.success, first.source) == ("0", 0.75, False, "plan, draw 1")
    assert (last.id, last.reward, last.success) == ("2", 1.0, True)
    assert training_messages(PREAMBLE, first) == [*ask("Do 0."), Message("assistant", "Plan 1.")]
