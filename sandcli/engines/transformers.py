"""The embedded engine: Hugging Face transformers with continuous batching and reused prefixes.

A thread of its own decodes all sequences at hand together, one token a step. Every few steps those that are
finished leave and waiting requests join. A joining prompt is computed from the longest prefix that is known (see
`kvcache`), logits of the last position only.
"""

import asyncio
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from sandcli.engines.attention import GROUPED
from sandcli.engines.base import Completion, Sampling, Usage
from sandcli.engines.kvcache import KeyValues, PrefixCache, growing_cache
from sandcli.engines.loading import context_length, load_model, load_tokenizer, prompt_ids
from sandcli.errors import ContextOverflow, MachineryError
from sandcli.react import Message

_STEPS_BETWEEN_CHANGES = 4
"""Changing the batch copies all of its keys and values, which costs about one step."""

_GATHER_SECONDS = 0.02
"""How long an idle engine waits for company once a request is there; a turn takes a hundred times as long."""


@dataclass
class _Request:
    """A prompt and whoever waits for its completions."""

    ids: list[int]
    sampling: Sampling
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[list[Completion]]"
    sequences: "list[_Sequence]" = field(default_factory=list)

    def resolve(self, outcome: list[Completion] | MachineryError) -> None:
        """Answer from the engine's thread; whoever went away in the meantime is passed over."""

        def deliver() -> None:
            if self.answer.done():
                return
            if isinstance(outcome, MachineryError):
                self.answer.set_exception(outcome)
            else:
                self.answer.set_result(outcome)

        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(deliver)


class _Sequence:
    """One completion in the making. `values` covers `ids` but the last token, which was not fed to the model yet."""

    def __init__(self, request: _Request, number: int, values: KeyValues) -> None:
        self.request = request
        self.values = values
        self.ids = list(request.ids)
        self.generated: list[int] = []
        self.text = ""
        self.finish: Any = None
        self.generator = torch.Generator().manual_seed(request.sampling.seed + number)


class TransformersEngine:
    """One causal language model in this process, on the GPU where there is one."""

    def __init__(self, folder: Path, batch: int, cache_gib: float) -> None:
        """Load the model. `batch` sequences decode together; `cache_gib` bounds the memory of known prefixes."""
        self._tokenizer = load_tokenizer(folder)
        self._model = load_model(folder).eval()
        self._model.set_attn_implementation(GROUPED)
        self._limit = context_length(self._model.config)
        self._stops = _stop_ids(self._model, self._tokenizer)
        self._batch = batch
        self._cache = PrefixCache(int(cache_gib * 2**30))
        self._usage = Usage(0, 0, 0)
        self._queue: queue.Queue[_Request | None] = queue.Queue()
        self._closing = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`."""
        ids = prompt_ids(self._tokenizer, messages)
        if len(ids) + sampling.max_tokens > self._limit:
            raise ContextOverflow(len(ids) + sampling.max_tokens, self._limit)
        loop = asyncio.get_running_loop()
        request = _Request(ids, sampling, loop, loop.create_future())
        self._queue.put(request)
        return await request.answer

    def usage(self) -> Usage:
        """See `Engine.usage`."""
        return self._usage

    def close(self) -> None:
        """End the thread and free the model."""
        self._closing = True
        self._queue.put(None)
        self._thread.join()
        del self._model, self._cache

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _work(self) -> None:
        rows: list[_Sequence] = []
        while True:
            joining = self._waiting(len(rows))
            if self._closing:
                return
            try:
                for request in joining:
                    rows += self._begin(request)
                rows = self._advance(rows)
            except Exception as error:  # whoever waits must hear of it, or would wait for ever
                for request in (*joining, *(row.request for row in rows)):
                    request.resolve(MachineryError("engine", f"{type(error).__name__}: {error}"))
                rows = []

    def _waiting(self, rows: int) -> list[_Request]:
        """The requests that join now: as many as fit beside `rows` sequences. An idle engine waits for the first."""
        joining: list[_Request] = []
        while rows < self._batch:
            try:
                request = self._queue.get(timeout=_GATHER_SECONDS) if rows else self._queue.get()
            except queue.Empty:
                break
            if request is None:
                break
            joining.append(request)
            rows += request.sampling.n
        return joining

    def _begin(self, request: _Request) -> list[_Sequence]:
        """Compute the prompt and draw the first token of each completion; those that go on are given back."""
        logits, values = self._prefill(request.ids)
        request.sequences = [_Sequence(request, number, values) for number in range(request.sampling.n)]
        for sequence in request.sequences:
            self._extend(sequence, logits)
        return self._retired(request.sequences)

    def _prefill(self, ids: list[int]) -> tuple[Tensor, KeyValues]:
        """Logits after the prompt and its keys and values, computed only from where no known prefix reaches."""
        known = self._cache.find(ids[:-1])
        start = known.length if known else 0
        output = self._model(
            input_ids=torch.tensor([ids[start:]], device=self._model.device),
            past_key_values=_batched([known]) if known else growing_cache(),
            use_cache=True,
            logits_to_keep=1,
        )
        values = _row(output.past_key_values, 0, 0)
        self._cache.add(ids, values)
        self._count(prompt=len(ids), cached=start)
        return output.logits[0, -1].float(), values

    def _advance(self, rows: list[_Sequence]) -> list[_Sequence]:
        """Decode until the batch should change; the sequences that go on are given back."""
        if not rows:
            return []
        lengths = [row.values.length for row in rows]
        cache, steps = _batched([row.values for row in rows]), 0
        while not self._should_change(rows, steps):
            self._step(rows, lengths, cache)
            steps += 1
        for number, row in enumerate(rows):
            # A finished row keeps its place, and what it was fed there is not its own.
            row.values = _row(cache, number, max(lengths) - lengths[number]).first(len(row.ids) - 1)
        return self._retired(rows)

    def _should_change(self, rows: list[_Sequence], steps: int) -> bool:
        finished = sum(row.finish is not None for row in rows)
        if finished == len(rows) or self._closing:
            return True
        room = finished > 0 or len(rows) < self._batch
        useful = finished * 2 >= len(rows) or (room and not self._queue.empty())
        return useful and steps >= _STEPS_BETWEEN_CHANGES

    def _step(self, rows: list[_Sequence], lengths: list[int], cache: Cache) -> None:
        """One token for every row; `lengths` are the rows' own at the start, before which they are padded."""
        device, widest = self._model.device, max(lengths)
        width = cache.get_seq_length() + 1
        mask = torch.zeros(len(rows), width, dtype=torch.long, device=device)
        for number, length in enumerate(lengths):
            mask[number, widest - length :] = 1
        output = self._model(
            input_ids=torch.tensor([[row.ids[-1]] for row in rows], device=device),
            attention_mask=mask,
            position_ids=torch.tensor([[length + width - widest - 1] for length in lengths], device=device),
            past_key_values=cache,
            use_cache=True,
        )
        for row, logits in zip(rows, output.logits[:, -1].float().cpu(), strict=True):
            if row.finish is None:
                self._extend(row, logits)

    def _extend(self, sequence: _Sequence, logits: Tensor) -> None:
        """Draw the next token and see whether the completion ends with it."""
        sampling = sequence.request.sampling
        token = _draw(logits.cpu(), sampling.temperature, sequence.generator)
        sequence.ids.append(token)
        sequence.generated.append(token)
        if token in self._stops:
            sequence.finish = "stop"
            return
        sequence.text = self._tokenizer.decode(sequence.generated, skip_special_tokens=True)
        cut = min((at for at in map(sequence.text.find, sampling.stop) if at >= 0), default=-1)
        if cut >= 0:
            sequence.text = sequence.text[:cut]
            sequence.finish = "stop"
        elif len(sequence.generated) >= sampling.max_tokens:
            sequence.finish = "length"

    def _retired(self, rows: Sequence[_Sequence]) -> list[_Sequence]:
        """Answer the requests that are complete, and give back the rows that go on."""
        for row in rows:
            if row.finish is None:
                continue
            self._count(generated=len(row.generated))
            if row.request.sampling.n == 1:
                self._cache.add(row.ids, row.values)  # an episode goes on from here
            if all(sequence.finish for sequence in row.request.sequences):
                row.request.resolve([Completion(s.text, len(s.generated), s.finish) for s in row.request.sequences])
        return [row for row in rows if row.finish is None]

    def _count(self, prompt: int = 0, cached: int = 0, generated: int = 0) -> None:
        before = self._usage
        self._usage = Usage(before.prompt + prompt, before.cached + cached, before.generated + generated)


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator))


def _batched(values: Sequence[KeyValues]) -> Cache:
    """Several sequences as one cache, padded on the left to the longest."""
    width = max(v.length for v in values)
    cache = growing_cache()
    for layer in range(len(values[0].layers)):
        keys, vals = (torch.stack([_padded(v.layers[layer][part], width) for v in values]) for part in (0, 1))
        cache.update(keys, vals, layer)
    return cache


def _padded(tensor: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(tensor, (0, 0, width - tensor.shape[1], 0))


def _row(cache: Cache, row: int, padding: int) -> KeyValues:
    """One sequence of a cache, copied so that the batch can be freed."""
    return KeyValues(
        [(layer.keys[row, :, padding:].clone(), layer.values[row, :, padding:].clone()) for layer in cache.layers]
    )


def _stop_ids(model: Any, tokenizer: Any) -> set[int]:
    """Every token that ends a turn: the tokenizer's, and those that the model was published with."""
    published = model.generation_config.eos_token_id
    published = published if isinstance(published, list) else [published]
    return {token for token in [tokenizer.eos_token_id, *published] if token is not None}
