"""Crash-safe JSONL: a journal while a stage is at work, a sealed file when it is done.

A record is one durable unit: one line, newline last; those that are finished at the same time share one `write`
and one `fsync`. A line without a newline was being written when the process died and is cut off; a line that does
not decode is corruption and stops the program with file and line. Sealing sorts the records into canonical order and
puts the file into place atomically, so the same records give the same bytes whatever the order they came in.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, Protocol, TypeVar, cast

import jsonlines
import msgspec

from sandcli.errors import PrerequisiteError, UsageError
from sandcli.files import disk_space, fsync_folder, write_atomic
from sandcli.records import Key


class Keyed(Protocol):
    """Anything that knows the unit of work it answers."""

    @property
    def key(self) -> Key:
        """Identifies the record and gives its place in the file."""


R = TypeVar("R", bound=Keyed)


def read(path: Path, kind: type[R]) -> Iterator[R]:
    """The records of a sealed file, one at a time. Raises `UsageError` with file and line for a bad one."""
    decode = msgspec.json.Decoder(kind).decode
    with path.open("rb") as file, jsonlines.Reader(file, loads=_strict(decode)) as reader:
        while True:
            try:
                yield cast(R, reader.read())
            except EOFError:
                return
            except jsonlines.InvalidLineError as error:
                raise _corrupt(path, error.lineno, str(error.__cause__ or error)) from None


@contextlib.contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """Hold a lock that the kernel releases when this process ends, however it ends."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise PrerequisiteError(
                f"{what} is at work in another process (pid {holder})",
                "wait for it, or stop it, and run again",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


class Records(Generic[R]):
    """The records of an artifact in any state, by key; only keys and offsets are held in memory.

    A second record with the same key supersedes the first. Reading never changes the file: an unfinished last
    line is passed over.
    """

    def __init__(self, path: Path, kind: type[R]) -> None:
        """Index the file. Raises `UsageError` with file and line for a record that does not decode."""
        self.path = path
        self._decode = msgspec.json.Decoder(kind).decode
        self._spans: dict[Key, tuple[int, int]] = {}
        self._end = 0
        self._torn = 0
        self._file = self._open()
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    self._index(line, number)
        except BaseException:
            self.close()
            raise

    def _open(self) -> int:
        return os.open(self.path, os.O_RDONLY)

    def _index(self, line: bytes, number: int) -> None:
        if not line.endswith(b"\n"):
            self._torn = number
            return
        try:
            record = self._decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _corrupt(self.path, number, str(error)) from None
        self._spans[record.key] = (self._end, len(line))
        self._end += len(line)

    def __contains__(self, key: Key) -> bool:
        return key in self._spans

    def __len__(self) -> int:
        return len(self._spans)

    def ordered_keys(self) -> list[Key]:
        """All keys in canonical order."""
        return sorted(self._spans)

    def get(self, key: Key) -> R:
        """The latest record of this key; KeyError where there is none."""
        offset, length = self._spans[key]
        return self._decode(os.pread(self._file, length, offset))

    def __iter__(self) -> Iterator[R]:
        """All records in canonical order."""
        return (self.get(key) for key in self.ordered_keys())

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


class Journal(Records[R]):
    """An artifact in work: records are appended one by one, and sealed at the end. One writer at a time."""

    def __init__(self, path: Path, kind: type[R], notice: Callable[[str], None] = lambda _: None) -> None:
        """Open or create the journal; a torn last line is cut off and `notice` is told."""
        super().__init__(path, kind)
        self._encode = msgspec.json.Encoder().encode
        if self._torn:
            os.ftruncate(self._file, self._end)
            notice(f"{path}:{self._torn}: cut off a record that was being written when the last run ended")

    def _open(self) -> int:
        with disk_space(self.path):
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)

    def append(self, *records: R) -> None:
        """Record some units. When this returns, they survive a crash; when it raises, only the first of them may."""
        lines = [self._encode(record) + b"\n" for record in records]
        with disk_space(self.path):
            try:
                written = os.write(self._file, b"".join(lines))
                os.fsync(self._file)
            except BaseException:
                os.ftruncate(self._file, self._end)
                raise
            start = self._end
            for record, line in zip(records, lines, strict=True):
                if self._end + len(line) > start + written:
                    os.ftruncate(self._file, self._end)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._spans[record.key] = (self._end, len(line))
                self._end += len(line)

    def seal(self, path: Path) -> None:
        """Put the sorted records into place as the finished artifact, and drop the journal."""
        write_atomic(path, (os.pread(self._file, length, at) for _, (at, length) in sorted(self._spans.items())))
        self.path.unlink()


def unseal(path: Path, journal: Path) -> None:
    """Make a finished artifact the beginning of a journal again, so that missing units can be added."""
    path.replace(journal)
    fsync_folder(path.parent)


def _strict(decode: Callable[[str | bytes], R]) -> Callable[[str | bytes], R]:
    def loads(line: str | bytes) -> R:
        try:
            return decode(line)
        except msgspec.DecodeError as error:
            raise ValueError(str(error)) from error

    return loads


def _corrupt(path: Path, line: int, why: str) -> UsageError:
    return UsageError(
        f"{path}:{line}: not a valid record: {why}",
        "correct or delete that line by hand (its unit is then done again), or redo the stage with --force",
    )
