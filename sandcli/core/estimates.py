"""What stages took on this machine before, and so what one will take: for `--dry-run`.

Kept in the user's cache, one line for each stage that ran. Runs count as alike if the stage, the world, the engine and
the size of the model are the same: a policy's weights change with every iteration, its speed does not.
"""

import contextlib
import time
from pathlib import Path

import msgspec

from sandcli.cache import cache_folder, keep
from sandcli.core.artifact import StageName
from sandcli.core.manifest import Spent
from sandcli.core.stage import P, R, Stage
from sandcli.engines.adapters import weights_of
from sandcli.engines.base import Model

_KEPT = 5
"""How many of the latest runs alike are kept and averaged."""


class Kind(msgspec.Struct, frozen=True):
    """What a stage's cost depends on; `model` is the size of its weights in bytes."""

    stage: StageName
    world: str
    engine: str
    model: int


class PastRun(msgspec.Struct, frozen=True):
    """A stage that ran."""

    kind: Kind
    spent: Spent
    finished: str


def remember(stage: Stage[P, R], spent: Spent) -> None:
    """Note what a stage took, if it did anything."""
    if spent.units:
        done = msgspec.structs.replace(spent, units=spent.units * stage.sequences)  # N turns cost N times one
        _note(PastRun(_kind(stage), done, time.strftime("%Y-%m-%dT%H:%M:%S%z")))


def remember_training(stage: Stage[P, R], start: Model, how: str, tokens: int, speed: float) -> None:
    """Note a training on so many tokens, and its tokens a second. `how` says what else its speed depends on."""
    if speed:
        spent = Spent(units=tokens, seconds=tokens / speed)
        _note(PastRun(_training(stage, start, how), spent, time.strftime("%Y-%m-%dT%H:%M:%S%z")))


def _note(run: PastRun) -> None:
    with contextlib.suppress(OSError):  # a full cache is no reason to fail
        alike = [known for known in _past_runs() if known.kind == run.kind]
        others = [known for known in _past_runs() if known.kind != run.kind]
        lines = [msgspec.json.encode(past) for past in [*others, *alike[1 - _KEPT :], run]]
        keep(_file(), b"\n".join(lines) + b"\n")


def estimate(stage: Stage[P, R], units: int) -> str:
    """What so many units will take, as the end of a sentence."""
    return _estimate(_kind(stage), units * stage.sequences)


def estimate_training(stage: Stage[P, R], start: Model, how: str, tokens: int) -> str:
    """What a training on so many tokens, over all steps, will take."""
    return _estimate(_training(stage, start, how), tokens)


def _estimate(kind: Kind, amount: int) -> str:
    alike = [past.spent for past in _past_runs() if past.kind == kind]
    if not alike:
        return "; no estimate: this machine has not run a stage like it before"
    spent = sum(alike[1:], alike[0])
    share = amount / spent.units
    tokens, seconds = round(share * spent.generated), share * spent.seconds
    generated = f"{tokens:,} generated tokens and " if spent.generated else ""
    return f"; about {generated}{duration(seconds)}, estimated from earlier runs on this machine"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds for people."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _kind(stage: Stage[P, R]) -> Kind:
    context, model = stage.context, stage.model()
    engine = context.engine_kind() if model else "none"
    return Kind(stage.name, context.settings.env.name, engine, _size(model) if model else 0)


def _training(stage: Stage[P, R], start: Model, how: str) -> Kind:
    return Kind(stage.name, stage.context.settings.env.name, f"training, {how}", _size(start))


def _size(model: Model) -> int:
    return sum(file.stat().st_size for file in weights_of(model.folder).glob("*.safetensors"))


def _past_runs() -> list[PastRun]:
    """The recorded rates; damaged lines and those of other versions of `sand` are skipped."""
    lines: list[bytes] = []
    found = []
    with contextlib.suppress(OSError):
        lines = _file().read_bytes().splitlines()
    for line in lines:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            past = msgspec.json.decode(line, type=PastRun)
            found += [past] if past.spent.units > 0 else []
    return found


def _file() -> Path:
    return cache_folder() / "history.jsonl"
