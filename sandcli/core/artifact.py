"""One artifact of a run: its file or folder, its journal while a stage works on it, and what is noted about it.

The artifact exists only if its stage is complete. Its manifest holds the identity of what was made: the settings,
inputs, prompts, models and versions that the content depends on. While a stage works there is a journal (`*.part`)
and a manifest with the same suffix.
"""

import contextlib
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import msgspec

from sandcli.core.manifest import NOTHING_SPENT, Identity, Manifest, Spent, versions
from sandcli.core.store import JOURNAL, Journal, Keyed, Records, lock
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.files import end_with_newline, fsync_path, write_atomic
from sandcli.models import fingerprint
from sandcli.records import Failure, Key

StageName = Literal["collect", "sft", "sample", "rollout", "critique", "synthesize", "train", "eval"]

R = TypeVar("R", bound=Keyed)


class Work(Protocol[R]):
    """A journal as the runner sees it: which units are done, and how to add and seal more."""

    def __contains__(self, key: Key) -> bool: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[R]: ...

    def ordered_keys(self) -> list[Key]:
        """The units that are done."""

    def get(self, key: Key) -> R:
        """The record of one of them."""

    def append(self, *records: R) -> None:
        """Add records that survive a crash from now on."""

    def seal(self, path: Path, note: Callable[[Path], None]) -> None:
        """Put everything in place as the artifact; `note` writes the manifest just before."""

    def close(self) -> None:
        """Close the files."""


class FolderJournal(Generic[R]):
    """The journal of an artifact that is a folder made by one unit: that unit writes `result` into it.

    It counts as done only when it is sealed. What it was about stays in memory, for the manifest.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made: dict[Key, R] = {}
        path.mkdir(parents=True, exist_ok=True)

    def __contains__(self, key: Key) -> bool:
        return key in self._made

    def __len__(self) -> int:
        return len(self._made)

    def __iter__(self) -> Iterator[R]:
        return iter(self._made.values())

    def ordered_keys(self) -> list[Key]:
        """See `Work`."""
        return list(self._made)

    def get(self, key: Key) -> R:
        """See `Work`."""
        return self._made[key]

    def append(self, *records: R) -> None:
        """See `Work`."""
        self._made.update((record.key, record) for record in records)

    def seal(self, path: Path, note: Callable[[Path], None]) -> None:
        """See `Work`."""
        result = self._path / "result"
        note(result)
        if path.exists():  # only if someone edited it after a kill came between this rename and `finish`
            path.rename(path.with_name(f"{path.name}.replaced-{time.monotonic_ns()}"))
        result.rename(path)
        fsync_path(path.parent)
        discard(self._path)

    def close(self) -> None:
        """See `Work`."""


def discard(folder: Path) -> None:
    """Delete a folder so that a kill leaves it either as it was or gone, apart from a remainder with another name."""
    if folder.exists():
        remainder = folder.with_name(f"{folder.name}.discarded-{time.monotonic_ns()}")
        folder.rename(remainder)
    for remainder in folder.parent.glob(f"{folder.name}.discarded-*"):
        shutil.rmtree(remainder, ignore_errors=True)


class Artifact(Generic[R]):
    """The artifact of one stage in the run directory `root`; `record` is None if it is a folder."""

    def __init__(self, root: Path, stage: StageName, name: str, record: type[R] | None, derived: Sequence[str]) -> None:
        self.root = root
        self.stage = stage
        self.name = name
        self.record = record
        self.path = root / name
        self.journal = root / (name + JOURNAL)
        self.derived = {name: root / name for name in derived}
        self.log = root / "logs" / f"{stage}.jsonl"
        self.world_log = root / "logs" / f"{stage}.world.log"

    @property
    def command(self) -> str:
        """The command that makes it."""
        return f"sand {self.stage} --run {shlex.quote(str(self.root))}"

    def note(self, kind: str) -> Path:
        """A file about it: `json` (the manifest), `json.part`, `units.json`, `failures.jsonl`, `lock`."""
        return self.root / "manifests" / f"{self.stage}.{kind}"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One writer at a time."""
        with lock(self.note("lock"), self.command):
            yield

    # What is there

    def require(self) -> Path:
        """Its path. Raises `PrerequisiteError` if the stage is not finished, or if it was changed since."""
        if not self.path.exists():
            raise PrerequisiteError(f"{self.path} is missing", self.command)
        self._check(self.path, lambda made: made.artifact)
        return self.path

    def require_derived(self, name: str) -> Path:
        """The path of a file that is derived from it; the same errors."""
        path = self.derived[name]
        self.require()
        if not path.exists():
            raise PrerequisiteError(f"{path} is missing", f"{self.command} makes it again from {self.name}")
        self._check(path, lambda made: made.derived.get(name, ""))
        return path

    def records(self) -> Records[R]:
        """Its records, sealed and unchanged. Raises what `require` does."""
        assert self.record is not None
        return Records(self.require(), self.record)

    def recorded(self) -> Records[R] | None:
        """The records there are so far, whether the stage is finished or not; None if there are none."""
        assert self.record is not None
        path = self.journal if self.journal.exists() else self.path
        return Records(path, self.record) if path.exists() else None

    def _check(self, path: Path, hash_of: Callable[[Manifest], str]) -> None:
        made = self.manifest()
        known = hash_of(made) if made else ""
        if not known or known == fingerprint(path):
            return
        if self.record is not None and path == self.path:
            Records(path, self.record).find_damage()  # if a line is damaged, its number says more
        raise PrerequisiteError(
            f"{path} was changed after `sand {self.stage}` finished",
            f"if you edited it on purpose: {self.command} checks it, redoes units that are missing, and accepts it "
            "(--accept-stale: as it is); otherwise redo it with --force",
        )

    # What is noted about it

    def manifest(self, part: bool = False) -> Manifest | None:
        """The manifest of the finished artifact, or (`part`) of work in progress."""
        path = self.note("json.part" if part else "json")
        try:
            return msgspec.json.decode(path.read_bytes(), type=Manifest)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise UsageError(f"{path}: not a manifest: {error}", f"redo it: {self.command} --force") from None

    def newest_manifest(self) -> Manifest | None:
        """The manifest of work in progress, else of the finished artifact."""
        return self.manifest(part=True) or self.manifest()

    def begin(
        self, identity: Identity, accepted: Sequence[str] = (), spent: Spent = NOTHING_SPENT, forced: bool = False
    ) -> None:
        """Note what is being made before any of it is, and again what it took if it is left unfinished."""
        manifest = Manifest(stage=self.stage, identity=identity, accepted=list(accepted), spent=spent, forced=forced)
        write_atomic(self.note("json.part"), [_encode(manifest)])

    def write_manifest(self, manifest: Manifest) -> None:
        """Note what was made."""
        manifest.finished = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        manifest.versions = versions()
        write_atomic(self.note("json"), [_encode(manifest)])

    def finish(self) -> None:
        """Remove the manifest of work in progress, and what a kill may have left of a folder's journal."""
        if self.record is None:
            discard(self.journal)
        self.note("json.part").unlink(missing_ok=True)

    def digests(self) -> dict[str, str]:
        """The digest of every planned unit's input, by the unit's name, as of the last run that did any work."""
        path = self.note("units.json")
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
        return {}

    def add_digests(self, digests: dict[str, str]) -> None:
        """Note the digests of more units."""
        write_atomic(self.note("units.json"), [msgspec.json.encode(self.digests() | digests)])

    def failures(self) -> list[Failure]:
        """The units that failed for technical reasons in the last run."""
        path = self.note("failures.jsonl")
        return list(Records(path, Failure)) if path.exists() else []

    def set_failures(self, failures: Sequence[Failure]) -> None:
        """Replace the list of failed units."""
        path = self.note("failures.jsonl")
        if failures:
            write_atomic(path, (msgspec.json.encode(failure) + b"\n" for failure in failures))
        else:
            path.unlink(missing_ok=True)

    # Work on it

    def open_journal(self, resume: bool, notice: Callable[[str], None]) -> Work[Any]:
        """The journal, begun with the records of the finished artifact if there is one.

        Without `resume`, the remains of work that came to nothing are removed first.
        """
        if self.record is None:
            if not resume:
                discard(self.journal)
            return FolderJournal(self.journal)
        if self.path.exists() and not self.journal.exists():
            end_with_newline(self.path)  # in a journal, a last line without one would count as unfinished
            self.path.replace(self.journal)
            fsync_path(self.root)
        return Journal(self.journal, self.record, notice)

    def set_aside(self) -> list[str]:
        """Move everything the stage made out of the way, for `--force`. Returns the new names."""
        moved = []
        stamp = time.strftime("%Y%m%dT%H%M%S")
        folder = self.root / "aside" / f"{self.stage}-{stamp}-{time.monotonic_ns() % 10**6}"
        notes = [self.note(kind) for kind in ("json", "json.part", "units.json", "failures.jsonl")]
        made = [self.path, self.journal, *self.derived.values(), self.log, self.log.with_suffix(""), *notes]
        for path in made:
            if path.exists():
                aside = folder / path.relative_to(self.root)
                aside.parent.mkdir(parents=True, exist_ok=True)
                path.rename(aside)
                moved.append(str(aside))
        return moved


def _encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"
