"""The embedded engine: Hugging Face transformers, batched, prefixes reused.

A thread of its own gathers the requests that are waiting. A prompt is computed from the longest prefix that is
known (see `kvcache`), logits of the last position only; then all sequences decode together, and those that are
finished leave the batch.
"""

import asyncio
import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from sandcli.engines.base import Completion, Sampling, Usage
from sandcli.engines.kvcache import KeyValues, PrefixCache
from sandcli.engines.loading import context_length, load_model, load_tokenizer, prompt_ids
from sandcli.errors import ContextOverflow, MachineryError
from sandcli.react import Message

_GATHER_SECONDS = 0.02
"""How long to wait for company once a request is there; a turn takes a hundred times as long."""


class _Request(NamedTuple):
    ids: list[int]
    sampling: Sampling
    answer: "asyncio.Future[list[Completion]]"
    loop: asyncio.AbstractEventLoop


class _Sequence:
    """One completion in the making: its tokens, cache and random generator."""

    def __init__(self, request: _Request, number: int) -> None:
        self.request = request
        self.number = number
        self.ids = list(request.ids)
        self.generated: list[int] = []
        self.text = ""
        self.finish: str | None = None
        self.generator = torch.Generator().manual_seed(request.sampling.seed + number)


class TransformersEngine:
    """One causal language model in this process, on the GPU where there is one."""

    def __init__(self, folder: Path, batch: int, cache_gib: float) -> None:
        """Load the model. `batch` sequences decode together; `cache_gib` bounds the memory of known prefixes."""
        self._tokenizer = load_tokenizer(folder)
        self._model = load_model(folder).eval()
        self._limit = context_length(self._model.config)
        self._stops = _stop_ids(self._model, self._tokenizer)
        self._batch = batch
        self._cache = PrefixCache(int(cache_gib * 2**30))
        self._usage = Usage(0, 0, 0)
        self._queue: queue.Queue[_Request | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`."""
        ids = prompt_ids(self._tokenizer, messages)
        if len(ids) + sampling.max_tokens > self._limit:
            raise ContextOverflow(len(ids) + sampling.max_tokens, self._limit)
        loop = asyncio.get_running_loop()
        request = _Request(ids, sampling, loop.create_future(), loop)
        self._queue.put(request)
        return await request.answer

    def usage(self) -> Usage:
        """See `Engine.usage`."""
        return self._usage

    def close(self) -> None:
        """End the thread and free the model."""
        self._queue.put(None)
        self._thread.join()
        del self._model, self._cache

    def _work(self) -> None:
        while True:
            requests = self._gather()
            if not requests:
                return
            try:
                answers = self._complete(requests)
            except Exception as error:  # whoever waits must hear of it; the next batch may be fine
                for request in requests:
                    _resolve(request, MachineryError("engine", f"{type(error).__name__}: {error}"))
                continue
            for request, answer in zip(requests, answers, strict=True):
                _resolve(request, answer)

    def _gather(self) -> list[_Request]:
        """The requests of the next batch; none when the engine closes."""
        first = self._queue.get()
        requests = []
        size = 0
        while first is not None:
            requests.append(first)
            size += first.sampling.n
            if size >= self._batch:
                break
            try:
                first = self._queue.get(timeout=_GATHER_SECONDS)
            except queue.Empty:
                break
        else:
            self._queue.put(None) if requests else None
        return requests

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _complete(self, requests: list[_Request]) -> list[list[Completion]]:
        sequences: list[_Sequence] = []
        caches: list[KeyValues] = []
        for request in requests:
            logits, values = self._prefill(request.ids)
            for number in range(request.sampling.n):
                sequence = _Sequence(request, number)
                self._extend(sequence, logits)
                sequences.append(sequence)
                caches.append(values)
        self._decode(sequences, caches)
        self._usage = self._usage._replace(generated=self._usage.generated + sum(len(s.generated) for s in sequences))
        return [[_completion(s) for s in sequences if s.request is request] for request in requests]

    def _prefill(self, ids: list[int]) -> tuple[Tensor, KeyValues]:
        """Logits after the prompt and its keys and values, computed only from where no known prefix reaches."""
        known = self._cache.find(ids[:-1])
        start = known.length if known else 0
        cache = _batched([known], [start]) if known else DynamicCache()
        output = self._model(
            input_ids=torch.tensor([ids[start:]], device=self._model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        values = _row(output.past_key_values, 0, 0)
        self._cache.add(ids, values)
        usage = self._usage
        self._usage = usage._replace(prompt=usage.prompt + len(ids), cached=usage.cached + start)
        return output.logits[0, -1].float(), values

    def _decode(self, sequences: list[_Sequence], caches: list[KeyValues]) -> None:
        """Generate until every sequence is finished; the finished leave when they are half of the batch."""
        active = [(s, c) for s, c in zip(sequences, caches, strict=True) if s.finish is None]
        while active:
            rows = [s for s, _ in active]
            lengths = [c.length for _, c in active]
            cache = _batched([c for _, c in active], lengths)
            width = max(lengths)
            while sum(s.finish is None for s in rows) * 2 > len(rows):
                self._step(rows, lengths, cache)
            # The last token was never fed to the model; finished rows were fed more than their own.
            kept = [(s, _row(cache, i, width - lengths[i]).first(len(s.ids) - 1)) for i, s in enumerate(rows)]
            for sequence, values in kept:
                if sequence.finish is not None and sequence.request.sampling.n == 1:
                    self._cache.add(sequence.ids, values)  # an episode goes on from here
            active = [(s, values) for s, values in kept if s.finish is None]

    def _step(self, rows: list[_Sequence], lengths: list[int], cache: DynamicCache) -> None:
        """One token for every row; rows that are finished keep a place and are ignored."""
        device = self._model.device
        width = cache.get_seq_length() + 1
        grown = width - max(lengths)
        mask = torch.zeros(len(rows), width, dtype=torch.long, device=device)
        for row, length in enumerate(lengths):
            mask[row, max(lengths) - length :] = 1
        positions = torch.tensor([[length + grown - 1] for length in lengths], device=device)
        output = self._model(
            input_ids=torch.tensor([[s.ids[-1]] for s in rows], device=device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        for sequence, logits in zip(rows, output.logits[:, -1].float(), strict=True):
            if sequence.finish is None:
                self._extend(sequence, logits)

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


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator))


def _batched(values: Sequence[KeyValues], lengths: Sequence[int]) -> DynamicCache:
    """Several sequences as one cache, padded on the left to the longest."""
    width = max(lengths)
    cache = DynamicCache()
    for layer in range(len(values[0].layers)):
        keys, vals = (torch.stack([_padded(v.layers[layer][part], width) for v in values]) for part in (0, 1))
        cache.update(keys, vals, layer)
    return cache


def _padded(tensor: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(tensor, (0, 0, width - tensor.shape[1], 0))


def _row(cache: DynamicCache, row: int, padding: int) -> KeyValues:
    """One sequence of a cache, copied so that the batch can be freed."""
    return KeyValues(
        [(layer.keys[row, :, padding:].clone(), layer.values[row, :, padding:].clone()) for layer in cache.layers]
    )


def _completion(sequence: _Sequence) -> Completion:
    finish: Any = sequence.finish
    return Completion(sequence.text, len(sequence.generated), finish)


def _stop_ids(model: Any, tokenizer: Any) -> set[int]:
    """Every token that ends a turn: the tokenizer's, and those that the model was published with."""
    published = model.generation_config.eos_token_id
    published = published if isinstance(published, list) else [published]
    return {token for token in [tokenizer.eos_token_id, *published] if token is not None}


def _resolve(request: _Request, answer: list[Completion] | MachineryError) -> None:
    def deliver() -> None:
        if request.answer.done():
            return
        if isinstance(answer, MachineryError):
            request.answer.set_exception(answer)
        else:
            request.answer.set_result(answer)

    if not request.loop.is_closed():
        request.loop.call_soon_threadsafe(deliver)
