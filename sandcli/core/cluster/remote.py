"""A crew as the driver sees it."""

import asyncio
import math
from itertools import count
from typing import Any

from sandcli.core.cluster.crew import ANSWER_EVERY, Assigned, Ended, Room
from sandcli.core.cluster.nodes import Node
from sandcli.core.stage import Unit

_TICK = 1.0
"""Seconds between two looks at whether a crew has answered."""


class Lost(Exception):
    """The crew was lost before it did the unit."""


class RemoteCrew:
    """A crew that was hired. It has no room until it is ready, and after it is lost.

    Units are sent to it, and results fetched from it, as many at once as there are: a call costs more than a unit.
    """

    def __init__(self, node: Node, actor: Any) -> None:
        self.node = node
        self.actor = actor
        self.room = Room(0, 0)
        self.suspects = 0
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._unsent: list[Assigned] = []
        self._any = asyncio.Event()

    @property
    def working(self) -> int:
        """The units that it has in progress."""
        return len(self._waiting)

    @property
    def free(self) -> int:
        """How many more it takes now."""
        return self.room.now - self.working

    def takes(self, suspect: bool) -> bool:
        """Whether it takes one more unit; of suspects it takes one at a time."""
        return self.free > 0 and not (suspect and self.suspects)

    async def do(self, unit: Unit[Any], earlier: Any) -> Any:
        """Let it do a unit. Raises `Lost` if the crew is lost meanwhile."""
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        self._unsent.append(Assigned(number, Unit(unit.key, unit.payload, ()), earlier))
        self._any.set()
        return await self._waiting[number]

    async def serve(self, patience: float) -> None:
        """Send and fetch until this is cancelled.

        Raises `RayError` if the crew is gone, or `TimeoutError` if it has not answered for `patience` seconds.
        """
        both = [asyncio.create_task(self._send()), asyncio.create_task(self._fetch(patience))]
        try:
            ended, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            ended.pop().result()
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _send(self) -> None:
        while await self._any.wait():
            self._any.clear()
            batch, self._unsent = self._unsent, []
            await self.actor.begin.remote(batch)

    async def _fetch(self, patience: float) -> None:
        while True:
            ended: Ended = await _answer(self.actor.finished.remote(), ANSWER_EVERY + patience)
            self.room = ended.room
            for number, result in ended.units:
                self._tell(self._waiting.pop(number), result)

    def lose(self) -> None:
        """Give up what it has in progress."""
        self.room = Room(0, 0)
        for future in self._waiting.values():
            self._tell(future, Lost())
        self._waiting.clear()

    @staticmethod
    def _tell(future: "asyncio.Future[Any]", result: object) -> None:
        if future.done():  # nobody waits for it any more
            return
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)


async def _answer(reference: Any, seconds: float) -> Any:
    """What a call returns. Raises `TimeoutError` after that time, of which only this process's own counts.

    If it was stopped for a while, answers that came meanwhile are not late.
    """
    answer = asyncio.ensure_future(reference)
    try:
        for _ in range(math.ceil(seconds / _TICK)):
            if (await asyncio.wait({answer}, timeout=_TICK))[0]:
                return answer.result()
        raise TimeoutError
    finally:
        answer.cancel()
