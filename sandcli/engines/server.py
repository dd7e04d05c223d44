"""An engine on servers that speak the OpenAI API: vLLM, SGLang, llama.cpp and the like.

Prompts are sent as token ids of our own tokenizer to `/v1/completions`: the model sees token for token what it was
trained on, whatever chat template the server has. n completions are n requests with a seed each, which is
reproducible, and right on servers that do not know `n`. What a server would add to the sampling by itself (it may
follow the model's generation_config.json) is switched off, so that all engines draw from the same distribution.
"""

import asyncio
import random
import re
import time
from collections.abc import Callable, Hashable, Sequence

import msgspec
import openai

from sandcli.engines.adapters import weights_of
from sandcli.engines.base import Completion, Model, Sampling, Setup, Usage, stop_at
from sandcli.engines.remote import FIRST_PAUSE, LONGEST_PAUSE, Server, Unusable, reason
from sandcli.engines.server_pool import Fleet
from sandcli.engines.tokens import Prompts, context_length, load_tokenizer
from sandcli.errors import ContextOverflow, MachineryError, PrerequisiteError
from sandcli.messages import Message

_CAPACITY = 32
"""Requests that one server is given at a time, unless the setup says otherwise."""

_ALIKE = 2
"""Conversations that have so many first messages in common (the system's and the instruction) share a server."""

_TOO_LONG = re.compile(r"context (?:length|size|window)(?:\D{1,20}(\d+))?", re.IGNORECASE)


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    """A request for one completion; what would be a server's own default is set, so that all engines draw alike."""

    model: str
    prompt: list[int]
    max_tokens: int
    temperature: float
    seed: int
    stop: tuple[str, ...] | msgspec.UnsetType
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    repetition_penalty: float = 1.0


class _Choice(msgspec.Struct, frozen=True):
    text: str
    finish_reason: str | None = None


class _Cached(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class _Tokens(msgspec.Struct, frozen=True):
    completion_tokens: int
    prompt_tokens_details: _Cached | None = None


class _Answer(msgspec.Struct, frozen=True):
    choices: list[_Choice]
    usage: _Tokens


class _Failed(Exception):
    """A request that another try may help; `connection`: the server was not there, or went away."""

    def __init__(self, why: str, connection: bool = False) -> None:
        super().__init__(why)
        self.connection = connection


class _Patience:
    """How long one request is tried: for so many seconds after its first failure, with growing pauses."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = 0.0
        self._pause = FIRST_PAUSE

    def left(self) -> float:
        """The seconds that remain; the first call starts the clock."""
        self._end = self._end or time.monotonic() + self._seconds
        return self._end - time.monotonic()

    async def rest(self) -> bool:
        """Wait before the next try; False where there is to be none."""
        left = self.left()
        if left <= 0:
            return False
        await asyncio.sleep(min(left, self._pause * random.uniform(0.5, 1)))  # not all at the same moment
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return True


class _Tally:
    """Tokens counted for all models of a fleet."""

    prompt = cached = generated = 0


class ServerEngine:
    """One model on one or more servers. Made by `open`.

    Requests that fail are tried again, on another server where there is one; a server that is away gets none until
    it is back. Conversations that begin alike go to one server, so that their beginning stays in its cache.
    """

    def __init__(self, fleet: Fleet, tally: _Tally, model: Model, setup: Setup) -> None:
        """Use `open`."""
        self._fleet = fleet
        self._tally = tally
        self._model = model
        self._setup = setup
        self._limit = _limit(model, setup.max_length)
        self._prompts = Prompts(load_tokenizer(model.folder), self._limit)
        _refuse_shorter(fleet.context(model), self._limit)
        self.capacity = (setup.batch or _CAPACITY) * fleet.size(model)
        self._places = asyncio.Semaphore(self.capacity)

    @classmethod
    async def open(cls, model: Model, setup: Setup, notice: Callable[[str], None]) -> "ServerEngine":
        """Wait for the servers of `setup.urls`, up to `setup.patience` seconds; `notice` is told of their health.

        Raises `PrerequisiteError` where none serves the model, `UsageError` for a malformed URL or a model without a
        chat template.
        """
        fleet = Fleet(setup.urls, setup.timeout, notice)
        try:
            await fleet.open(model, setup.patience)
            return cls(fleet, _Tally(), model, setup)
        except BaseException:
            await fleet.close()
            raise

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`."""
        ids = self._prompts.fitting_ids(messages, sampling.max_tokens)
        conversation = tuple(messages[:_ALIKE])
        singles = [sampling._replace(n=1, seed=sampling.seed + number) for number in range(sampling.n)]
        tasks = [asyncio.create_task(self._complete(ids, single, conversation)) for single in singles]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()  # where one failed, nobody wants the others
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _complete(self, ids: list[int], sampling: Sampling, conversation: Hashable) -> Completion:
        """One completion, from whichever server gives it."""
        patience, last = _Patience(self._setup.patience), None
        while True:
            await self._some_server(patience)
            async with self._places:
                server = self._fleet.choose(self._model, conversation, but=last)
                if server is None:  # the last one left while this request waited for its place
                    continue
                try:
                    return await self._asked(server, ids, sampling)
                except _Failed as error:
                    last, why = server, error
            if not await patience.rest():
                raise MachineryError("engine", f"{last.url} {why}")

    async def _some_server(self, patience: _Patience) -> None:
        if self._fleet.that_serve(self._model):
            return
        try:
            await self._fleet.some(self._model, patience.left())
        except Unusable as error:
            raise MachineryError("engine", str(error)) from None

    async def _asked(self, server: Server, ids: list[int], sampling: Sampling) -> Completion:
        """One request to one server, and what it says about the server."""
        try:
            with self._fleet.at_work(server):
                answer = await self._sent(server, ids, sampling)
            completion = _completion(answer, len(ids), sampling)
        except _Failed as error:
            self._fleet.failed(server, Unusable(str(error)), error.connection)
            raise
        self._fleet.succeeded(server)
        self._count(len(ids), answer.usage)
        return completion

    async def _sent(self, server: Server, ids: list[int], sampling: Sampling) -> _Answer:
        card = server.card(self._model)
        assert card is not None  # it was chosen for it
        body = _Body(
            model=card.id,
            prompt=ids,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            seed=sampling.seed,
            stop=sampling.stop or msgspec.UNSET,
        )
        try:
            async with asyncio.timeout(self._setup.timeout):
                answer = await server.client.post(
                    "/completions", cast_to=openai.HttpxBinaryResponseContent, content=msgspec.json.encode(body)
                )
            return msgspec.json.decode(answer.content, type=_Answer)
        except openai.APIStatusError as error:
            raise self._refusal(server, error, len(ids) + sampling.max_tokens) from None
        except (openai.APITimeoutError, TimeoutError):
            raise _Failed(f"gave no answer within {self._setup.timeout:g} s") from None
        except openai.APIConnectionError as error:
            raise _Failed(f"does not answer ({reason(error)})", connection=True) from None
        except msgspec.DecodeError as error:
            raise _Failed(f"gave a malformed answer: {server.clean(str(error))}") from None

    def _refusal(self, server: Server, error: openai.APIStatusError, tokens: int) -> _Failed | MachineryError:
        said = server.quote(error)
        if error.status_code == 429 or error.status_code >= 500:
            return _Failed(f"answers with {said}")
        if error.status_code in (401, 403, 404):  # it was restarted as something else, which a probe will tell
            return _Failed(f"answers with {said}", connection=True)
        too_long = _TOO_LONG.search(said)
        if error.status_code == 400 and too_long:
            return ContextOverflow(tokens, int(too_long[1] or self._limit))
        return MachineryError("engine", f"{server.url} refuses a request: {said}")

    def _count(self, prompt: int, tokens: _Tokens) -> None:
        details = tokens.prompt_tokens_details
        self._tally.prompt += prompt
        self._tally.cached += (details and details.cached_tokens) or 0
        self._tally.generated += tokens.completion_tokens

    def beside(self, model: Model) -> "ServerEngine | None":
        """See `Engine.beside`: where one of the servers offers that model as well, as vLLM does with adapters."""
        if model.folder.resolve() == self._model.folder.resolve():
            return self
        if not self._fleet.that_serve(model):
            return None
        self._fleet.also(model)
        return ServerEngine(self._fleet, self._tally, model, self._setup)

    def usage(self) -> Usage:
        """See `Engine.usage`."""
        return Usage(self._tally.prompt, self._tally.cached, self._tally.generated, self._fleet.batch())

    async def close(self) -> None:
        """Let go of the servers, for all models."""
        await self._fleet.close()


def _completion(answer: _Answer, prompt: int, sampling: Sampling) -> Completion:
    """The text up to the first stop string, which not every server leaves out. Raises `_Failed` for no completion.

    Servers that run out of context shorten what they were asked for without a word: that is a `ContextOverflow`.
    """
    if not answer.choices:
        raise _Failed("gave an answer without a completion")
    choice, tokens = answer.choices[0], answer.usage.completion_tokens
    if choice.finish_reason not in ("stop", "length"):
        raise _Failed(f"broke a completion off ({choice.finish_reason})")
    cut = stop_at(choice.text, sampling.stop)
    if choice.finish_reason == "stop" or cut is not None:
        return Completion(choice.text[:cut], tokens, "stop")
    if tokens < sampling.max_tokens:
        raise ContextOverflow(prompt + sampling.max_tokens, prompt + tokens)
    return Completion(choice.text, tokens, "length")


def _limit(model: Model, bound: int) -> int:
    """The context of a model by its own settings, within a bound; an adapter has its base's."""
    from transformers import AutoConfig

    return context_length(AutoConfig.from_pretrained(weights_of(model.folder)), bound)


def _refuse_shorter(offered: int | None, wanted: int) -> None:
    """An episode that ends for want of a server's context would be taken for the agent's doing."""
    if offered is not None and offered < wanted:
        raise PrerequisiteError(
            f"the servers take conversations of {offered} tokens, and the model {wanted}",
            f"start them with --max-model-len {wanted}, or set engine.max_length = {offered} in sand.toml",
        )
