"""The driver's side of a cluster: hires crews, hands them units, and notices if one is gone.

The driver alone plans, retries and records, so a crew that is gone takes nothing with it: another one does its units.
Units that begin alike go to the same crew, whose caches hold that beginning, if it has room.
"""

import asyncio
import contextlib
import time
from collections import Counter
from typing import Any, Generic

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sandcli.core.cluster.crew import Assignment, Crew, Description
from sandcli.core.cluster.nodes import Node, alive, crews_that_fit, gpus_of_crew, needs
from sandcli.core.cluster.notes import CrewNote, note
from sandcli.core.cluster.remote import Lost, RemoteCrew
from sandcli.core.cluster.session import joined
from sandcli.core.manifest import Spent, versions
from sandcli.core.stage import P, R, Skipped, Stage, Unit
from sandcli.errors import Interrupted, MachineryError, PrerequisiteError, SandError
from sandcli.progress import notice
from sandcli.records import Key

_LOOK_EVERY = 2.0
"""Seconds between two looks at the nodes."""

_WAIT = 0.1
"""Seconds between two looks at whether there is a crew with room."""

_SAY_EVERY = 30.0
"""Seconds between two lines about waiting for crews."""

_LIVES = 3
"""A unit fails if so many crews were lost while working on it; a node gets no more if so many failed to start there."""


class Crews(Generic[P, R]):
    """All crews that work on a stage: an executor, and an asynchronous context manager."""

    def __init__(self, stage: Stage[P, R]) -> None:
        self._stage = stage
        self._settings = stage.context.settings.cluster
        self._hired: dict[RemoteCrew, asyncio.Task[None]] = {}
        self._ready: list[RemoteCrew] = []
        self._homes: dict[Key, RemoteCrew] = {}
        self._failed_starts: Counter[str] = Counter()
        self._refusals: dict[str, SandError] = {}
        self._first = {suspect: asyncio.Lock() for suspect in (False, True)}
        self._given_room = 0
        self._rooms: asyncio.Queue[int] = asyncio.Queue()
        self._waiting = ""
        self._closing = False
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Crews[P, R]":
        self._ours = Description(await asyncio.to_thread(self._stage.identity), await asyncio.to_thread(versions))
        await self._stack.enter_async_context(joined(self._settings.address))
        self._hiring = asyncio.create_task(self._hire())
        try:
            await self._first_crew()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        try:
            self._hiring.cancel()
            await asyncio.gather(self._hiring, return_exceptions=True)
            await asyncio.gather(*map(self._dismiss, self._ready), return_exceptions=True)
            for task in self._hired.values():
                task.cancel()
            await asyncio.gather(*self._hired.values(), return_exceptions=True)
            note(self._stage.artifact, [])
        finally:
            await self._stack.aclose()

    async def _first_crew(self) -> None:
        """Wait until one is ready. Raises what kept the crews of all nodes from it."""
        said = time.monotonic()
        while not self._ready:
            if self._stage.stop():
                raise Interrupted(self._stage.name)
            if self._hiring.done():
                self._hiring.result()
            if self._refusals and not self._hired:
                raise next(iter(self._refusals.values()))
            await asyncio.sleep(_WAIT)
            if time.monotonic() - said >= _SAY_EVERY:
                notice(f"waiting for a crew: {self._waiting}")
                said = time.monotonic()

    # The executor

    @property
    def label(self) -> str:
        """How many crews there are."""
        return f"{len(self._ready)} crew{'s' if len(self._ready) != 1 else ''}"

    async def more(self) -> int:
        """The room that a crew brings; one that replaces another brings none."""
        return await self._rooms.get()

    async def do(self, unit: Unit[P], earlier: R | None) -> R | Skipped:
        """Let a crew do a unit; another one, if that one is lost.

        The last attempt is made by a crew that has no other unit of this kind: several units may have been on all the
        lost crews, and only one of them may be to blame.
        """
        for attempt in range(1, _LIVES + 1):
            last = attempt == _LIVES
            crew = await self._place(self._stage.begins_like(unit.key), last)
            crew.suspects += last
            try:
                result: R | Skipped = await crew.do(unit, earlier)
                return result
            except Lost:
                continue
            finally:
                crew.suspects -= last
        raise MachineryError("crew", f"{_LIVES} crews were lost while working on this unit")

    async def _place(self, beginning: Key, suspect: bool) -> RemoteCrew:
        """A crew with room: the one that has done units with the same beginning, else the one with the most room.

        Raises `MachineryError` if the stage is to stop, and `PrerequisiteError` if no crew is left and none comes.
        """
        home = self._homes.get(beginning)
        if home is None or not home.takes(suspect):
            home = self._homes[beginning] = await self._with_most_room(suspect)
        return home

    async def _with_most_room(self, suspect: bool) -> RemoteCrew:
        async with self._first[suspect]:  # the others wait behind it
            alone = time.monotonic()
            while not (fit := [crew for crew in self._ready if crew.takes(suspect)]):
                if self._stage.stop():
                    raise MachineryError("crew", "the stage was stopped before this unit began")
                if self._hiring.done():
                    self._hiring.result()
                if self._ready or self._hired:
                    alone = time.monotonic()
                if time.monotonic() - alone > self._settings.patience:
                    fix = "add nodes, then run the same command again"
                    raise PrerequisiteError("no crew is left on the cluster", fix)
                await asyncio.sleep(_WAIT)
            return max(fit, key=lambda crew: crew.free)

    # Crews come and go

    async def _hire(self) -> None:
        """Hire as many crews as the nodes have room for, and more when nodes join."""
        while True:
            with contextlib.suppress(RayError):  # the next look may succeed
                self._hire_on(alive(await asyncio.to_thread(ray.nodes)))
            self._note()
            await asyncio.sleep(_LOOK_EVERY)

    def _hire_on(self, nodes: list[Node]) -> None:
        any_gpu = any(node.gpus for node in nodes)
        gpus = gpus_of_crew(self._stage.context.settings, self._stage.model() is not None) if any_gpu else 0
        places = Counter(crew.node.id for crew in self._hired)
        told = []
        for node in nodes:
            wanted = needs(self._stage.context.settings, node, gpus)
            told.append(f"{node.name} with {node.cpus} cores and {node.gpus} GPUs for crews of {wanted}")
            free = 0 if node.id in self._refusals else crews_that_fit(node, wanted) - places[node.id]
            left = self._settings.crews - len(self._hired) if self._settings.crews else free
            for _ in range(min(free, left)):
                self._start(node, wanted.cpus, wanted.gpus)
        self._waiting = f"{len(self._hired)} are starting or wait for their place; nodes: {'; '.join(told) or 'none'}"

    def _start(self, node: Node, cpus: int, gpus: int) -> None:
        kind: Any = ray.remote(Crew).options(
            num_cpus=cpus, num_gpus=gpus, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        )
        crew = RemoteCrew(node, kind.remote(Assignment.of(self._stage, cpus)))
        self._hired[crew] = asyncio.create_task(self._employ(crew))

    async def _employ(self, crew: RemoteCrew) -> None:
        """Open a crew and let it work until it is lost."""
        try:
            if await self._opened(crew):
                self._lose(crew, await self._ended(crew))
        finally:
            self._hired.pop(crew, None)
            ray.kill(crew.actor)  # it may still run, out of reach

    async def _opened(self, crew: RemoteCrew) -> bool:
        """Whether a crew is ready. If not, its node may get no more."""
        try:
            self._must_match(crew.node, await crew.actor.describe.remote())
            crew.room = await crew.actor.open.remote()
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            self._failed_starts[crew.node.id] += 1
            if isinstance(cause, SandError):
                self._refuse(crew.node, cause.what, cause.fix)
            elif self._failed_starts[crew.node.id] >= _LIVES:
                logs = "Ray's logs on that node say more: /tmp/ray/session_latest/logs"
                self._refuse(crew.node, f"a crew ended while it started: {_first_line(cause)}", logs)
            return False
        except SandError as error:
            self._refuse(crew.node, error.what, error.fix)
            return False
        self._ready.append(crew)
        self._note()
        notice(f"a crew joined on node {crew.node.name}: {crew.room.most} units at once; {self.label} now")
        room = sum(ready.room.most for ready in self._ready)
        if room > self._given_room:
            self._rooms.put_nowait(room - self._given_room)
            self._given_room = room
        return True

    def _must_match(self, node: Node, theirs: Description) -> None:
        """Raise `PrerequisiteError` for a crew whose records would differ from this process's."""
        ours = self._ours
        pairs = {
            "": (ours.identity.settings, theirs.identity.settings),
            "input ": (ours.identity.inputs, theirs.identity.inputs),
            "version of ": (ours.versions, theirs.versions),
        }
        for kind, (here, there) in pairs.items():
            for name in sorted(here | there):
                if here.get(name) != there.get(name):
                    raise PrerequisiteError(
                        f"node {node.name} differs from this one: {kind}{name} is {there.get(name, 'missing')} "
                        f"there and {here.get(name, 'missing')} here",
                        "make them the same, then run the command again",
                    )

    async def _ended(self, crew: RemoteCrew) -> str:
        """Let a crew work. Returns why it ended."""
        try:
            await crew.serve(self._settings.patience)
        except TimeoutError:
            return f"it has not answered for {self._settings.patience:.0f} s"
        except Exception as error:
            return _first_line(error)
        finally:
            crew.lose()
            self._ready.remove(crew)
        raise AssertionError("a crew works until it is lost")

    def _lose(self, crew: RemoteCrew, why: str) -> None:
        self._homes = {beginning: home for beginning, home in self._homes.items() if home is not crew}
        self._note()
        if not self._closing:
            notice(f"a crew on node {crew.node.name} is lost: {why}; {self.label} left, its units are done again")

    def _refuse(self, node: Node, what: str, fix: str) -> None:
        """Hire no more on a node where a crew could not start."""
        what = what if node.name in what else f"node {node.name}: {what}"
        if node.id not in self._refusals:
            self._refusals[node.id] = PrerequisiteError(what, fix)
            if self._ready or len(self._hired) > 1:
                notice(f"no crew on this node: {what}; {fix}")

    async def _dismiss(self, crew: RemoteCrew) -> None:
        """Let a crew free what it holds, and count what it took."""
        with contextlib.suppress(RayError, TimeoutError):
            async with asyncio.timeout(self._settings.patience):
                spent: Spent = await crew.actor.close.remote()
                self._stage.context.spent += spent

    def _note(self) -> None:
        note(self._stage.artifact, [CrewNote(crew.node.name, crew.working) for crew in self._ready])


def _first_line(error: BaseException) -> str:
    """What Ray says, without its page of text."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
