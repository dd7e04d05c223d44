"""The servers of an engine: which one gets a request, and health checks for those that failed."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

from sandcli.engines.server_client import FIRST_PAUSE, LONGEST_PAUSE, Identity, Server, Unusable
from sandcli.errors import PrerequisiteError

_FAILURES = 3
"""A server that failed this often in a row gets no requests until it answers a probe."""

_SLACK = 8
"""A conversation moves to another server if its own has this many requests more to work on."""

_REMEMBERED = 4096
"""The number of conversations whose server is remembered, because its cache holds their beginning."""


class ServerPool:
    """Chooses a server for every request, and checks those that do not answer until they are back."""

    def __init__(self, servers: Sequence[Server], notice: Callable[[str], None]) -> None:
        self._servers = servers
        self._notice = notice
        self._models: list[Identity] = []
        self._homes: OrderedDict[Hashable, Server] = OrderedDict()
        self._health_checks: dict[Server, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self.closed = False
        self._since = time.monotonic()
        self._busy = self._work = 0.0

    async def open(self, model: Identity, patience: float) -> None:
        """Wait at most `patience` seconds until every server answers; use those that serve the model.

        Raises `PrerequisiteError` if none does.
        """
        self._models.append(model)
        deadline = time.monotonic() + patience
        await asyncio.gather(*(self._wait_for(server, deadline) for server in self._servers))
        troubles = [(server, server.trouble) for server in self._servers if server.trouble]
        if not self.serving(model):
            what = "; ".join(f"{server.url} {trouble}" for server, trouble in troubles)
            fixes = [trouble.fix for _, trouble in sorted(troubles, key=lambda found: not found[1].final)]
            raise PrerequisiteError(what, fixes[0].format(folder=model.folder, name=model.name))
        for server, trouble in troubles:
            self._notice(f"{server.url} {trouble}: it is left out{'' if trouble.final else ' until it answers'}")
            if not trouble.final:
                self._start_health_check(server)

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
        server.up = server.lists_models  # if it serves other models, `for_model` may need it
        server.pause = FIRST_PAUSE

    def serving(self, model: Identity) -> list[Server]:
        """The servers that are up and serve the model."""
        return [server for server in self._servers if server.up and server.card(model)]

    def size(self, model: Identity) -> int:
        """The number of servers that serve the model, or may serve it once they answer."""
        return sum(bool(s.card(model) or (s.trouble and not s.trouble.final)) for s in self._servers)

    async def add(self, model: Identity) -> bool:
        """Use the servers for this model as well; returns whether one serves it."""
        if model not in self._models:
            self._models.append(model)
        if not self.serving(model):
            up = [server for server in self._servers if server.up]
            await asyncio.gather(*(server.probe(self._models) for server in up), return_exceptions=True)
        return bool(self.serving(model))

    def context(self, model: Identity) -> int | None:
        """The longest conversation that every server of the model takes, in tokens; None if they do not say."""
        limits = [server.context(model) for server in self.serving(model)]
        return min((limit for limit in limits if limit), default=None)

    def cache_tokens(self, model: Identity) -> int | None:
        """The tokens that the prefix caches of the model's servers hold together; None if one does not say."""
        sizes = [server.cache_tokens for server in self.serving(model)]
        return sum(size for size in sizes if size) if sizes and all(sizes) else None

    async def wait_until_served(self, model: Identity, seconds: float) -> None:
        """Wait until a server serves the model. Raises `Unusable` if none does in time, or if all have ended."""
        try:
            async with asyncio.timeout(seconds):
                while not self.serving(model) and not self._hopeless():
                    await self._changed.wait()
        except TimeoutError:
            pass
        if not self.serving(model) and not self.closed:
            found = [(server.url, server.ended() or server.trouble) for server in self._servers]
            raise Unusable("; ".join(f"{url} {trouble}" for url, trouble in found if trouble))

    def _hopeless(self) -> bool:
        return self.closed or all(server.ended() for server in self._servers)

    def choose(self, model: Identity, conversation: Hashable, but: Server | None) -> Server | None:
        """Choose the server whose cache holds the conversation's beginning, or an idle one if that has much to do.

        Returns None if no server is up. `but` is chosen only if there is no other.
        """
        serving = self.serving(model)
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
        """Mark the time in which a server works on a request."""
        self._measure()
        server.working += 1
        try:
            yield
        finally:
            self._measure()
            server.working -= 1

    def _measure(self) -> None:
        """Account for the time since the number of requests last changed."""
        now, working = time.monotonic(), sum(server.working for server in self._servers)
        self._busy += (now - self._since) * (working > 0)
        self._work += (now - self._since) * working
        self._since = now

    def forget_usage(self) -> None:
        """Measure from now on."""
        self._since = time.monotonic()
        self._busy = self._work = 0.0

    def batch(self) -> float:
        """The mean number of requests at work, over the time in which there were any."""
        self._measure()
        return self._work / self._busy if self._busy else 0.0

    def failed(self, server: Server, trouble: Unusable, connection: bool) -> None:
        """Note a failed request; a server that cannot be reached, or fails repeatedly, gets no more of them."""
        server.failures += 1
        if server.up and not self.closed and (connection or server.failures >= _FAILURES):
            server.up, server.trouble = False, trouble
            self._notice(f"{server.url} {trouble}: it is left out until it answers")
            self._start_health_check(server)

    def succeeded(self, server: Server) -> None:
        """Note a request that was answered."""
        server.failures, server.pause = 0, FIRST_PAUSE

    def _start_health_check(self, server: Server) -> None:
        self._health_checks[server] = asyncio.create_task(self._check_health(server))

    async def _check_health(self, server: Server) -> None:
        """Probe a server until it is back, or until its process has ended."""
        said = ""
        while not server.up:
            # Only an answered request resets the pause: a server may answer probes and nothing else.
            await asyncio.sleep(server.pause)
            server.pause = min(2 * server.pause, LONGEST_PAUSE)
            try:
                await server.probe(self._models)
                server.up = True
            except Unusable as trouble:
                if trouble.final and str(trouble) != said:
                    said = str(trouble)
                    self._notice(f"{server.url} {said}")
                if server.ended():
                    break
        else:
            server.failures = 0
            self._notice(f"{server.url} answers again")
        self._announce()

    def _announce(self) -> None:
        """Wake whoever waits for a server."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def close(self) -> None:
        """End the health checks and close all connections; requests that wait fail."""
        self.closed = True
        self._announce()
        for check in self._health_checks.values():
            check.cancel()
        await asyncio.gather(*self._health_checks.values(), return_exceptions=True)
        await asyncio.gather(*(server.close() for server in self._servers))
