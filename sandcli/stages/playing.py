"""Playing one task from its beginning: what `sand eval` and `sand explore` share."""

from collections.abc import Callable
from typing import Any, NamedTuple

from sandcli.agent.conversation import conversation, with_plan
from sandcli.agent.episode import play
from sandcli.agent.form import TURN_OPENINGS
from sandcli.core.stage import Stage
from sandcli.engines.base import Engine, Sampling
from sandcli.episodes import Deliberation, Episode, GivenPlan, agent_name, episode_key
from sandcli.records import Key, Task
from sandcli.stages.informing import Informing
from sandcli.stages.inputs import preamble_too_long


class Trial(NamedTuple):
    """One episode to play: a task of a split, the agent and its plan, and which of its episodes on the task it is."""

    split: str
    task: Task
    model: str
    deliberation: Deliberation = "free"
    draw: int = 0
    plan: GivenPlan | None = None

    @property
    def key(self) -> Key:
        """The key of the episode's record."""
        return episode_key(self.split, self.task, agent_name(self.model, self.deliberation), self.draw, self.plan)


async def play_trial(
    stage: Stage[Any, Any],
    engine: Engine,
    trial: Trial,
    sampling: Callable[[int], Sampling],
    informing: Informing | None = None,
) -> Episode:
    """Play an episode in the stage's environments; `sampling(t)` gives the sampling of turn t."""
    settings, world = stage.settings.agent, stage.context.world
    session = await stage.pool.restore(trial.task)
    instruction = session.reset.instruction
    try:
        task = with_plan(instruction, trial.plan)
        history = conversation(stage.context.preamble, task, [])
        limit, opening = world.step_limit(trial.task), TURN_OPENINGS[trial.deliberation]
        speaker = informing.speaker(engine, instruction, trial.plan, len(history)) if informing else engine
        played = await play(speaker, session, history, sampling, limit, settings, opening)
    finally:
        await session.close()
    if played.end == "context" and not played.steps:
        raise preamble_too_long(f"{trial.task}, for the model {trial.model},")
    return Episode(
        split=trial.split,
        task=trial.task,
        model=trial.model,
        instruction=instruction,
        steps=played.steps,
        reward=session.best,
        success=session.best >= 1.0,
        end=played.end,
        deliberated=sum(step.deliberated for step in played.steps),
        tokens=played.tokens,
        deliberation=trial.deliberation,
        draw=trial.draw,
        plan=trial.plan,
    )
