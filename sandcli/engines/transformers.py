"""The embedded engine: Hugging Face transformers with continuous batching and cached prefixes.

A thread advances all sequences together, step by step: those that decode by one token, new ones by a piece of their
prompt. Sequences join and leave at every step, and nothing is padded (see `ragged`). A prompt is computed from the
longest cached prefix (see `kvcache`).
"""

import asyncio
import contextlib
import gc
import queue
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sandcli.engine_settings import EngineSettings
from sandcli.engines.base import Completion, Model, Sampling, Usage, stop_at, without_thought
from sandcli.engines.configs import context_length, stop_ids
from sandcli.engines.kvcache import PrefixCache, common_prefix
from sandcli.engines.loading import load_model
from sandcli.engines.ragged import KeyValues, Ragged
from sandcli.engines.tokens import Prompts, load_tokenizer
from sandcli.errors import MachineryError
from sandcli.messages import Message
from sandcli.models import fingerprint

_BATCH = 16
"""Sequences decoded together unless engine.batch is set; on two cores, more gain little."""

_PIECE = 256
"""Prompt tokens computed in one step: enough to use the machine, few enough not to delay sequences that decode."""

_SHARED = 32
"""A prompt waits for a running one if that shares this many tokens more with it than any cached prefix does."""


class _Request:
    """A prompt, and the future of its completions."""

    def __init__(self, ids: list[int], sampling: Sampling, openings: Sequence[int]) -> None:
        self.ids = ids
        self.sampling = sampling
        self.openings = list(openings)
        self.chances: tuple[float, ...] = ()
        self.tokens = torch.tensor(ids)
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[list[Completion]] = self.loop.create_future()
        self.sequences: list[_Sequence] = []

    def resolve(self, outcome: list[Completion] | MachineryError) -> None:
        """Deliver the outcome from the engine's thread, unless the request was cancelled."""

        def deliver() -> None:
            if self.answer.done():
                return
            if isinstance(outcome, MachineryError):
                self.answer.set_exception(outcome)
            else:
                self.answer.set_result(outcome)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self.loop.call_soon_threadsafe(deliver)


class _Sequence:
    """A completion in progress. `values` covers the part of `ids` that the model has computed."""

    def __init__(self, request: _Request, number: int, values: KeyValues) -> None:
        self.request = request
        self.values = values
        self.ids = list(request.ids)
        self.generated: list[int] = []
        self.text = ""
        self.finish: Any = None
        self.generator = torch.Generator().manual_seed(request.sampling.seed + number)

    def completion(self) -> Completion:
        """Return it as the answer to the request."""
        text, chances = without_thought(self.text), self.request.chances
        return Completion(text, len(self.generated), self.finish, len(self.ids), chances)

    @property
    def missing(self) -> int:
        """The number of tokens to compute before the next one can be drawn."""
        return len(self.ids) - self.values.length


class TransformersEngine:
    """A causal language model in this process, on the GPU if there is one."""

    def __init__(self, model: Model, settings: EngineSettings) -> None:
        """Load the model. Raises `PrerequisiteError` if it does not fit into memory, or needs other attention."""
        self.capacity = settings.batch or _BATCH
        self._identity = model.folder.resolve(), fingerprint(model.folder)
        self._tokenizer = load_tokenizer(model.folder, model.trust_code)
        self._stops = stop_ids(model.folder, self._tokenizer)
        loaded = load_model(model.folder, settings.dtype, trust_code=model.trust_code).eval()
        self._model = Ragged(loaded)
        self._prompts = Prompts(self._tokenizer, context_length(loaded.config, settings.max_length))
        self._cache = PrefixCache(int(settings.cache_gib * 2**30))
        self.cache_tokens = int(settings.cache_gib * 2**30) // self._model.empty().bytes_per_token or None
        self._usage, self._steps, self._computed = Usage(), 0, 0
        self._arriving: queue.Queue[_Request | None] = queue.Queue()
        self._waiting: list[_Request] = []
        self._running: list[_Sequence] = []
        self._closing = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`."""
        ids = self._prompts.fitting_ids(messages, sampling.max_tokens)
        if self._closing:
            raise MachineryError("engine", "the engine was closed")
        openings = self._prompts.first_tokens(messages, sampling.openings) if sampling.openings else ()
        request = _Request(ids, sampling, openings)
        self._arriving.put(request)
        return await request.answer

    async def for_model(self, model: Model) -> "TransformersEngine | None":
        """See `Engine.for_model`: an adapter is merged into its base, so each model is loaded on its own."""
        same = (model.folder.resolve(), fingerprint(model.folder)) == self._identity
        return self if same else None

    def usage(self) -> Usage:
        """See `Engine.usage`."""
        return self._usage._replace(batch=self._computed / self._steps if self._steps else 0.0)

    async def close(self) -> None:
        """End the thread and free the model."""
        self._closing = True
        self._arriving.put(None)
        await asyncio.to_thread(self._thread.join)
        del self._model, self._cache
        gc.collect()
        torch.cuda.empty_cache()  # otherwise the next model would find no free memory

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _work(self) -> None:
        while not self._closing:
            try:
                self._admit()
                if self._running:
                    self._step()
            except Exception as error:  # requests would wait forever
                self._give_up(f"{type(error).__name__}: {error}")
        self._give_up("the engine was closed")

    def _give_up(self, why: str) -> None:
        """Fail all requests."""
        for request in {*self._waiting, *(row.request for row in self._running)}:
            request.resolve(MachineryError("engine", why))
        self._waiting, self._running = [], []

    def _admit(self) -> None:
        """Let requests join if there is room; an idle engine waits for the first."""
        idle = not (self._running or self._waiting)
        while idle or not self._arriving.empty():
            request, idle = self._arriving.get(), False
            if request is not None:
                self._waiting.append(request)
        self._waiting = [request for request in self._waiting if not request.answer.cancelled()]
        room = self.capacity - len(self._running)
        room -= sum(row.request.sampling.n - 1 for row in self._running if not row.request.sequences)
        for request in list(self._waiting):
            if room <= 0:
                break
            first = self._begun(request)
            if first is not None:
                self._waiting.remove(request)
                self._running.append(first)
                room -= request.sampling.n

    def _begun(self, request: _Request) -> _Sequence | None:
        """Return a request's first sequence, from the cached prefix; None if a running prompt will soon offer more."""
        values, known = self._cache.find(request.ids[:-1]) or (self._model.empty(), 0)
        for row in self._running:
            if not row.generated and common_prefix(row.request.tokens, request.tokens) > known + _SHARED:
                return None
        self._count(prompt=len(request.ids), cached=known)
        return _Sequence(request, 0, values.copy(known))

    def _step(self) -> None:
        """Compute the next tokens of every sequence, within the limit on prompt tokens, then draw."""
        budget, rows, parts = _PIECE, [], []
        for row in self._running:
            count = min(row.missing, budget) if row.missing > 1 else 1
            if not count:
                continue
            budget -= count if row.missing > 1 else 0
            start = row.values.length
            rows.append(row)
            parts.append((row.values, row.ids[start : start + count]))
        logits, values = self._model.forward(parts)
        self._steps, self._computed = self._steps + 1, self._computed + len(rows)
        for row, grown, last in zip(rows, values, logits, strict=True):
            row.values = grown
            if row.missing == 0:
                self._draw(row, last)
        self._retire()

    def _draw(self, row: _Sequence, logits: Tensor) -> None:
        """Draw the next token; after a prompt, that of every completion."""
        if row.generated:
            self._extend(row, logits)
            return
        request = row.request
        self._cache.add(request.ids, row.values)
        if request.openings:
            request.chances = tuple(torch.softmax(logits.double(), -1)[request.openings].tolist())
        others = [_Sequence(request, n, row.values.copy(len(request.ids))) for n in range(1, request.sampling.n)]
        request.sequences = [row, *others]
        self._running += others
        self._count(prompt=len(others) * len(request.ids), cached=len(others) * len(request.ids))
        for sequence in request.sequences:
            self._extend(sequence, logits)

    def _extend(self, sequence: _Sequence, logits: Tensor) -> None:
        """Draw the next token, and check whether the completion ends with it."""
        sampling = sequence.request.sampling
        token = _sample(logits, sampling.temperature, sequence.generator)
        sequence.ids.append(token)
        sequence.generated.append(token)
        if token in self._stops:
            sequence.finish = "stop"
            return
        sequence.text = self._tokenizer.decode(sequence.generated, skip_special_tokens=True)
        cut = stop_at(sequence.text, sampling.stop)
        if cut is not None:
            sequence.text = sequence.text[:cut]
            sequence.finish = "stop"
        elif len(sequence.generated) >= sampling.max_tokens:
            sequence.finish = "length"

    def _retire(self) -> None:
        """Answer the requests that are complete, and drop those that were cancelled."""
        for row in [row for row in self._running if row.finish or row.request.answer.cancelled()]:
            self._running.remove(row)
            request = row.request
            self._count(generated=len(row.generated))
            values, row.values = row.values, self._model.empty()  # others of its request may run for long
            if request.sequences and all(sequence.finish for sequence in request.sequences):
                request.resolve([sequence.completion() for sequence in request.sequences])
            if request.sampling.n == 1:
                self._cache.add(row.ids, values)  # the episode continues from here

    def _count(self, prompt: int = 0, cached: int = 0, generated: int = 0) -> None:
        before = self._usage
        self._usage = Usage(before.prompt + prompt, before.cached + cached, before.generated + generated)


def _sample(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    # Inverts the distribution function: torch.multinomial takes 2 ms for a vocabulary of 49,152, this a tenth.
    heights = torch.softmax(logits.double() / temperature, -1).cumsum(-1)
    drawn = torch.rand(1, dtype=torch.double, generator=generator) * heights[-1]
    return min(int(torch.searchsorted(heights, drawn)), len(heights) - 1)
