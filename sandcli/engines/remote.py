"""One OpenAI-compatible server: its address, what it serves, and what is wrong with it.

Whatever is said of a server names it by its URL without credentials, and secrets are cut out of its words.
"""

import asyncio
import errno
import os
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec
import openai

from sandcli.engines.base import Model
from sandcli.errors import UsageError

START = "start one: python -m vllm.entrypoints.openai.api_server --model {folder} --served-model-name {name}"
_NAME = "serve it under its name: --served-model-name {name} (vLLM, SGLang), --alias {name} (llama.cpp)"
_ADDRESS = "is the port right, and is /v1 where the API is?"
_KEY = "set OPENAI_API_KEY"

FIRST_PAUSE = 0.2
"""Seconds between a failure and the next try; they double from try to try."""

LONGEST_PAUSE = 5.0
"""Seconds between tries at which the doubling ends."""

_PROBE_SECONDS = 10.0
"""In this time a server that is well takes a connection and says what it serves, however busy it is."""

_WORDS = 300
"""Characters that are quoted of what a server says."""


class Unusable(Exception):
    """What is wrong with a server, said of it: `does not answer`. `final`: waiting does not mend it.

    `fix` may speak of the {folder} and the {name} of the model.
    """

    def __init__(self, why: str, fix: str = START, final: bool = False) -> None:
        super().__init__(why)
        self.fix = fix
        self.final = final


class Card(msgspec.Struct, frozen=True):
    """A model that a server offers: its name there, where it was loaded from, its base where it is an adapter.

    `max_model_len` is how many tokens a conversation may have.
    """

    id: str
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None

    def shows(self, model: Model) -> bool:
        """Whether this is the model, by its name or by its folder."""
        names = [name for name in (self.id, self.root) if name]
        return model.name in names or model.folder.resolve() in [Path(name).resolve() for name in names]


class _Listing(msgspec.Struct, frozen=True):
    data: list[Card]


class Address(NamedTuple):
    """Where a server is: its URL as it may be shown, without `/v1`, and the user and password for it."""

    url: str
    user: str = ""
    password: str = ""

    @classmethod
    def read(cls, given: str) -> "Address":
        """Take a URL apart, with or without `/v1` or a slash at its end. Raises `UsageError` where it is none."""
        try:
            parts = urlsplit(given.strip())
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
                raise ValueError
        except ValueError:
            shown = given.rpartition("@")[2]
            raise UsageError(f"engine.urls: {shown!r} is no URL", "give one such as http://127.0.0.1:8000/v1") from None
        path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
        url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"
        return cls(url, unquote(parts.username or ""), unquote(parts.password or ""))

    @property
    def headers(self) -> dict[str, str]:
        """What stands for the user and the password in a request."""
        if not self.user and not self.password:
            return {}
        return {"Authorization": f"Basic {b64encode(f'{self.user}:{self.password}'.encode()).decode()}"}


class Server:
    """One server and how it fares. `timeout` is in seconds, for one request; `working` counts those it is at work on.

    It takes requests while it is `up`. `trouble` is what was wrong with it last.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        key = os.environ.get("OPENAI_API_KEY")
        self.url = address.url
        secrets = (key, address.password, *(value.removeprefix("Basic ") for value in address.headers.values()))
        self._secrets = [secret for secret in secrets if secret]
        self._probe_seconds = min(_PROBE_SECONDS, timeout)
        self.client = openai.AsyncOpenAI(
            base_url=f"{address.url}/v1",
            api_key=key or "none",
            max_retries=0,
            timeout=openai.Timeout(timeout, connect=self._probe_seconds),
            default_headers=address.headers,
        )
        self.cards: list[Card] = []
        self._matches: dict[Model, Card | None] = {}  # every request asks, and folders are looked up on disk
        self.up = False
        self.working = self.failures = 0
        self.pause = FIRST_PAUSE
        self.trouble: Unusable | None = None

    def card(self, model: Model) -> Card | None:
        """As what the server offers the model; None where it does not."""
        if model not in self._matches:
            self._matches[model] = next((card for card in self.cards if card.shows(model)), None)
        return self._matches[model]

    def context(self, model: Model) -> int | None:
        """The tokens that it takes in one conversation with the model; None where it does not say."""
        card = self.card(model)
        limits = {offered.id: offered.max_model_len for offered in self.cards}
        return (card.max_model_len or limits.get(card.parent or "")) if card else None

    async def probe(self, models: Sequence[Model]) -> None:
        """Ask what it serves. Raises `Unusable` where it does not say so, or serves none of the models."""
        try:
            self.cards, self._matches = await self._offered(), {}
            if not any(map(self.card, models)):
                offered = ", ".join(card.id for card in self.cards) or "nothing"
                raise Unusable(f"serves {self.clean(offered)}, not {models[0].name}", _NAME, final=True)
        except Unusable as trouble:
            self.trouble = trouble
            raise
        self.trouble = None

    async def _offered(self) -> list[Card]:
        try:
            async with asyncio.timeout(self._probe_seconds):
                answer = await self.client.models.with_raw_response.list()
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        except (openai.APIConnectionError, TimeoutError) as error:
            raise Unusable(f"does not answer ({reason(error)})") from None
        try:
            return msgspec.json.decode(answer.content, type=_Listing).data
        except msgspec.DecodeError:
            kind = "HTML" if answer.content.lstrip().startswith(b"<") else "something else"
        raise Unusable(f"answers with {kind}, not with an OpenAI-compatible API", _ADDRESS, final=True)

    def _refusal(self, error: openai.APIStatusError) -> Unusable:
        if error.status_code in (401, 403):
            return Unusable(f"refuses the API key ({error.status_code})", _KEY, final=True)
        if error.status_code == 429 or error.status_code >= 500:
            return Unusable(f"answers with {self.quote(error)}")
        return Unusable(f"answers with {error.status_code}, not with an OpenAI-compatible API", _ADDRESS, final=True)

    def quote(self, error: openai.APIStatusError) -> str:
        """The status and the server's own words."""
        body = error.body
        said = body.get("message", body) if isinstance(body, dict) else body
        return f"{error.status_code} {self.clean(str(said or error.response.reason_phrase))}"

    def clean(self, words: str) -> str:
        """What a server said, in one line of bearable length and without secrets."""
        for secret in self._secrets:
            words = words.replace(secret, "***")
        words = " ".join(words.split())
        return words if len(words) <= _WORDS else words[:_WORDS] + "..."


def reason(error: BaseException) -> str:
    """What lies behind a failed request: libraries wrap it several times over."""
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return "no answer in time"
    while cause := error.__cause__ or error.__context__:
        error = cause
    if isinstance(error, OSError) and error.errno and error.errno in errno.errorcode:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
