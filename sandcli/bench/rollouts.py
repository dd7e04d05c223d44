"""`sand bench rollout`: the same rollouts made in four ways, on any engine, in one run.

The work is that of `sand rollout`: branches off experts' paths, each played to its end.

- sequential, as ETO does it: one episode at a time, the environment reset and replayed for every branch, every prompt
  computed from its beginning; on a part of the branches, for it is slow;
- lockstep: a batch of episodes takes every turn together, and ends when the longest does;
- ours, as `sand rollout` does it;
- engine: the requests of ours, at hand from the start, with no environment.

Every way begins with a freshly opened engine (servers alone keep what they know from way to way, which flatters the
later ones against the first). What counts is generated tokens a second: the texts differ a little, as
a model's floats depend on what shares its batch.
"""

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sandcli.agent.conversation import turn_messages
from sandcli.agent.episode import take, too_many
from sandcli.config import Scalar, resolve
from sandcli.core.context import Context
from sandcli.core.run import Run
from sandcli.core.stage import Skipped
from sandcli.engines.base import Completion, Engine, Model, Sampling, Usage
from sandcli.envs.base import World
from sandcli.envs.pool import Pool, Session
from sandcli.messages import Message
from sandcli.method.inconsistency import ExpertStep
from sandcli.progress import notice
from sandcli.records import Key, Task
from sandcli.settings import AgentSettings
from sandcli.stages.branches import Branch, BranchRunner
from sandcli.stages.demonstrations import Demonstrator

_TOKENS = 64
"""The longest turn where no run says otherwise: a base model that was not tuned goes on and on."""

_SEQUENTIAL = 4
"""One branch in so many is done the sequential way."""


class Way(NamedTuple):
    """How one way went; `seconds` of wall time."""

    name: str
    seconds: float
    usage: Usage

    @property
    def rate(self) -> float:
        """Generated tokens a second."""
        return self.usage.generated / self.seconds

    @property
    def hit_rate(self) -> float | None:
        """The share of prompt tokens that came out of the engine's cache; None if the engine does not say."""
        told = self.usage.prompt - self.usage.untold
        return self.usage.cached / told if told else None


class Ratios(NamedTuple):
    """Ours over the others, in tokens a second, and the prefix-cache hit rate of ours, None if it is unknown."""

    vs_sequential: float
    vs_lockstep: float
    vs_engine: float
    prefix_hit_rate: float | None


@contextmanager
def chosen(run: Path | None, engine: str | None) -> Iterator[tuple[Context, Model]]:
    """What is measured: a run's policy in its world; without a run, the base model on short ScienceWorld tasks."""
    flags: dict[str, Scalar | None] = {"engine.kind": engine}
    if run is not None:
        context = Context(Run(run), resolve(run, os.environ, flags).settings)
        yield context, context.policy()
        return
    with tempfile.TemporaryDirectory() as folder:
        flags |= {"env.tasks": ["find-non-living-thing", "lifespan-longest-lived"], "agent.max_tokens": _TOKENS}
        context = Context(Run(Path(folder)), resolve(Path(folder), os.environ, flags).settings)
        yield context, context.base()


def bench_rollouts(context: Context, model: Model, episodes: int) -> Iterator[Way]:
    """Measure the four ways, each given as soon as it is done."""
    branches = asyncio.run(_branches(context, episodes))
    said = _Recording()
    yield asyncio.run(_measured("sequential", context, model, branches[::_SEQUENTIAL], _sequential, reuse=False))
    yield asyncio.run(_measured("lockstep", context, model, branches, _lockstep))
    yield asyncio.run(_measured("ours", context, model, branches, said.ours))
    yield asyncio.run(_measured("engine", context, model, branches, said.engine))


def ratios(ways: Sequence[Way]) -> Ratios:
    """What the four ways amount to."""
    sequential, lockstep, ours, engine = ways
    return Ratios(
        vs_sequential=round(ours.rate / sequential.rate, 2),
        vs_lockstep=round(ours.rate / lockstep.rate, 2),
        vs_engine=round(ours.rate / engine.rate, 2),
        prefix_hit_rate=None if ours.hit_rate is None else round(ours.hit_rate, 3),
    )


Do = Callable[[Context, Engine, Pool, Sequence[Branch]], Awaitable[None]]


async def _measured(
    name: str, context: Context, model: Model, branches: Sequence[Branch], do: Do, reuse: bool = True
) -> Way:
    """One way, from the first request to the last; opening engine and environments does not count."""
    notice(f"{name}: {len(branches)} branches")
    context = context if reuse else _without_reuse(context)
    async with context.engine(model) as engine, context.pool() as pool:
        for task in dict.fromkeys(branch.at.trajectory.task for branch in branches):
            await (await pool.restore(task)).close()  # the simulator's first steps are not yet compiled
        started = time.monotonic()
        await do(context, engine, pool, branches)
        return Way(name, time.monotonic() - started, engine.usage())


def _without_reuse(context: Context) -> Context:
    """Environments that cannot fork, and an engine that remembers no prompt."""
    other = context.without_reuse()
    other.world_builder = partial(unforked, context.world_builder)
    return other


async def _branches(context: Context, count: int) -> list[Branch]:
    """Two other actions of the path at every state of experts' paths, path after path."""
    branches: list[Branch] = []
    draw = random.Random(0)
    async with context.pool() as pool:
        demonstrator = Demonstrator(context, pool, "bench")
        for task in context.world.tasks("train"):
            trajectory = await demonstrator.expert(task, context.world.experts[0])
            if isinstance(trajectory, Skipped):
                continue
            for step in range(len(trajectory.steps)):
                for action in draw.sample(trajectory.actions, min(2, len(trajectory.steps))):
                    branches.append(Branch(ExpertStep(trajectory, step), len(branches), action, "", 1))
            if len(branches) >= count:
                break
    return branches[:count]


def _key(branch: Branch) -> Key:
    return (branch.at.trajectory.id, branch.at.t, branch.candidate)


async def _sequential(context: Context, engine: Engine, pool: Pool, branches: Sequence[Branch]) -> None:
    roller = BranchRunner(context, context.settings, engine, pool)
    for branch in branches:
        await roller.policy(branch, _key(branch))


@dataclass
class _Player:
    """One episode in a batch that goes in lockstep."""

    branch: Branch
    session: Session
    messages: list[Message]
    limit: int
    settings: AgentSettings
    taken: int = 0
    invalid: int = 0

    @property
    def plays(self) -> bool:
        over = self.session.outcomes[-1].done or self.taken >= self.limit
        return not over and not too_many(self.invalid, self.settings)

    async def take(self, text: str) -> None:
        taken = await take(self.session, text, self.settings)
        self.messages += turn_messages(taken.step)
        self.taken, self.invalid = self.taken + 1, taken.invalid_in_a_row(self.invalid, self.settings)


async def _lockstep(context: Context, engine: Engine, pool: Pool, branches: Sequence[Branch]) -> None:
    roller = BranchRunner(context, context.settings, engine, pool)

    async def player(branch: Branch) -> _Player:
        session, first = await roller.begin(branch)
        history = roller.history(branch, first.step)
        return _Player(branch, session, history, roller.limit(branch.at), context.settings.agent)

    for start in range(0, len(branches), engine.capacity):
        batch = await asyncio.gather(*map(player, branches[start : start + engine.capacity]))
        while playing := [player for player in batch if player.plays]:
            asked = ((p.messages, roller.sampling(_key(p.branch), p.taken)) for p in playing)
            answers = await asyncio.gather(*(engine.generate(*request) for request in asked))
            await asyncio.gather(*(p.take(answer.text) for p, (answer,) in zip(playing, answers, strict=True)))
        await asyncio.gather(*(player.session.close() for player in batch))


async def _in_lanes(width: int, calls: Iterator[Awaitable[Any]]) -> None:
    async def lane() -> None:
        for call in calls:
            await call

    await asyncio.gather(*(lane() for _ in range(width)))


class _Recording:
    """Our way, with every request noted, and the same requests again with no environment."""

    def __init__(self) -> None:
        self._requests: list[tuple[list[Message], Sampling]] = []

    async def ours(self, context: Context, engine: Engine, pool: Pool, branches: Sequence[Branch]) -> None:
        roller = BranchRunner(context, context.settings, _Noted(engine, self._requests), pool)
        calls = (roller.policy(branch, _key(branch)) for branch in branches)
        await _in_lanes(context.in_flight(1), calls)

    async def engine(self, context: Context, engine: Engine, pool: Pool, branches: Sequence[Branch]) -> None:
        calls = (engine.generate(messages, drawn) for messages, drawn in self._requests)
        await _in_lanes(2 * context.in_flight(1), calls)


class _Noted:
    """An engine, with every request noted."""

    def __init__(self, engine: Engine, requests: list[tuple[list[Message], Sampling]]) -> None:
        self._engine, self._requests = engine, requests
        self.capacity, self.cache_tokens = engine.capacity, engine.cache_tokens
        self.for_model, self.usage, self.close = engine.for_model, engine.usage, engine.close

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        self._requests.append((list(messages), sampling))
        return await self._engine.generate(messages, sampling)


class Unforked:
    """A world whose states can only be had by replay, as in the stock environments."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def start(self) -> "Unforked":
        """The simulator of such a world."""
        return Unforked(self._inner.start())

    def open(self, task: Task) -> "Unforked":
        """An episode in it."""
        return Unforked(self._inner.open(task))

    def fork(self) -> None:
        """There is none."""


def unforked(build: Callable[[], World]) -> World:
    """Build such a world."""
    world: World = Unforked(build())
    return world
