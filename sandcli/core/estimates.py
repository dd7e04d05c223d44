"""What stages took on this machine before, and what one will therefore take: for `--dry-run`.

Kept in the user's cache, a line a stage that was worked at. What counts as alike: the stage, the world, the
engine, and the size of the model; a policy's weights change with every iteration, its speed does not.
"""

import contextlib
import time
from pathlib import Path

import msgspec

from sandcli.cache import cache_folder, keep
from sandcli.core.run import Spent, Stage
from sandcli.core.stage import Job, P, R
from sandcli.engines import choose
from sandcli.engines.adapters import weights_of
from sandcli.engines.base import Model

_TAKEN = 5
"""How many of the latest runs alike are kept and taken together."""


class Kind(msgspec.Struct, frozen=True):
    """What a stage's cost depends on; `model` is the size of its weights in bytes."""

    stage: Stage
    world: str
    engine: str
    model: int


class Entry(msgspec.Struct, frozen=True):
    """A stage that was worked at."""

    kind: Kind
    spent: Spent
    finished: str


def remember(job: Job[P, R], spent: Spent) -> None:
    """Note what a stage took, where it did anything."""
    if not spent.units:
        return
    done = msgspec.structs.replace(spent, units=spent.units * job.sequences)  # N turns cost N times one
    entry = Entry(_kind(job), done, time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    with contextlib.suppress(OSError):  # a full cache is no reason to fail
        alike = [known for known in _entries() if known.kind == entry.kind]
        others = [known for known in _entries() if known.kind != entry.kind]
        lines = [msgspec.json.encode(e) for e in [*others, *alike[1 - _TAKEN :], entry]]
        keep(_file(), b"\n".join(lines) + b"\n")


def estimate(job: Job[P, R], units: int) -> str:
    """What so many units will take, as the end of a sentence."""
    kind = _kind(job)
    alike = [entry.spent for entry in _entries() if entry.kind == kind]
    if not alike:
        return "; no estimate: nothing like it was done on this machine before"
    spent = sum(alike[1:], alike[0])
    share = units * job.sequences / spent.units
    tokens, seconds = round(share * spent.generated), share * spent.seconds
    generated = f"{tokens:,} generated tokens and " if kind.engine != "none" else ""
    return f"; about {generated}{duration(seconds)}, judged by what was done here before"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as a person says them."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _kind(job: Job[P, R]) -> Kind:
    context, model = job.context, job.model()
    engine = choose(context.settings.engine).kind if model else "none"
    return Kind(job.stage, context.settings.env.name, engine, _weight(model) if model else 0)


def _weight(model: Model) -> int:
    return sum(file.stat().st_size for file in Path(weights_of(model.folder)).glob("*.safetensors"))


def _entries() -> list[Entry]:
    """What is known; lines of another version of this program are passed over."""
    found = []
    for line in _file().read_bytes().splitlines() if _file().exists() else []:
        try:
            found.append(msgspec.json.decode(line, type=Entry))
        except msgspec.MsgspecError:
            continue
    return found


def _file() -> Path:
    return cache_folder() / "history.jsonl"
