"""One artifact of a run: its file or folder, its journal while a stage works on it, and what is noted about it.

The artifact exists only if its stage is complete. Its manifest holds the identity of what was made: the settings,
inputs, prompts, models and versions that the content depends on. While a stage works there is a journal (`*.part`)
and a manifest with the same suffix.
"""

import contextlib
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from sandcli.core.manifest import (
    Manifest,
    read_manifest,
    read_note,
    versions,
    write_manifest,
)
from sandcli.core.store import JOURNAL, Journal, Keyed, Records, lock
from sandcli.core.work import FolderJournal, Work, discard
from sandcli.errors import PrerequisiteError, SandError, UsageError
from sandcli.files import end_with_newline, fsync_path, move_durably, write_atomic
from sandcli.models import fingerprint
from sandcli.progress import notice
from sandcli.records import Failure, as_lines, encoded

StageName = Literal[
    "collect",
    "sft",
    "plan",
    "explore",
    "knowledge",
    "wkm",
    "sample",
    "rollout",
    "critique",
    "synthesize",
    "pairs",
    "train",
    "prefer",
    "eval",
    "counterfactual",
]

R = TypeVar("R", bound=Keyed)


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
        with lock(self.note("lock"), self.command, notice):
            yield

    # What is there

    def begun(self) -> bool:
        """Whether any of it was made, finished or not."""
        return self.path.exists() or self.journal.exists()

    def is_sealed(self) -> bool:
        """Whether it is finished and no work on it is in progress."""
        if not self.path.exists():
            return False
        if not self.journal.exists() and self.manifest(part=True) is None:
            return True
        # A kill may leave the journal of a folder behind; deleting it takes long, and what is sealed stays sealed.
        made = self.manifest()
        return self.record is None and made is not None and made.artifact == fingerprint(self.path)

    def is_edited(self, made: Manifest) -> bool:
        """Whether it, or a file derived from it, differs from what its manifest says."""
        if made.artifact and made.artifact != fingerprint(self.path):
            return True
        return made.derived != self.derived_hashes()

    def derived_hashes(self) -> dict[str, str]:
        """The hash of every derived file that is there, by its name."""
        return {name: fingerprint(path) for name, path in self.derived.items() if path.exists()}

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
        made, note = self.manifest(), self.note("json")
        if made is None and note.exists():
            raise PrerequisiteError(
                f"{path} cannot be checked: {note} is damaged",
                f"{self.command} --accept-stale keeps it as it is, --force redoes it",
            )
        known = hash_of(made) if made else ""
        if known and known == fingerprint(path):
            return
        if self.record is not None and path == self.path:
            Records(path, self.record).find_damage()  # if a line is damaged, its number says more
        if not known:  # it was put there by hand: only its lines can be checked
            return
        accept = f"{self.command} checks it, redoes missing units and accepts it (--accept-stale accepts it as it is)"
        if self.record is None:
            accept = f"{self.command} --accept-stale accepts it"
        raise PrerequisiteError(
            f"{path} was changed after `sand {self.stage}` finished",
            f"if you edited it on purpose: {accept}; otherwise redo it with --force",
        )

    # What is noted about it

    def manifest(self, part: bool = False) -> Manifest | None:
        """The manifest of the finished artifact, or (`part`) of work in progress; None if it is missing or damaged."""
        return read_manifest(self.note("json.part" if part else "json"))

    def newest_manifest(self) -> Manifest | None:
        """The manifest of work in progress, else of the finished artifact."""
        return self.manifest(part=True) or self.manifest()

    def begin(self, manifest: Manifest) -> None:
        """Note what is being made before any of it is, and again what it took if it is left unfinished."""
        write_manifest(self.note("json.part"), manifest)

    def write_manifest(self, manifest: Manifest) -> None:
        """Note what was made."""
        manifest.finished = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        manifest.versions = versions()
        write_manifest(self.note("json"), manifest)

    def seal_manifest(self, manifest: Manifest, made: Path) -> None:
        """Note what was made with its hash; `made` is where it is, perhaps not yet in its place."""
        manifest.artifact = fingerprint(made)
        self.write_manifest(manifest)

    def finish(self) -> None:
        """Remove the manifest of work in progress, and what a kill may have left of a folder's journal."""
        if self.record is None:
            discard(self.journal)
        if self.note("json.part").exists():  # on a read-only file system, unlinking always fails
            self.note("json.part").unlink()

    def digests(self) -> dict[str, str]:
        """The digest of every planned unit's input, by the unit's name, as of the last run that did any work.

        Empty if the note is missing or damaged.
        """
        return read_note(self.note("units.json"), dict[str, str]) or {}

    def add_digests(self, digests: dict[str, str]) -> None:
        """Note the digests of more units."""
        write_atomic(self.note("units.json"), [encoded(self.digests() | digests)])

    def failures(self) -> list[Failure]:
        """The units that failed for technical reasons in the last run. Raises `UsageError` if the list is damaged."""
        path, what = self.note("failures.jsonl"), "it lacks failed units that the manifest counts"
        try:
            found = list(iter(Records(path, Failure))) if path.exists() else []
            made = None if self.note("json.part").exists() else self.manifest()
            if made is None or len(found) >= made.counts.get("failed", 0):
                return found
        except SandError as error:
            what = error.what
        raise UsageError(f"{path} is damaged: {what}", f"{self.command} tries these units again")

    def lists_failures(self) -> bool:
        """Whether the list of failed units is there; if it is lost, they are tried again."""
        try:
            self.failures()
        except UsageError:
            return False
        return True

    def set_failures(self, failures: Sequence[Failure]) -> None:
        """Replace the list of failed units."""
        path = self.note("failures.jsonl")
        if failures:
            write_atomic(path, as_lines(failures))
        else:
            path.unlink(missing_ok=True)

    # Work on it

    def open_journal(self, resume: bool) -> Work[Any]:
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
                move_durably(path, aside, self.root)
                moved.append(str(aside))
        return moved

    def put_back(self, moved: Sequence[str]) -> None:
        """Undo `set_aside`, and remove what was begun since, because it was not finished."""
        for begun in (self.journal, self.note("failures.jsonl"), self.note("json.part")):
            if begun.is_dir():
                discard(begun)
            else:
                begun.unlink(missing_ok=True)
        for aside in map(Path, reversed(moved)):  # the artifact comes last, after its manifest and notes
            back = self.root.joinpath(*aside.relative_to(self.root / "aside").parts[1:])
            if back.is_dir():
                discard(back)
            move_durably(aside, back, self.root)
            with contextlib.suppress(OSError):  # not empty yet
                os.removedirs(aside.parent)
