"""What stages took on this machine before, and so what one will take: for `--dry-run`.

Kept in the user's cache, one line for each stage that ran. Runs count as alike if the stage, the world, the engine and
the size of the model are the same: a policy's weights change with every iteration, its speed does not.
"""

import contextlib
import time
from pathlib import Path

import msgspec
from msgspec.structs import replace

from sandcli.cache import cache_folder, keep
from sandcli.core.artifact import StageName
from sandcli.core.manifest import Spent
from sandcli.core.stage import P, R, Stage
from sandcli.engines.adapters import weights_of
from sandcli.engines.base import Model
from sandcli.errors import PrerequisiteError

_KEPT = 5
"""How many of the latest runs alike are kept and averaged."""


class Kind(msgspec.Struct, frozen=True):
    """What a stage's cost depends on; `model` is the size of its weights in bytes.

    `engine` of a training is its kind; its `processes` count, where those of an engine are part of its speed.
    """

    stage: StageName
    world: str
    engine: str
    model: int
    processes: int = 0


class PastRun(msgspec.Struct, frozen=True):
    """A stage that ran. Its units are sequences, or the tokens of a training.

    `per_trajectory` counts those of the finished stage for each trajectory of D_exp; it is 0 if some were missing.
    """

    kind: Kind
    spent: Spent
    finished: str
    per_trajectory: float = 0.0


def remember(stage: Stage[P, R], spent: Spent, whole: int) -> None:
    """Note what a stage took, if it did anything. `whole` counts all its units; 0 if some are missing."""
    if not spent.units:
        return
    done = replace(spent, units=spent.units * stage.sequences)  # N turns cost N times one
    per_trajectory = whole * stage.sequences / max(1, _trajectories(stage))
    run = PastRun(_kind(stage), done, time.strftime("%Y-%m-%dT%H:%M:%S%z"), per_trajectory)
    with contextlib.suppress(OSError):  # a full cache is no reason to fail
        alike = [known for known in _past_runs() if known.kind == run.kind]
        others = [known for known in _past_runs() if known.kind != run.kind]
        lines = [msgspec.json.encode(past) for past in [*others, *alike[1 - _KEPT :], run]]
        keep(_file(), b"\n".join(lines) + b"\n")


def estimate(stage: Stage[P, R], units: int, gpus: int | None = None) -> str:
    """What so many units will take, on this machine or on so many GPUs, as the end of a sentence."""
    return _estimate(stage, units * stage.sequences, gpus)


def forecast(stage: Stage[P, R], gpus: int) -> str:
    """The same for a stage whose inputs are not there yet: as much for each trajectory of D_exp as in earlier runs."""
    known = [past.per_trajectory for past in _alike(stage, True) if past.per_trajectory]
    if not known or not _trajectories(stage):
        return "; no estimate: this machine has not finished a stage like it before, or D_exp is missing"
    work = round(_trajectories(stage) * sum(known) / len(known))
    return _estimate(stage, work, gpus) + f", with as many units for each of {_trajectories(stage)} trajectories"


def _estimate(stage: Stage[P, R], work: int, gpus: int | None) -> str:
    scaled = gpus is not None and _kind(stage).engine != "none"
    known = _alike(stage, scaled)
    alike = [past.spent for past in known if past.spent.device_seconds or not scaled]
    if not alike:
        how = ", on a known number of GPUs" if known else ""
        return f"; no estimate: this machine has not run a stage like it before{how}"
    spent = sum(alike[1:], alike[0])
    share = work / spent.units
    tokens, seconds = round(share * spent.generated), share * spent.seconds
    about = f"; about {tokens:,} generated tokens and " if spent.generated else "; about "
    source = "estimated from earlier runs on this machine"
    if gpus is None or not scaled:
        return f"{about}{duration(seconds)}, {source}"
    devices = f"{spent.device_seconds / spent.seconds:.3g}"
    hours = share * spent.device_seconds / gpus / 3600
    return f"{about}{hours:.2f} h on {gpus} GPUs, {source}, if each is as fast as one of the {devices} there"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds for people."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _kind(stage: Stage[P, R]) -> Kind:
    context = stage.context
    try:
        model = next(iter(stage.models().values()), None)
    except PrerequisiteError:  # the policy is not there yet; it will be as large as pi_base
        model = context.base()
    training, processes = stage.training()
    engine = training or (context.engine_kind() if model else "none")
    return Kind(stage.name, context.settings.env.name, engine, _size(model) if model else 0, processes)


def _alike(stage: Stage[P, R], scaled: bool) -> list[PastRun]:
    """Earlier runs alike; if their time is to be scaled, with any number of processes."""
    kind = _kind(stage)
    return [
        past for past in _past_runs() if past.kind == (replace(kind, processes=past.kind.processes) if scaled else kind)
    ]


def _trajectories(stage: Stage[P, R]) -> int:
    """Those of D_exp that the stage may use; 0 if D_exp is missing."""
    made = stage.run.artifact("collect").manifest()
    there = made.counts.get("units", 0) if made else 0
    return min(there, stage.limit or there)


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
