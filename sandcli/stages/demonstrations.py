"""Making expert trajectories: an expert's path or a recorded one, executed in the environment, with thoughts."""

from collections.abc import Callable, Sequence
from itertools import zip_longest

from msgspec.structs import replace

from sandcli.agent.turns import Turn, has_action_line, normalise
from sandcli.core.context import Context
from sandcli.core.stage import Skipped
from sandcli.engines.base import Completion, Engine, Sampling
from sandcli.envs.base import Outcome
from sandcli.envs.pool import Pool, Restored
from sandcli.errors import ContextOverflow
from sandcli.importers.conversations import RecordedTrajectory
from sandcli.importers.replays import rejected, strictly_rejected
from sandcli.interrupts import never
from sandcli.method.texts import first_sentences, format_steps, repeats
from sandcli.records import Step, Task, Trajectory


class Demonstrator:
    """Executes experts' paths in a pool; `source` is what their trajectories name as their source."""

    def __init__(self, context: Context, pool: Pool, source: str) -> None:
        self._context = context
        self._pool = pool
        self._source = source

    async def expert(self, task: Task, kind: str, stop: Callable[[], bool] = never) -> Trajectory | Skipped:
        """The path of one of the world's experts; skipped if it does not reach the full score."""
        found = await self._pool.expert(task, kind, self._context.seed("expert", str(task)), stop)
        actions = [normalise(action) for action in found]
        if not actions:
            return Skipped("the expert gave up")
        replayed = await self._pool.replay(task, actions)
        if replayed.best < 1.0:
            return Skipped(f"the expert's own path does not reach the full score: {replayed.best:.2f} of 1.00")
        return self._trajectory(str(task), task, replayed, [Turn("", action) for action in actions])

    async def replay(self, task: Task, row: RecordedTrajectory, rule: str) -> Trajectory | Skipped:
        """A recorded row under the rule `collect.rows`; skipped if the rule does not accept it."""
        world = self._context.world
        replayed = await self._pool.replay(task, [turn.action for turn in row.turns])
        if rule == "strict":
            why = strictly_rejected(world.observations_match, row, replayed)
        else:
            why = rejected(world.name, row, replayed)
        if why:
            return Skipped(why)
        made = self._trajectory(row.id, task, replayed, row.turns)
        return _as_recorded(made, row) if rule == "as-recorded" else made

    def _trajectory(self, name: str, task: Task, replayed: Restored, turns: Sequence[Turn]) -> Trajectory:
        """The record; its reward is the best score of the episode, as the literature counts."""
        return Trajectory(
            id=name,
            env=self._context.world.name,
            task=task,
            instruction=replayed.reset.instruction,
            steps=_steps(turns, replayed.outcomes),
            reward=replayed.best,
            success=replayed.best >= 1.0,
            source=self._source,
        )

    async def with_thoughts(self, engine: Engine, trajectory: Trajectory, max_tokens: int) -> Trajectory:
        """The same with the base model's reason before every action; a step stays without if it writes none."""
        steps: list[Step] = []
        for step in trajectory.steps:
            prompt = self._context.prompts.fill(
                "think",
                instruction=trajectory.instruction,
                history=format_steps(steps, self._context.settings.prompts.history_tokens),
                action=step.action,
            )
            sampling = Sampling(max_tokens=max_tokens, stop=("\n",))
            try:
                (completion,) = await engine.generate(prompt, sampling)
            except ContextOverflow:
                steps.append(step)
            else:
                steps.append(replace(step, thought=_thought(completion)))
        return replace(trajectory, steps=steps)


def _as_recorded(made: Trajectory, row: RecordedTrajectory) -> Trajectory:
    """The same trajectory with the texts of the recording."""
    texts = zip_longest(made.steps, row.observations[: len(made.steps)])
    steps = [step if text is None else replace(step, observation=text) for step, text in texts]
    return replace(made, instruction=row.instruction, steps=steps)


def _thought(completion: Completion) -> str:
    """The first sentence; empty if the model repeated itself, wrote an action, or was cut off."""
    text = first_sentences(completion.text.removeprefix("Thought:"), 1)
    spoilt = completion.finish == "length" or has_action_line(text) or repeats(text)
    return "" if spoilt else text


def _steps(turns: Sequence[Turn], outcomes: Sequence[Outcome]) -> list[Step]:
    """Turns and what they led to; turns after the end of the episode are dropped."""
    return [
        Step(thought=turn.thought, action=turn.action, observation=outcome.observation, score=outcome.score)
        for turn, outcome in zip(turns, outcomes, strict=False)
    ]
