"""The servers of an engine: who of them takes a request, and who is waited for.

A server that fails is asked every few seconds whether it is back, and then takes requests again.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

from sandcli.engines.base import Model
from sandcli.engines.remote import FIRST_PAUSE, LONGEST_PAUSE, START, Address, Server, Unusable
from sandcli.errors import PrerequisiteError

_FAILURES = 3
"""A server that failed so often in a row gets no more requests until it answers a probe."""

_SLACK = 8
"""A server takes a conversation over when the one that knows it has so many requests more at work."""

_REMEMBERED = 4096
"""Conversations of which it is known what server's cache their beginning is in."""


class Fleet:
    """Servers, and tasks that look after those that do not answer. `timeout` is in seconds, for one request."""

    def __init__(self, urls: Sequence[str], timeout: float, notice: Callable[[str], None]) -> None:
        self._servers = [Server(address, timeout) for address in dict.fromkeys(map(Address.read, urls))]
        self._notice = notice
        self._models: list[Model] = []
        self._homes: OrderedDict[Hashable, Server] = OrderedDict()
        self._nurses: dict[Server, asyncio.Task[None]] = {}
        self._returned = asyncio.Event()
        self._since = time.monotonic()
        self._busy = self._work = 0.0

    async def open(self, model: Model, patience: float) -> None:
        """Wait until every server answers, `patience` seconds at most, and go on with those that serve the model.

        Raises `PrerequisiteError` where none does.
        """
        if not self._servers:
            raise PrerequisiteError(
                "engine.urls is empty",
                "set it in sand.toml, or SAND_ENGINE_URLS=http://127.0.0.1:8000 (commas between)",
            )
        self._models.append(model)
        deadline = time.monotonic() + patience
        await asyncio.gather(*(self._wait_for(server, deadline) for server in self._servers))
        troubles = [(server, server.trouble) for server in self._servers if server.trouble]
        if not self.that_serve(model):
            what = "; ".join(f"{server.url} {trouble}" for server, trouble in troubles)
            fix = next((trouble.fix for _, trouble in troubles if trouble.final), START)
            raise PrerequisiteError(what, fix.format(folder=model.folder, name=model.name))
        for server, trouble in troubles:
            self._notice(f"{server.url} {trouble}: it is left out{'' if trouble.final else ' until it answers'}")
            if not trouble.final:
                self._nurse(server)

    async def _wait_for(self, server: Server, deadline: float) -> None:
        while True:
            try:
                await server.probe(self._models)
            except Unusable as trouble:
                left = deadline - time.monotonic()
                if trouble.final or left <= 0:
                    break
                if server.pause == FIRST_PAUSE:
                    self._notice(f"waiting for {server.url}: it {trouble}")
                await asyncio.sleep(min(server.pause, left))
                server.pause = min(2 * server.pause, LONGEST_PAUSE)
            else:
                break
        server.up = bool(server.cards)  # one that serves other models may be of use to an engine beside this one
        server.pause = FIRST_PAUSE

    def that_serve(self, model: Model) -> list[Server]:
        """Those that answer and serve the model."""
        return [server for server in self._servers if server.up and server.card(model)]

    def size(self, model: Model) -> int:
        """How many serve the model, or may do so when they answer at last."""
        return sum(bool(s.card(model) or (s.trouble and not s.trouble.final)) for s in self._servers)

    def also(self, model: Model) -> None:
        """From now on a server that serves this model is of use, too."""
        self._models.append(model)

    def context(self, model: Model) -> int | None:
        """The tokens that fit into every server that serves the model; None where they do not say."""
        limits = [server.context(model) for server in self.that_serve(model)]
        return min((limit for limit in limits if limit), default=None)

    async def some(self, model: Model, seconds: float) -> None:
        """Wait until a server that serves the model is there. Raises `Unusable` where none is after these seconds."""
        try:
            async with asyncio.timeout(seconds):
                while not self.that_serve(model):
                    await self._returned.wait()
        except TimeoutError:
            what = "; ".join(f"{server.url} {server.trouble}" for server in self._servers if server.trouble)
            raise Unusable(what) from None

    def choose(self, model: Model, conversation: Hashable, but: Server | None) -> Server | None:
        """The server whose cache holds the conversation's beginning, unless another idles; None where none is there.

        `but` is taken only where there is no other.
        """
        serving = self.that_serve(model)
        fit = [server for server in serving if server is not but] or serving
        if not fit:
            return None
        idle = min(fit, key=lambda server: server.working)
        home = self._homes.get((model, conversation), idle)
        if home not in fit or home.working > idle.working + _SLACK:
            home = idle
        self._homes[model, conversation] = home
        self._homes.move_to_end((model, conversation))
        if len(self._homes) > _REMEMBERED:
            self._homes.popitem(last=False)
        return home

    @contextmanager
    def at_work(self, server: Server) -> Iterator[None]:
        """The time in which a server works on a request."""
        self._measure()
        server.working += 1
        try:
            yield
        finally:
            self._measure()
            server.working -= 1

    def _measure(self) -> None:
        """Account for the time since the number of requests at work last changed."""
        now, working = time.monotonic(), sum(server.working for server in self._servers)
        self._busy += (now - self._since) * (working > 0)
        self._work += (now - self._since) * working
        self._since = now

    def batch(self) -> float:
        """The mean number of requests at work, over the time in which there was one."""
        self._measure()
        return self._work / self._busy if self._busy else 0.0

    def failed(self, server: Server, trouble: Unusable, connection: bool) -> None:
        """It did not answer a request. Where it cannot be reached, or fails again and again, it is taken out."""
        server.failures += 1
        if server.up and (connection or server.failures >= _FAILURES):
            server.up, server.trouble = False, trouble
            self._notice(f"{server.url} {trouble}: it is left out until it answers")
            self._nurse(server)

    def succeeded(self, server: Server) -> None:
        """It answered a request as it should."""
        server.failures, server.pause = 0, FIRST_PAUSE

    def _nurse(self, server: Server) -> None:
        self._nurses[server] = asyncio.create_task(self._bring_back(server))

    async def _bring_back(self, server: Server) -> None:
        said = ""
        while not server.up:
            # It goes on doubling until a request succeeds: a server may answer probes and nothing else.
            await asyncio.sleep(server.pause)
            server.pause = min(2 * server.pause, LONGEST_PAUSE)
            try:
                await server.probe(self._models)
                server.up = True
            except Unusable as trouble:
                if trouble.final and str(trouble) != said:
                    said = str(trouble)
                    self._notice(f"{server.url} {said}")
        server.failures = 0
        self._notice(f"{server.url} answers again")
        self._returned.set()
        self._returned = asyncio.Event()

    async def close(self) -> None:
        """End what looks after the servers, and their connections."""
        for nurse in self._nurses.values():
            nurse.cancel()
        await asyncio.gather(*self._nurses.values(), return_exceptions=True)
        await asyncio.gather(*(server.client.close() for server in self._servers))
