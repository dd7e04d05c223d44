"""`sand rollout`: what would each candidate have led to? (Method, step 3.)

For every candidate of a flagged step the environment is put into the state after h_{t-1}, the candidate is
executed, and pi_k goes on until the episode ends. The expert's action needs no rollout of its own: it is the
rest of the expert trajectory, which is verified by replay.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

import msgspec

from sandcli.agent.episode import Limits, Played, play
from sandcli.agent.turns import conversation, is_deliberation, normalise
from sandcli.core.context import Context, digest
from sandcli.core.run import Identity
from sandcli.core.stage import Do, Figures, Job, LeftOut, Unit
from sandcli.engines.base import Engine, Model, Sampling
from sandcli.envs.pool import Pool, Session
from sandcli.errors import MachineryError
from sandcli.messages import Message
from sandcli.models import fingerprint
from sandcli.prompts import digest as text_digest
from sandcli.records import End, Key, Rollout, Sample, Step, Trajectory
from sandcli.stages.sample import STOP, Place, flagged


class Branch(NamedTuple):
    """One candidate of one flagged step and how many draws chose it; candidate 0 is the expert's action."""

    place: Place
    candidate: int
    action: str
    thought: str
    chosen: int


class RolloutJob(Job[Branch, Rollout]):
    """Units are (trajectory, step, candidate)."""

    stage = "rollout"
    record = Rollout

    def identity(self) -> Identity:
        """The policy, how it acts, the world, and the candidates."""
        settings = self.context.settings
        return Identity(
            settings={
                "policy": fingerprint(self.model().folder),
                "rollout.temperature": str(settings.rollout.temperature),
                "agent.max_tokens": str(settings.agent.max_tokens),
                "agent.max_invalid": str(settings.agent.max_invalid),
                "env.step_limit": str(settings.env.step_limit),
                "run.seed": str(settings.run.seed),
                "prompt.instruction": text_digest(self.context.world.system),
                **self.context.environment(),
                **self.context.context(),
            },
            inputs=self.context.inputs(self.run.needs("collect"), self.run.needs("sample")),
            scope={"limit": str(self.context.limit)},
        )

    def model(self) -> Model:
        """pi_k."""
        return self.context.policy()

    def plan(self) -> Iterator[Unit[Branch]]:
        """Every candidate of every flagged step."""
        for sample, place in flagged(self.run):
            for branch in branches(place, sample):
                yield Unit((sample.id, sample.step, branch.candidate), _digest(branch), branch)

    def satisfied(self, unit: Unit[Branch], record: Rollout) -> bool:
        """More samples may have chosen the same action since."""
        return record.count == unit.payload.chosen

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Do[Branch, Rollout]]:
        """Load the policy and start the environments."""
        async with self.context.engine(self.model()) as engine, self.context.pool() as pool:
            roller = Roller(self.context, engine, pool)

            async def do(unit: Unit[Branch], earlier: Rollout | None) -> Rollout | LeftOut:
                branch = unit.payload
                if earlier is not None:
                    return msgspec.structs.replace(earlier, count=branch.chosen)
                return await (roller.expert(branch) if branch.candidate == 0 else roller.policy(branch, unit.key))

            yield do

    def figures(self, records: Iterable[Rollout]) -> Figures:
        """Rollouts and how they compare with the expert's."""
        figures = Figures(counts={"flagged": 0, "better_than_expert": 0})
        rewards: list[float] = []
        expert = 0.0
        for record in records:
            figures.tokens += record.tokens
            if record.expert:
                expert = record.reward
                figures.counts["flagged"] += 1
            else:
                rewards.append(record.reward)
                figures.counts["better_than_expert"] += record.reward > expert
        figures.values["mean_reward"] = round(sum(rewards) / len(rewards), 4) if rewards else 0.0
        return figures


def branches(place: Place, sample: Sample) -> list[Branch]:
    """The candidates of a step, each with the thought of the first draw that chose it."""
    thoughts: dict[str, str] = {}
    for draw in sample.samples:
        thoughts.setdefault(normalise(draw.action), draw.thought)
    expert = Branch(place, 0, place.expert.action, place.expert.thought, sample.candidates[0].count)
    return [
        expert,
        *(
            Branch(place, number, candidate.action, thoughts[candidate.action], candidate.count)
            for number, candidate in enumerate(sample.candidates[1:], 1)
        ),
    ]


def _digest(branch: Branch) -> str:
    trajectory = branch.place.trajectory
    steps = trajectory.steps if branch.candidate == 0 else branch.place.prefix
    return digest(trajectory.task, trajectory.instruction, steps, branch.action, branch.thought)


def sampling(context: Context, key: Key, turn: int) -> Sampling:
    """How pi_k draws a turn of the rollout of a unit."""
    seed = context.seed("rollout", *key, turn)
    return Sampling(1, context.settings.rollout.temperature, context.settings.agent.max_tokens, seed, STOP)


def limits(context: Context, place: Place) -> Limits:
    """What is left of an episode after the candidate."""
    steps = context.world.step_limit(place.trajectory.task) - place.step - 1
    return Limits(steps, context.settings.agent.max_invalid)


class Roller:
    """Executes branches."""

    def __init__(self, context: Context, engine: Engine, pool: Pool) -> None:
        self._context = context
        self._engine = engine
        self._pool = pool
        self._replays: dict[str, asyncio.Task[End]] = {}

    async def expert(self, branch: Branch) -> Rollout:
        """The rest of the expert trajectory, which is replayed once to see that it holds."""
        trajectory = branch.place.trajectory
        if trajectory.id not in self._replays:
            self._replays[trajectory.id] = asyncio.create_task(self._verify(trajectory))
        try:
            end = await self._replays[trajectory.id]
        except MachineryError as error:
            if error.reason != "replay_diverged":
                self._replays.pop(trajectory.id, None)  # another try may go better
            raise
        return _record(branch, trajectory.steps[branch.place.step :], trajectory.reward, end, 0)

    async def _verify(self, trajectory: Trajectory) -> End:
        session = await self._pool.restore(trajectory.task, trajectory.steps)
        await session.close()
        if abs(session.best - trajectory.reward) > 1e-6:
            raise MachineryError("replay_diverged", f"reward {trajectory.reward} recorded, {session.best} on replay")
        return "done" if session.outcomes[-1].done else "max_steps"

    async def policy(self, branch: Branch, key: Key) -> Rollout:
        """Execute the candidate after the expert's prefix and let the policy go on."""
        session, first = await self.begun(branch)
        try:
            rest = Played([], "done", 0)
            if not session.outcomes[-1].done:
                history = self.history(branch, first)
                draw = partial(sampling, self._context, key)
                rest = await play(self._engine, session, history, draw, limits(self._context, branch.place))
            return _record(branch, [first, *rest.steps], session.best, rest.end, rest.tokens)
        finally:
            await session.close()

    async def begun(self, branch: Branch) -> tuple[Session, Step]:
        """The environment after the candidate, and the candidate's own step."""
        session = await self._pool.restore(branch.place.trajectory.task, branch.place.prefix)
        try:
            outcome = await session.step(branch.action)
        except BaseException:
            await session.close()
            raise
        return session, Step(
            thought=branch.thought,
            action=branch.action,
            observation=outcome.observation,
            score=outcome.score,
            deliberated=is_deliberation(branch.thought),
        )

    def history(self, branch: Branch, first: Step) -> list[Message]:
        """The conversation up to the policy's first own turn."""
        trajectory = branch.place.trajectory
        return conversation(self._context.world.system, trajectory.instruction, [*branch.place.prefix, first])


def _record(branch: Branch, steps: list[Step], reward: float, end: End, tokens: int) -> Rollout:
    return Rollout(
        id=branch.place.trajectory.id,
        step=branch.place.step,
        candidate=branch.candidate,
        action=branch.action,
        thought=branch.thought,
        expert=branch.candidate == 0,
        count=branch.chosen,
        steps=steps,
        reward=reward,
        success=reward >= 1.0,
        end=end,
        tokens=tokens,
    )
