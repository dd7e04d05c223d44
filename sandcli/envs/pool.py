"""A pool of worker processes that environments live in.

Environments stay where they are; tasks, actions and observations cross the border. A worker holds many episodes, and
snapshots of states that episodes were restored to; branches of one task go where its snapshots are. A worker that dies,
hangs, grows too big or reports a broken simulator is replaced, and its episodes are replayed action by action.
What was observed on the way to a state, when its snapshot was made, is compared with what the trajectory recorded.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from sandcli.envs.base import Outcome, Reset, World
from sandcli.envs.worker import DEATHS, Replaced, Worker, WorkerDied
from sandcli.errors import MachineryError
from sandcli.records import Step, Task

_SLACK = 4
"""A worker without a task's snapshots takes over when those that have them hold so many episodes more."""

_REMEMBERED = 256
"""Tasks of which the pool knows where their snapshots are."""


class Restored(NamedTuple):
    """An episode brought to a state: how it began, and what each action of the prefix led to."""

    reset: Reset
    outcomes: list[Outcome]


class Pool:
    """Worker processes for one world; an asynchronous context manager.

    `build` makes the world inside a worker and must be picklable. `timeout` is in seconds, for one call.
    """

    def __init__(self, build: Callable[[], World], workers: int, timeout: float) -> None:
        self._world = build()
        self._workers = [Worker(build, timeout) for _ in range(workers)]
        self._holders: OrderedDict[Task, list[Worker]] = OrderedDict()

    @property
    def waited(self) -> float:
        """Seconds that episodes waited for an answer, summed over all of them."""
        return sum(worker.waited for worker in self._workers)

    async def __aenter__(self) -> "Pool":
        try:
            await asyncio.gather(*(worker.call("ping") for worker in self._workers))
        except BaseException as error:
            await self.__aexit__(None, None, None)
            if isinstance(error, WorkerDied):
                raise MachineryError(error.reason, f"the environment does not start: {error}") from error
            raise
        for worker in self._workers:
            worker.waited = 0.0  # starting is not what episodes wait for
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    async def restore(self, task: Task, prefix: Sequence[Step] = ()) -> "Session":
        """A new episode in the state after the prefix.

        Raises `MachineryError` with `replay_diverged` where an observation differs from the prefix's own.
        """
        session = Session(self._worker_for(task), task)
        try:
            await session.open(prefix, self._world.same)
        except BaseException:
            await session.close()
            raise
        return session

    async def replay(self, task: Task, actions: Sequence[str]) -> Restored:
        """Run a whole list of actions; it ends early where the episode does."""
        session = await self.restore(task)
        try:
            return Restored(session.reset, [o async for o in session.run(actions)])
        finally:
            await session.close()

    def _worker_for(self, task: Task) -> Worker:
        """The one with the fewest episodes among those that hold the task's snapshots, unless others idle."""
        idle = min(self._workers, key=lambda w: w.sessions)
        holders = self._holders.setdefault(task, [idle])
        self._holders.move_to_end(task)
        if len(self._holders) > _REMEMBERED:
            self._holders.popitem(last=False)
        chosen = min(holders, key=lambda w: w.sessions)
        if chosen.sessions > idle.sessions + _SLACK:
            holders.append(idle)
            return idle
        return chosen

    async def expert(self, task: Task, kind: str, seed: int) -> list[str]:
        """What one of the world's experts does for a task."""
        worker = self._worker_for(task)
        worker.sessions += 1
        try:
            _, actions = await worker.persistently("expert", task, kind, seed)
        finally:
            worker.sessions -= 1
        return [str(action) for action in actions]


class Session:
    """One episode in the pool; survives the death of its worker."""

    def __init__(self, worker: Worker, task: Task) -> None:
        self._worker = worker
        self._worker.sessions += 1
        self._task = task
        self._seen: list[tuple[str, Outcome]] = []
        self._slot = -1
        self._life = -1
        self.reset = Reset("", 0.0)

    @property
    def outcomes(self) -> list[Outcome]:
        """What every action so far led to, the restored prefix included."""
        return [outcome for _, outcome in self._seen]

    @property
    def score(self) -> float:
        """The score where the episode stands."""
        return self._seen[-1][1].score if self._seen else self.reset.score

    @property
    def best(self) -> float:
        """The highest score so far, before the first step included."""
        return max(self.reset.score, *(outcome.score for outcome in self.outcomes), 0.0)

    async def open(self, prefix: Sequence[Step], same: Callable[[str, str], bool]) -> None:
        """Bring the episode into the state after the prefix and hold it against what the prefix recorded."""
        restored = await self._restore([step.action for step in prefix])
        for number, (step, outcome) in enumerate(zip(prefix, restored.outcomes, strict=False)):
            if not same(outcome.observation, step.observation):
                raise diverged(number, step.action, outcome.observation, step.observation)
        if len(restored.outcomes) < len(prefix):
            raise MachineryError("replay_diverged", f"the episode ended at step {len(restored.outcomes)}")
        self.reset = restored.reset
        self._seen = list(zip((step.action for step in prefix), restored.outcomes, strict=True))

    async def step(self, action: str) -> Outcome:
        """Execute one action. `MachineryError` for a step after the end of the episode."""
        if self._seen and self._seen[-1][1].done:
            raise MachineryError("environment", f"{action!r} comes after the end of the episode")
        deaths = 0
        while True:
            try:
                if self._life != self._worker.life:
                    await self._reopen()
                _, answer = await self._worker.call("step", self._slot, action, life=self._life)
            except Replaced:
                continue
            except WorkerDied as error:
                deaths += 1
                if deaths == DEATHS:
                    raise MachineryError(error.reason, str(error)) from error
                continue
            outcome = Outcome(*answer)
            self._seen.append((action, outcome))
            return outcome

    async def run(self, actions: Sequence[str]) -> Any:
        """The outcomes of a list of actions, until the episode ends."""
        for action in actions:
            outcome = await self.step(action)
            yield outcome
            if outcome.done:
                return

    async def close(self) -> None:
        """Give the slot back."""
        self._worker.sessions -= 1
        if self._life == self._worker.life and self._slot >= 0:
            try:
                await self._worker.call("release", self._slot, life=self._life)
            except (Replaced, WorkerDied):
                return

    async def _reopen(self) -> None:
        restored = await self._restore([action for action, _ in self._seen])
        if restored.outcomes != self.outcomes:
            raise MachineryError("replay_diverged", "an episode did not replay after its worker was replaced")

    async def _restore(self, actions: list[str]) -> Restored:
        self._life, answer = await self._worker.persistently("restore", self._task, actions)
        self._slot, reset, outcomes = answer
        return Restored(Reset(*reset), [Outcome(*outcome) for outcome in outcomes])


def diverged(number: int, action: str, observed: str, recorded: str) -> MachineryError:
    """The error for an observation that is not the recorded one, with the first line that differs."""
    now, then = observed.splitlines(), recorded.splitlines()
    unlike = next((i for i in range(max(len(now), len(then))) if now[i : i + 1] != then[i : i + 1]), 0)
    lines = f"recorded {''.join(then[unlike : unlike + 1])!r}, observed {''.join(now[unlike : unlike + 1])!r}"
    return MachineryError("replay_diverged", f"step {number} ({action}): {lines}")
