"""One OpenAI-compatible server: its address, the models it serves, and what is wrong with it.

Messages name a server by its URL without credentials, and secrets are removed from what a server says.
"""

import asyncio
import contextlib
import errno
import os
import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from sandcli.engines.addresses import Address, key_of_environment
from sandcli.engines.base import Model
from sandcli.models import fingerprint

T = TypeVar("T")

START = "start one: python -m vllm.entrypoints.openai.api_server --model {folder} --served-model-name {name}"
_NAME = "serve it under its name: --served-model-name {name} (vLLM, SGLang), --alias {name} (llama.cpp)"
_ADDRESS = "is the port right, and is /v1 where the API is?"
_KEY = "set OPENAI_API_KEY"

FIRST_PAUSE = 0.2
"""Seconds between a failure and the next try; the pause doubles with every try."""

LONGEST_PAUSE = 5.0
"""The longest pause between two tries, in seconds."""

_PROBE_SECONDS = 10.0
"""A healthy server accepts a connection and lists its models within this time, however busy it is."""

_IDLE_SECONDS = 4.0
"""An idle connection is closed after this time, before the server closes it: uvicorn does so after 5 seconds."""

_QUOTED = 300
"""How many characters of a server's message are quoted."""

_KEY_REFUSED = (401, 403)
"""HTTP statuses that mean that the key is missing or wrong."""

_CACHE = re.compile(rb"^vllm:cache_config_info\{(.*)\}", re.MULTILINE)
_LABEL = re.compile(rb'(\w+)="([^"]*)"')

_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


class Unusable(Exception):
    """What is wrong with a server, as a predicate: `does not answer`. `final`: waiting will not help.

    `fix` may contain the placeholders {folder} and {name} of the model.
    """

    def __init__(self, why: str, fix: str = START, final: bool = False) -> None:
        super().__init__(why)
        self.fix = fix
        self.final = final


class NoConnection(Exception):
    """The server could not be reached, or closed the connection too early."""


class Refusal(Exception):
    """The server answered with an error: the HTTP status, and its message in quotable form."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status = status

    @property
    def is_temporary(self) -> bool:
        """Whether the server may answer later: it is overloaded, or failed."""
        return self.status == 429 or self.status >= 500


class Identity(NamedTuple):
    """What identifies a model on a server: its folder, its name in the settings, and the hash of its content."""

    folder: Path
    name: str
    fingerprint: str

    @classmethod
    def of(cls, model: Model) -> "Identity":
        """Identify a model by what its folder holds now."""
        return cls(model.folder.resolve(), model.name, fingerprint(model.folder))


class Card(msgspec.Struct, frozen=True):
    """A model that a server offers: its name there, the path it was loaded from, and an adapter's base.

    `max_model_len` is the longest conversation in tokens.
    """

    id: str
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None

    def matches(self, model: Identity) -> bool:
        """Whether this is the model.

        A fingerprint decides alone, since the folder may have new content; other servers are matched by name or folder.
        """
        if _FINGERPRINT.fullmatch(self.id):
            return self.id == model.fingerprint
        names = [name for name in (self.id, self.root) if name]
        return model.name in names or model.folder in [Path(name).resolve() for name in names]


class _Listing(msgspec.Struct, frozen=True):
    data: list[Card]


class Server:
    """A server and its health.

    It gets requests while it is `up`; `trouble` is what was wrong with it last. `working` counts the requests that it
    is working on. `timeout` is in seconds, for one request. `ended` says why the server's process ended, or nothing.
    `cache_tokens` is the size of its prefix cache, if it says.
    """

    def __init__(
        self, address: Address, timeout: float, key: str | None = None, ended: Callable[[], str] = lambda: ""
    ) -> None:
        key = key or key_of_environment()
        self.url = address.url
        self.ended = ended
        authorization = address.authorization(key or "none")
        secrets = [key, address.password, authorization.partition(" ")[2]]
        known = {secret for secret in secrets if secret and secret != "none"}
        self._secrets = sorted(
            known | {quote(secret, "") for secret in known}, key=len, reverse=True
        )  # one may contain another
        self._timeout = aiohttp.ClientTimeout(timeout, sock_connect=min(_PROBE_SECONDS, timeout))
        self._probe_timeout = aiohttp.ClientTimeout(min(_PROBE_SECONDS, timeout))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
            headers={"Authorization": authorization, "Content-Type": "application/json"},
            proxy=address.proxy,
        )
        self._cards: list[Card] = []
        self._matches: dict[Identity, Card | None] = {}  # every request asks for its card
        self.up = False
        self.working = self.failures = 0
        self.pause = FIRST_PAUSE
        self.trouble: Unusable | None = None
        self.cache_tokens: int | None = None

    def card(self, model: Identity) -> Card | None:
        """What the server offers the model as; None if it does not."""
        if model not in self._matches:
            named = [card for card in self._cards if card.id == model.fingerprint]
            matching = (card for card in self._cards if card.matches(model))
            self._matches[model] = next(iter(named), None) or next(matching, None)
        return self._matches[model]

    def context(self, model: Identity) -> int | None:
        """The longest conversation with the model, in tokens; None if the server does not say."""
        card = self.card(model)
        limits = {offered.id: offered.max_model_len for offered in self._cards}
        return (card.max_model_len or limits.get(card.parent or "")) if card else None

    @property
    def lists_models(self) -> bool:
        """Whether it has said what it serves."""
        return bool(self._cards)

    async def probe(self, models: Sequence[Identity]) -> None:
        """Ask which models it serves. Raises `Unusable` if it does not answer, or serves none of `models`."""
        try:
            if why := self.ended():
                raise Unusable(why, final=True)
            self._cards, self._matches = await self._offered(), {}
            if not any(map(self.card, models)):
                offered = ", ".join(card.id for card in self._cards) or "nothing"
                raise Unusable(f"serves {self.clean(offered)}, not {models[0].name}", _NAME, final=True)
        except Unusable as trouble:
            self.trouble = trouble
            raise
        self.trouble = None
        self.cache_tokens = await self._cache_tokens()

    async def _cache_tokens(self) -> int | None:
        """The tokens that the server's cache holds; only vLLM says."""
        with contextlib.suppress(Refusal, NoConnection, TimeoutError):
            told = _CACHE.search(await self._sent("GET", "/metrics", None, self._probe_timeout))
            if told:
                labels = dict(_LABEL.findall(told[1]))
                with contextlib.suppress(KeyError, ValueError):  # it may be told before it is known
                    return int(labels[b"block_size"]) * int(labels[b"num_gpu_blocks"]) or None
        return None

    async def _offered(self) -> list[Card]:
        try:
            content = await self._sent("GET", "/v1/models", None, self._probe_timeout)
        except Refusal as refusal:
            raise _unusable(refusal) from None
        except (NoConnection, TimeoutError) as error:
            raise Unusable(f"does not answer ({reason(error)})") from None
        try:
            return msgspec.json.decode(content, type=_Listing).data
        except (msgspec.DecodeError, UnicodeDecodeError):
            kind = "HTML" if content.lstrip().startswith(b"<") else "something else"
        raise Unusable(f"answers with {kind}, not with an OpenAI-compatible API", _ADDRESS, final=True)

    async def post(self, path: str, body: msgspec.Struct) -> bytes:
        """Send a request to `/v1` and return the answer.

        Raises `TimeoutError`, `NoConnection`, or `Refusal` if the server answers with an error.
        """
        return await self._sent("POST", f"/v1{path}", msgspec.json.encode(body), self._timeout)

    async def _sent(self, method: str, path: str, body: bytes | None, timeout: aiohttp.ClientTimeout) -> bytes:
        try:
            async with self._session.request(method, self.url + path, data=body, timeout=timeout) as answer:
                content = await answer.read()
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise NoConnection(self.clean(reason(error))) from error
        if answer.status in _KEY_REFUSED:  # many servers repeat a part of the key
            raise Refusal(answer.status, "the API key is refused")
        if answer.status >= 400:
            raise Refusal(answer.status, self.clean(_message(content) or answer.reason or ""))
        return content

    def clean(self, words: str) -> str:
        """Put what a server said on one short line, without secrets."""
        for secret in self._secrets:
            words = words.replace(secret, "***")
        words = " ".join(words.split())
        return words if len(words) <= _QUOTED else words[:_QUOTED] + "..."

    async def close(self) -> None:
        """Close its connections."""
        await self._session.close()


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Wait for all. If one fails, or the caller is cancelled, the others are cancelled first: they are useless."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _unusable(refusal: Refusal) -> Unusable:
    if refusal.status in _KEY_REFUSED:
        return Unusable(f"refuses the API key ({refusal.status})", _KEY, final=True)
    if refusal.is_temporary:
        return Unusable(f"answers with {refusal}")
    return Unusable(f"answers with {refusal.status}, not with an OpenAI-compatible API", _ADDRESS, final=True)


def _message(content: bytes) -> str:
    """The message in an error: servers put it into JSON in several ways, or send plain text."""
    try:
        said: Any = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return content.decode(errors="replace")
    for key in ("error", "message"):
        said = said.get(key, said) if isinstance(said, dict) else said
    return str(said)


def reason(error: BaseException) -> str:
    """Why a request failed; libraries wrap the cause several times."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    while cause := error.__cause__ or error.__context__:
        error = cause
    if isinstance(error, OSError) and error.errno and error.errno in errno.errorcode:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
