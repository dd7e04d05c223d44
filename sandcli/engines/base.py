"""What a language model is to the rest of the program."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from sandcli.messages import Message


class Sampling(NamedTuple):
    """How to draw completions.

    `n` completions of one prompt; completion i is drawn with seed `seed + i`, so a larger n extends a smaller
    one. `temperature` 0 is greedy. `max_tokens` bounds one completion; generation ends before any of `stop`.
    """

    n: int = 1
    temperature: float = 0.0
    max_tokens: int = 256
    seed: int = 0
    stop: tuple[str, ...] = ()


def stop_at(text: str, stop: Sequence[str]) -> int | None:
    """Where the first of the stop strings begins; None where there is none."""
    return min((at for at in map(text.find, stop) if at >= 0), default=None)


class Completion(NamedTuple):
    """`tokens` counts all generated tokens. `finish`: `stop` (ended by itself), or `length` (cut by max_tokens)."""

    text: str
    tokens: int
    finish: Literal["stop", "length"]


class Usage(NamedTuple):
    """What an engine did so far.

    Prompt tokens asked for (each of n completions counts its prompt), those of them that it had in its cache, and
    tokens generated. `batch` is how many sequences were at work together, in the mean over its steps (over
    time, where the engine is a server).
    """

    prompt: int = 0
    cached: int = 0
    generated: int = 0
    batch: float = 0.0


class Setup(NamedTuple):
    """How an engine is set up; each kind takes what concerns it.

    `batch`: sequences decoded together by each copy of the model, 0 for the engine's own choice. `cache_gib`: memory
    for keys and values; with 0 none are reused. `dtype`: auto is bfloat16 on a GPU and float32 elsewhere.
    `max_length`: tokens of the longest conversation, 0 for the model's own limit. `gpu_memory`: share of each GPU that
    vLLM takes. `lora_rank`: the largest adapter that may be served beside a base model, 0 for none. `urls`:
    OpenAI-compatible servers. `timeout`: seconds that one request to them may take; `patience`: seconds for which
    servers that do not answer are waited for.
    """

    batch: int = 0
    cache_gib: float = 2.0
    dtype: str = "auto"
    max_length: int = 0
    gpu_memory: float = 0.9
    tensor_parallel: int = 1
    data_parallel: int = 1
    lora_rank: int = 0
    urls: tuple[str, ...] = ()
    timeout: float = 600.0
    patience: float = 60.0


class Model(NamedTuple):
    """A model in a folder, and the name that the settings have for it: a path or a hub name."""

    folder: Path
    name: str


class Engine(Protocol):
    """Generates text, in the event loop that it was opened in.

    Many awaits at once are welcome: batching is the engine's business.
    """

    capacity: int
    """Sequences that it can decode together; more requests than that wait inside it."""

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        """`sampling.n` completions of a conversation.

        Where the last message is the assistant's, it is continued, and the completion is what follows it.
        Raises `ContextOverflow` when the prompt leaves no room for `max_tokens`, `MachineryError` when the
        engine failed.
        """

    def beside(self, model: Model) -> "Engine | None":
        """The same engine as another model, where it can serve that one too without loading a second time."""

    def usage(self) -> Usage:
        """What was done since the engine was opened, by all models in it."""

    async def close(self) -> None:
        """Free the model."""
