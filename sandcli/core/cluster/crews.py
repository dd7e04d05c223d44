"""The driver's side of a cluster: hires crews, hands them units, and notices if one is gone.

The driver alone plans, retries and records, so a crew that is gone takes nothing with it: another one does its units.
Units that begin alike go to the same crew, whose caches hold that beginning, if it has room.
"""

import asyncio
import contextlib
import time
from collections import Counter
from typing import Any, Generic, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sandcli.core.cluster.crew import Assignment, Card, Crew
from sandcli.core.cluster.member import Lost, Member
from sandcli.core.cluster.nodes import Needs, Node, alive, crews_that_fit, needs
from sandcli.core.cluster.notes import CrewNote, note
from sandcli.core.cluster.session import joined
from sandcli.core.manifest import Spent, versions
from sandcli.core.stage import P, R, Skipped, Stage, Unit
from sandcli.errors import Interrupted, MachineryError, PrerequisiteError, SandError
from sandcli.progress import notice
from sandcli.records import Key

_LOOK_EVERY = 2.0
"""Seconds between two looks at the nodes."""

_WAIT = 0.1
"""Seconds between two looks at whether there is a crew."""

_SAY_EVERY = 30.0
"""Seconds between two lines about waiting for crews."""

_LIVES = 3
"""A unit fails if this many crews were lost while they did it."""

_MOST_UNITS = 10_000
"""More units than a crew ever has in progress: Ray wants a number."""


class _Hire(NamedTuple):
    """A crew from its hiring to its end."""

    crew: Member
    task: "asyncio.Task[None]"


class Crews(Generic[P, R]):
    """All crews that work on a stage: an executor, and an asynchronous context manager."""

    def __init__(self, stage: Stage[P, R]) -> None:
        self._stage = stage
        self._settings = stage.context.settings
        self._hired: list[_Hire] = []
        self._members: list[Member] = []
        self._homes: dict[Key, Member] = {}
        self._refusals: dict[str, SandError] = {}
        self._nodes = ""
        self._rooms: asyncio.Queue[int] = asyncio.Queue()
        self._stack = contextlib.ExitStack()

    async def __aenter__(self) -> "Crews[P, R]":
        self._identity = await asyncio.to_thread(self._stage.identity)
        self._stack.enter_context(joined(self._settings.cluster.address))
        self._hiring = asyncio.create_task(self._hire())
        try:
            await self._first_crew()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._hiring.cancel()
        await asyncio.gather(self._hiring, return_exceptions=True)
        await asyncio.gather(*(self._dismiss(crew) for crew in self._members))
        for hire in self._hired:
            hire.task.cancel()
        await asyncio.gather(*(hire.task for hire in self._hired), return_exceptions=True)
        note(self._stage.artifact, [])
        self._stack.close()

    async def _first_crew(self) -> None:
        """Wait until one is ready. Raises what kept the crews of all nodes from it."""
        waited = 0.0
        while not self._members:
            if self._stage.stop():
                raise Interrupted(self._stage.name)
            if self._hiring.done():
                self._hiring.result()
            if self._refusals and not self._hired:
                raise next(iter(self._refusals.values()))
            await asyncio.sleep(_WAIT)
            waited += _WAIT
            if waited >= _SAY_EVERY:
                notice(f"waiting for a crew: {len(self._hired)} are starting; nodes: {self._nodes or 'none'}")
                waited = 0.0

    # The executor

    async def more(self) -> int:
        """The room of the next crew that joins."""
        return await self._rooms.get()

    async def do(self, unit: Unit[P], earlier: R | None) -> R | Skipped:
        """Let a crew do a unit; another one, if that one is lost."""
        for _ in range(_LIVES):
            crew = await self._place(self._stage.begins_like(unit.key))
            with contextlib.suppress(Lost):
                result: R | Skipped = await crew.do(unit, earlier)
                return result
        raise MachineryError("crew", f"{_LIVES} crews were lost while they did it")

    async def _place(self, beginning: Key) -> Member:
        """A crew with room: the one that has done units with the same beginning, else the one with the most room."""
        started = time.monotonic()
        while not any(crew.free > 0 for crew in self._members):
            if self._stage.stop() or time.monotonic() - started > self._settings.cluster.patience:
                raise MachineryError("crew", "no crew is left")
            await asyncio.sleep(_WAIT)
        home = self._homes.get(beginning)
        if home is None or home.free <= 0:
            home = self._homes[beginning] = max(self._members, key=lambda crew: crew.free)
        return home

    # Crews come and go

    async def _hire(self) -> None:
        """Hire as many crews as the nodes have room for, and more when nodes join."""
        while True:
            nodes = alive(await asyncio.to_thread(ray.nodes))
            self._nodes = ", ".join(f"{node.name} ({node.cpus} cores, {node.gpus} GPUs)" for node in nodes)
            any_gpu = any(node.gpus for node in nodes)
            self._hired = [hire for hire in self._hired if not hire.task.done()]
            places = Counter(hire.crew.node.id for hire in self._hired)
            for node in nodes:
                wanted = needs(self._settings, node, any_gpu)
                free = crews_that_fit(node, wanted) - places[node.id]
                if node.id in self._refusals:
                    continue
                for _ in range(min(free, self._still_wanted())):
                    self._start(node, wanted)
            self._note()
            await asyncio.sleep(_LOOK_EVERY)

    def _still_wanted(self) -> int:
        most = self._settings.cluster.crews
        return most - len(self._hired) if most else _MOST_UNITS

    def _start(self, node: Node, wanted: Needs) -> None:
        kind: Any = ray.remote(Crew).options(
            num_cpus=wanted.cpus,
            num_gpus=wanted.gpus,
            max_concurrency=_MOST_UNITS,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        )
        crew = Member(node, kind.remote(Assignment.of(self._stage, wanted.cpus)))
        self._hired.append(_Hire(crew, asyncio.create_task(self._employ(crew))))

    async def _employ(self, crew: Member) -> None:
        """Open a crew and let it work until it is lost."""
        try:
            self._join(crew, await self._opened(crew))
            await crew.serve(self._settings.cluster.patience)
        except SandError as error:
            self._refuse(crew.node, error)
        except TimeoutError:
            self._lose(crew, f"it has not answered for {self._settings.cluster.patience:.0f} s")
        except RayError as error:
            self._lose(crew, _first_line(error))
        finally:
            ray.kill(crew.actor)  # it may still run, out of reach

    async def _opened(self, crew: Member) -> Card:
        """A crew that is ready. Raises `SandError` if it cannot work here."""
        try:
            card: Card = await crew.actor.open.remote()
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, SandError):
                raise cause from None
            raise PrerequisiteError(
                f"a crew ended while it started: {_first_line(cause)}",
                "install the same sandcli there; Ray's logs on that node say more (/tmp/ray/session_latest/logs)",
            ) from None
        self._must_match(crew.node, card)
        return card

    def _must_match(self, node: Node, card: Card) -> None:
        """Raise `PrerequisiteError` for a crew whose records would differ from this process's."""
        pairs = {
            "": (self._identity.settings, card.identity.settings),
            "input ": (self._identity.inputs, card.identity.inputs),
            "version of ": (versions(), card.versions),
        }
        for kind, (ours, theirs) in pairs.items():
            for name in sorted(ours | theirs):
                if ours.get(name) != theirs.get(name):
                    raise PrerequisiteError(
                        f"node {node.name} differs from this one: {kind}{name} is {theirs.get(name)} there, "
                        f"{ours.get(name)} here",
                        "make them the same, then run the command again",
                    )

    def _join(self, crew: Member, card: Card) -> None:
        crew.room = card.room
        self._members.append(crew)
        self._note()
        notice(f"a crew joined on node {crew.node.name}: {card.most} units at once; {self.label} now")
        self._rooms.put_nowait(card.most)

    @property
    def label(self) -> str:
        """How many crews there are."""
        return f"{len(self._members)} crew{'s' if len(self._members) != 1 else ''}"

    def _lose(self, crew: Member, why: str) -> None:
        """Give it nothing more."""
        if crew in self._members:
            self._members.remove(crew)
            self._note()
            self._homes = {beginning: home for beginning, home in self._homes.items() if home is not crew}
            notice(f"a crew on node {crew.node.name} is lost: {why}; {self.label} left, its units are done again")
            crew.lose()

    def _refuse(self, node: Node, error: SandError) -> None:
        """Hire no more on a node where a crew could not start."""
        what = error.what if node.name in error.what else f"node {node.name}: {error.what}"
        self._refusals[node.id] = PrerequisiteError(what, error.fix)
        if self._members:
            notice(f"no crew on this node: {what}; {error.fix}")

    async def _dismiss(self, crew: Member) -> None:
        """Let a crew free what it holds, and count what it took."""
        with contextlib.suppress(RayError, TimeoutError):
            async with asyncio.timeout(self._settings.cluster.patience):
                spent: Spent = await crew.actor.close.remote()
                self._stage.context.spent += spent

    def _note(self) -> None:
        note(self._stage.artifact, [CrewNote(crew.node.name, crew.working, crew.done) for crew in self._members])


def _first_line(error: BaseException) -> str:
    """What Ray says, without its page of text."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
