"""A made-up expert trajectory with a detour, and rollouts that branch from it."""

from sandcli.episodes import Episode
from sandcli.records import Rollout, Step, Task, Trajectory

DETOUR = ["go to kitchen", "look", "take lamp", "go to hall", "drop lamp"]
SHORT = ["go to kitchen", "take lamp", "go to hall", "drop lamp"]


def steps(*actions: str) -> list[Step]:
    return [Step(thought="", action=action, observation="", score=0.0) for action in actions]


def trajectory(reward: float = 0.5) -> Trajectory:
    task = Task(name="fetch", variation=0)
    return Trajectory(
        id="a", env="toy", task=task, instruction="", steps=steps(*DETOUR), reward=reward, success=False, source="gold"
    )


def rollout(reward: float, step: int, *actions: str, candidate: int = 1) -> Rollout:
    return Rollout(
        id="a",
        step=step,
        candidate=candidate,
        action=actions[0],
        thought="",
        expert=candidate == 0,
        count=1,
        steps=steps(*actions),
        reward=reward,
        success=reward == 1.0,
        end="done",
        tokens=0,
    )


def episode(draw: int, *actions: str, reward: float = 1.0, task: int = 0) -> Episode:
    return Episode(
        split="train",
        task=Task(name="fetch", variation=task),
        model="policy",
        instruction="",
        steps=steps(*actions),
        reward=reward,
        success=reward == 1.0,
        end="done",
        deliberated=0,
        tokens=1,
        draw=draw,
    )
