"""Executing branches: the environment after h_{t-1}, one candidate, and then the policy to the end of the episode."""

import asyncio
from functools import partial
from typing import NamedTuple

from sandcli.agent.conversation import STOP, conversation
from sandcli.agent.episode import Played, Taken, execute, play
from sandcli.agent.turns import normalise
from sandcli.core.context import Context
from sandcli.engines.base import Engine, Sampling
from sandcli.envs.base import World
from sandcli.envs.pool import Pool, Session
from sandcli.errors import MachineryError, UsageError
from sandcli.messages import Message
from sandcli.method.inconsistency import ExpertStep
from sandcli.records import End, Key, Rollout, Sample, Step, Trajectory
from sandcli.settings import Settings


class Branch(NamedTuple):
    """One candidate of one flagged step, which so many samples chose. Candidate 0 is the expert's action."""

    at: ExpertStep
    candidate: int
    action: str
    thought: str
    times_sampled: int

    @property
    def depends_on(self) -> tuple[object, ...]:
        """What its rollout depends on."""
        trajectory = self.at.trajectory
        expert = (trajectory.steps, trajectory.reward)  # its rollout is the rest of the trajectory
        known = expert if self.candidate == 0 else (self.at.prefix,)
        return trajectory.task, trajectory.instruction, *known, self.action, self.thought


def branches(at: ExpertStep, sample: Sample) -> list[Branch]:
    """The candidates of a step, each with the thought of the first sample that chose it."""
    thoughts: dict[str, str] = {}
    for draw in sample.samples:
        thoughts.setdefault(normalise(draw.action), draw.thought)
    if unknown := [c.action for c in sample.candidates[1:] if c.action not in thoughts]:
        raise UsageError(
            f"samples.jsonl: {sample.id}, step {sample.step}: no sample contains the candidate {unknown[0]!r}",
            "correct that line, then run sand sample again; or redo it with --force",
        )
    expert = Branch(at, 0, at.expert.action, at.expert.thought, sample.candidates[0].count)
    others = enumerate(sample.candidates[1:], 1)
    return [expert, *(Branch(at, n, c.action, thoughts[c.action], c.count) for n, c in others)]


def step_limit(world: World, trajectory: Trajectory) -> int:
    """Steps in the episodes that branch from a trajectory: the task's limit, or the expert's length if that is more.

    The expert keeps the reward of all its steps, so an alternative gets as many.
    """
    return max(world.step_limit(trajectory.task), len(trajectory.steps))


class BranchRunner:
    """Executes branches in a pool of environments, with the policy loaded in an engine."""

    def __init__(self, context: Context, settings: Settings, engine: Engine | None, pool: Pool) -> None:
        """Without an engine, rollouts end with the candidate's own step."""
        self._context = context
        self._settings = settings
        self._engine = engine
        self._pool = pool
        self._replays: dict[str, asyncio.Task[End]] = {}

    async def expert(self, branch: Branch) -> Rollout:
        """The rest of the expert trajectory, which is replayed once to verify it."""
        trajectory = branch.at.trajectory
        if trajectory.id not in self._replays:
            self._replays[trajectory.id] = asyncio.create_task(self._verify(trajectory))
        try:
            end = await self._replays[trajectory.id]
        except MachineryError as error:
            if error.reason != "replay_diverged":
                self._replays.pop(trajectory.id, None)  # another attempt may succeed
            raise
        rest = trajectory.steps[branch.at.t :]
        steps = rest[: self._settings.rollout.max_steps or None]
        if len(steps) == len(rest):
            return _record(branch, steps, trajectory.reward, end, 0)
        return _record(branch, steps, max(step.score for step in [*branch.at.prefix, *steps]), "max_steps", 0)

    async def _verify(self, trajectory: Trajectory) -> End:
        session = await self._pool.restore(trajectory.task, trajectory.steps)
        await session.close()
        if abs(session.best - trajectory.reward) > 1e-6:
            raise MachineryError("replay_diverged", f"reward {trajectory.reward} recorded, {session.best} on replay")
        return "done" if session.outcomes[-1].done else "max_steps"

    async def policy(self, branch: Branch, key: Key) -> Rollout:
        """Execute the candidate after the expert's prefix and let the policy act from there."""
        session, first = await self.begin(branch)
        try:
            rest = Played([], "done" if first.done else "max_steps", 0)
            if not first.done and self._engine is not None:
                history = self.history(branch, first.step)
                sampling, limit = partial(self.sampling, key), self.limit(branch.at)
                rest = await play(self._engine, session, history, sampling, limit, self._settings.agent)
            return _record(branch, [first.step, *rest.steps], session.best, rest.end, rest.tokens)
        finally:
            await session.close()

    async def begin(self, branch: Branch) -> tuple[Session, Taken]:
        """The environment after the candidate, and the candidate's own step."""
        session = await self._pool.restore(branch.at.trajectory.task, branch.at.prefix)
        try:
            return session, await execute(session, branch.thought, branch.action)
        except BaseException:
            await session.close()
            raise

    def history(self, branch: Branch, first: Step) -> list[Message]:
        """The conversation up to the policy's first own turn."""
        steps = [*branch.at.prefix, first]
        return conversation(self._context.preamble, branch.at.trajectory.instruction, steps)

    def sampling(self, key: Key, turn: int) -> Sampling:
        """How the policy samples one turn of a unit's rollout."""
        seed = self._context.seed("rollout", *key, turn)
        return Sampling(1, self._settings.rollout.temperature, self._settings.agent.max_tokens, seed, STOP)

    def limit(self, at: ExpertStep) -> int:
        """How many steps are left of an episode, or of its rollout, after the candidate."""
        left, most = step_limit(self._context.world, at.trajectory) - at.t, self._settings.rollout.max_steps
        return (min(left, most) if most else left) - 1


def _record(branch: Branch, steps: list[Step], reward: float, end: End, tokens: int) -> Rollout:
    return Rollout(
        id=branch.at.trajectory.id,
        step=branch.at.t,
        candidate=branch.candidate,
        action=branch.action,
        thought=branch.thought,
        expert=branch.candidate == 0,
        count=branch.times_sampled,
        steps=steps,
        reward=reward,
        success=reward >= 1.0,
        end=end,
        tokens=tokens,
    )
