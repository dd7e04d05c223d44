"""Fake servers with a minimal OpenAI API that misbehave on demand, and engines on them."""

import asyncio
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from sandcli.engine_settings import EngineSettings
from sandcli.engines.base import Completion, Model, Sampling
from sandcli.engines.server import ServerEngine
from sandcli.messages import Message

PROMPT = [Message("system", "you act"), Message("user", "find the lamp")]
IDS = [1, 4, 5, 2, 6, 7, 8, 3]
"""The prompt as the tokens of the `words` model: <system> you act <user> find the lamp <assistant>."""

HELLO = Completion("hello", 3, "stop", 11)
SIMPLE = Sampling()


class Request(NamedTuple):
    """A received request for a completion."""

    body: dict[str, Any]
    authorization: str


class _Handler(BaseHTTPRequestHandler):
    server: "_Listener"

    def do_GET(self) -> None:
        fake = self.server.fake
        if self.path == "/v1/models":
            fake.probes += 1
            fake.listing(self, {})
        elif self.path == "/metrics" and fake.metrics:
            self.answer(200, fake.metrics.encode(), kind="text/plain")
        else:
            answers(404, {"detail": "Not Found"})(self, {})

    def do_POST(self) -> None:
        fake = self.server.fake
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fake.requests.append(Request(body, self.headers["Authorization"]))
        (fake.behaviours.popleft() if fake.behaviours else fake.usual)(self, body)

    def answer(self, status: int, content: bytes, length: int | None = None, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


Behaviour = Callable[[_Handler, dict[str, Any]], None]


def answers(status: int, content: Any) -> Behaviour:
    """Answer with JSON, or with raw bytes."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return lambda handler, body: handler.answer(status, raw)


def says(text: str, finish: str = "stop", tokens: int = 3, cached: int | None = None) -> Behaviour:
    """Answer with a completion, as vLLM does."""
    usage = {
        "completion_tokens": tokens,
        "prompt_tokens": 7,
        "prompt_tokens_details": None if cached is None else {"cached_tokens": cached},
    }
    return answers(200, {"choices": [{"index": 0, "text": text, "finish_reason": finish}], "usage": usage})


def fails(status: int, message: str = "something is wrong") -> Behaviour:
    """Answer with an error, as vLLM does."""
    return answers(status, {"error": {"message": message, "code": status}})


def echoes_the_seed(handler: _Handler, body: dict[str, Any]) -> None:
    """Answer with the seed of the request; `n` is ignored."""
    says(f"drawn with {body['seed']}")(handler, body)


def page(handler: _Handler, body: dict[str, Any]) -> None:
    """Answer with a web page."""
    handler.answer(200, b"<!DOCTYPE html><html>Welcome to nginx!</html>", kind="text/html")


def half(handler: _Handler, body: dict[str, Any]) -> None:
    """Send half an answer."""
    handler.answer(200, b'{"choices": [{"te', length=500)


def trickle(handler: _Handler, body: dict[str, Any]) -> None:
    """Answer so slowly that it never ends, although bytes keep coming."""
    handler.answer(200, b" ", length=500)
    for _ in range(30):
        handler.wfile.write(b" ")
        time.sleep(0.1)


def reset(handler: _Handler, body: dict[str, Any]) -> None:
    """Reset the connection, as when the process is killed."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.rfile.close()


def late(seconds: float, then: Behaviour) -> Behaviour:
    """Do nothing for a while."""

    def behave(handler: _Handler, body: dict[str, Any]) -> None:
        time.sleep(seconds)
        then(handler, body)

    return behave


def after(event: threading.Event, then: Behaviour) -> Behaviour:
    """Do nothing until the event."""

    def behave(handler: _Handler, body: dict[str, Any]) -> None:
        event.wait(10)
        then(handler, body)

    return behave


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    fake: "FakeServer"

    def handle_error(self, *arguments: Any) -> None:
        """Ignore clients that went away: some tests are about them."""


class FakeServer:
    """Serves `model` on a free port until `stop`; it behaves as queued in `behaviours`, and then as `usual`."""

    def __init__(self, model: str = "policy", **card: Any) -> None:
        self.behaviours: deque[Behaviour] = deque()
        self.usual: Behaviour = says("hello")
        self.listing: Behaviour = answers(200, {"data": [{"id": model, **card}]})
        self.requests: list[Request] = []
        self.metrics = ""
        self.probes = 0
        self._port = 0
        self._listener: _Listener | None = None
        self.start()

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, after a restart on the same port."""
        self._listener = _Listener(("127.0.0.1", self._port), _Handler)
        self._listener.fake = self
        self._port = self._listener.server_port
        threading.Thread(target=self._listener.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown()
            listener.server_close()


Serve = Callable[..., FakeServer]
"""Starts a server with a queue of behaviours; see the fixture `serve`."""


@asynccontextmanager
async def opened(
    model: Model, *servers: FakeServer | str, **settings: Any
) -> AsyncIterator[tuple[ServerEngine, list[str]]]:
    """Open an engine; gives it and its notices."""
    urls = [server if isinstance(server, str) else server.url for server in servers]
    notices: list[str] = []
    chosen = EngineSettings(urls=urls, **{"patience": 5.0, "timeout": 5.0, **settings})
    engine = await ServerEngine.open(model, chosen, notices.append)
    try:
        yield engine, notices
    finally:
        await engine.close()


def answered(
    model: Model, *servers: FakeServer | str, sampling: Sampling = SIMPLE, **settings: Any
) -> tuple[list[Completion], ServerEngine, list[str]]:
    """Return the completions of the usual prompt, the closed engine, and its notices."""

    async def task() -> tuple[list[Completion], ServerEngine, list[str]]:
        async with opened(model, *servers, **settings) as (engine, notices):
            return await engine.generate(PROMPT, sampling), engine, notices

    return asyncio.run(task())


def run(task: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(task())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.01)


def closed_port() -> str:
    server = FakeServer()
    server.stop()
    return server.url
