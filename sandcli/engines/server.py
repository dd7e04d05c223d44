"""An engine on servers that speak the OpenAI API: vLLM, SGLang, llama.cpp and others.

It sends prompts to `/v1/completions` as token ids of our own tokenizer, so the model sees exactly the tokens that it
was trained on, whatever chat template the server has. It asks for n completions with n requests, each with its own
seed: this is reproducible, and works on servers that ignore `n`. Every sampling parameter is set, because a server may
take defaults from the model's generation_config.json.
"""

import asyncio
import random
import re
import time
from collections.abc import Callable, Hashable, Sequence

import msgspec

from sandcli.engine_settings import EngineSettings
from sandcli.engines.addresses import Address
from sandcli.engines.base import Completion, Model, Sampling, Usage
from sandcli.engines.configs import longest, stop_ids
from sandcli.engines.server_client import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Identity,
    NoConnection,
    Refusal,
    Server,
    Unusable,
    together,
)
from sandcli.engines.server_pool import ServerPool
from sandcli.engines.server_protocol import (
    MOST_LIKELY,
    Answer,
    Body,
    Failed,
    LessContext,
    Tokens,
    chances_of,
    completion_of,
)
from sandcli.engines.tokens import Prompts, load_tokenizer
from sandcli.errors import MachineryError, PrerequisiteError
from sandcli.messages import Message

_CAPACITY = 32
"""Requests sent to one server at a time, unless engine.batch is set."""

_SHARED = 2
"""Conversations with the same first messages, the system's and the instruction, go to the same server."""

_TOO_LONG = re.compile(r"context (?:length|size|window)(?:\D{1,20}(\d+))?", re.IGNORECASE)


class _Patience:
    """Limits the tries of one request to some seconds after its first failure, with growing pauses."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = 0.0
        self._pause = FIRST_PAUSE

    def left(self) -> float:
        """Return the seconds that remain; the first call starts the clock."""
        self._end = self._end or time.monotonic() + self._seconds
        return self._end - time.monotonic()

    async def rest(self) -> bool:
        """Pause before the next try; returns False if time is up."""
        left = self.left()
        if left <= 0:
            return False
        await asyncio.sleep(min(left, self._pause * random.uniform(0.5, 1)))  # spread the tries out
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return True


class _Tally:
    """Counts tokens for all models of a server pool."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Count from zero again."""
        self.prompt = self.cached = self.generated = 0
        self.told = False


class ServerEngine:
    """One model on one or more servers.

    A request that fails is tried again, on another server if there is one; a server that does not answer gets no
    requests until it is back. Conversations that share their beginning go to the same server, which has it cached.
    """

    def __init__(self, pool: ServerPool, tally: _Tally, model: Model, settings: EngineSettings) -> None:
        """Use `open`, or `on` for servers of your own."""
        self._pool = pool
        self._tally = tally
        self._model = Identity.of(model)
        self._settings = settings
        self._limit = longest(model.folder, settings.max_length, model.trust_code)
        tokenizer = load_tokenizer(model.folder, model.trust_code)
        self._prompts = Prompts(tokenizer, self._limit)
        self._stops = sorted(stop_ids(model.folder, tokenizer))
        _refuse_shorter(pool.context(self._model), self._limit)
        self.capacity = (settings.batch or _CAPACITY) * pool.size(self._model)
        self.cache_tokens = pool.cache_tokens(self._model)
        self._places = asyncio.Semaphore(self.capacity)

    @classmethod
    async def open(cls, model: Model, settings: EngineSettings, notice: Callable[[str], None]) -> "ServerEngine":
        """Use the servers of `engine.urls`; wait for them for `engine.patience` seconds. `notice` gets their health.

        Raises `PrerequisiteError` if none serves the model, `UsageError` for a malformed URL or a model without a chat
        template.
        """
        addresses = list(dict.fromkeys(map(Address.read, settings.urls)))
        if not addresses:
            raise PrerequisiteError(
                "engine.urls is empty",
                "set it in sand.toml, or SAND_ENGINE_URLS=http://127.0.0.1:8000 (commas between)",
            )
        return await cls.on([Server(address, settings.timeout) for address in addresses], model, settings, notice)

    @classmethod
    async def on(
        cls, servers: Sequence[Server], model: Model, settings: EngineSettings, notice: Callable[[str], None]
    ) -> "ServerEngine":
        """Use these servers, which the engine closes."""
        pool = ServerPool(servers, notice)
        try:
            await pool.open(Identity.of(model), settings.patience)
            return cls(pool, _Tally(), model, settings)
        except BaseException:
            await pool.close()
            raise

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`. Of chances, it knows those of the most likely tokens; others count as 0."""
        ids = self._prompts.fitting_ids(messages, sampling.max_tokens)
        conversation = tuple(messages[:_SHARED])
        if sampling.openings:
            first = self._prompts.first_tokens(messages, sampling.openings)
            sampling = sampling._replace(openings=tuple(self._prompts.text(token) for token in first))
        singles = [sampling._replace(n=1, seed=sampling.seed + number) for number in range(sampling.n)]
        return await together(self._complete(ids, single, conversation) for single in singles)

    async def _complete(self, ids: list[int], sampling: Sampling, conversation: Hashable) -> Completion:
        """Get one completion, from any server."""
        patience, last = _Patience(self._settings.patience), None
        while not self._pool.closed:
            await self._wait_until_served(patience)
            async with self._places:
                server = self._pool.choose(self._model, conversation, but=last)
                if server is None:  # the last one went away while this request waited for its place
                    continue
                try:
                    return await self._ask(server, ids, sampling)
                except Failed as error:
                    last, why = server, error
            if not await patience.rest():
                raise MachineryError("engine", f"{last.url} {why}")
        raise MachineryError("engine", "the engine was closed")

    async def _wait_until_served(self, patience: _Patience) -> None:
        if self._pool.serving(self._model):
            return
        try:
            await self._pool.wait_until_served(self._model, patience.left())
        except Unusable as error:
            raise MachineryError("engine", str(error)) from None

    async def _ask(self, server: Server, ids: list[int], sampling: Sampling) -> Completion:
        """Send one request to one server, and note how it did."""
        try:
            with self._pool.at_work(server):
                answer = await self._send(server, ids, sampling)
            completion = completion_of(answer, len(ids), sampling)
            chances = chances_of(answer, sampling.openings) if sampling.openings else ()
        except LessContext as error:
            raise self._less_context(server, error.limit) from None
        except Failed as error:
            self._pool.failed(server, Unusable(str(error)), error.connection)
            raise
        self._pool.succeeded(server)
        self._count(len(ids), answer.usage)
        if chances is None:
            raise PrerequisiteError(
                f"{server.url} does not tell the probabilities of tokens (logprobs)",
                "use a server that does, such as vLLM, or set retrieval.weight to 1",
            )
        return completion._replace(chances=chances)

    async def _send(self, server: Server, ids: list[int], sampling: Sampling) -> Answer:
        card = server.card(self._model)
        assert card is not None  # only servers with the model are chosen
        body = Body(
            model=card.id,
            prompt=ids,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            seed=sampling.seed,
            stop=sampling.stop or msgspec.UNSET,
            stop_token_ids=self._stops,
            logprobs=MOST_LIKELY if sampling.openings else msgspec.UNSET,
        )
        try:
            return msgspec.json.decode(await server.post("/completions", body), type=Answer)
        except Refusal as refusal:
            raise self._error(server, refusal) from None
        except TimeoutError:
            raise Failed(f"gave no answer within {self._settings.timeout:g} s") from None
        except NoConnection as error:
            raise Failed(f"does not answer ({error})", connection=True) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Failed(f"gave a malformed answer: {server.clean(str(error))}") from None

    def _error(self, server: Server, refusal: Refusal) -> Failed | LessContext | MachineryError:
        if refusal.is_temporary:
            return Failed(f"answers with {refusal}")
        if refusal.status in (401, 403, 404):  # it was restarted as something else; a probe will find out
            return Failed(f"answers with {refusal}", connection=True)
        too_long = _TOO_LONG.search(str(refusal))
        if refusal.status == 400 and too_long:
            return LessContext(int(too_long[1]) if too_long[1] else None)
        return MachineryError("engine", f"{server.url} refuses a request: {refusal}")

    def _less_context(self, server: Server, limit: int | None) -> MachineryError:
        """A prompt that does not fit the model is never sent, so this says nothing about the episode."""
        tokens = f"{limit} tokens" if limit else "fewer tokens"
        return MachineryError(
            "engine",
            f"{server.url} allows conversations of {tokens}, but the model allows {self._limit}: "
            f"start it with the model's context, or set engine.max_length = {limit or 'its limit'} in sand.toml",
        )

    def _count(self, prompt: int, tokens: Tokens) -> None:
        details = tokens.prompt_tokens_details
        self._tally.prompt += prompt
        if details is not None and details.cached_tokens is not None:
            self._tally.cached += details.cached_tokens
            self._tally.told = True  # vLLM says nothing if there were none, so one answer that tells is enough
        self._tally.generated += tokens.completion_tokens

    async def for_model(self, model: Model) -> "ServerEngine | None":
        """See `Engine.for_model`: a server may offer several models, as vLLM does with adapters."""
        identity = Identity.of(model)
        if (identity.folder, identity.fingerprint) == (self._model.folder, self._model.fingerprint):
            return self
        if not await self._pool.add(identity):
            return None
        return ServerEngine(self._pool, self._tally, model, self._settings)

    def usage(self) -> Usage:
        """See `Engine.usage`."""
        tally = self._tally
        untold = 0 if tally.told else tally.prompt
        return Usage(tally.prompt, tally.cached, tally.generated, self._pool.batch(), untold)

    def forget_usage(self) -> None:
        """Count from zero again."""
        self._tally.forget()
        self._pool.forget_usage()

    async def close(self) -> None:
        """Close the connections, for all models."""
        await self._pool.close()


def _refuse_shorter(offered: int | None, wanted: int) -> None:
    """Refuse servers with less context than the model, since episodes would end early because of them."""
    if offered is not None and offered < wanted:
        raise PrerequisiteError(
            f"the servers take conversations of {offered} tokens, and the model {wanted}",
            f"start them with --max-model-len {wanted}, or set engine.max_length = {offered} in sand.toml",
        )
