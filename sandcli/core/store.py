"""Crash-safe JSONL: a journal while a stage works, a sealed file when it is done.

A record is one durable unit: one line, newline last. Records that finish at the same time share one `write` and one
`fsync`. A line without a newline was being written when the process died, so a journal cuts it off; a line that does
not decode is corruption and stops the program with file and line. Sealing sorts the records into canonical order and
puts the file in place atomically: the same records give the same bytes, whatever order they came in.
"""

import codecs
import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import msgspec

from sandcli.errors import MachineryError, PrerequisiteError, UsageError
from sandcli.files import disk_space, fsync_path, readable, rename_durably, write_temporary
from sandcli.models import require_package
from sandcli.records import Key

if TYPE_CHECKING:
    import pandas
    from datasets import Dataset


JOURNAL = ".part"
"""The suffix of an artifact that a stage is working on."""

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


class Keyed(Protocol):
    """Anything that knows its unit of work."""

    @property
    def key(self) -> Key:
        """Identifies the record and gives its place in the file."""


R = TypeVar("R", bound=Keyed)


@contextlib.contextmanager
def lock(path: Path, what: str, notice: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold a lock that the kernel releases when this process ends, for whatever reason.

    There is no lock in a folder that cannot be written, where nothing can change anyway. There is none on a file system
    without locks either; a notice says so.
    """
    with _lock_file(path) as file:
        if file >= 0:
            _acquire(file, path, what, notice)
        yield


@contextlib.contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    """A descriptor of the file, read-only if it cannot be written; -1 if it can be neither created nor read."""
    file = -1
    try:
        try:
            path.parent.mkdir(exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise _cannot_lock(path, error) from error
            with contextlib.suppress(OSError):
                file = os.open(path, os.O_RDONLY)
        yield file
    finally:
        if file >= 0:
            os.close(file)


def _acquire(file: int, path: Path, what: str, notice: Callable[[str], None]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(file, 20, 0).decode(errors="replace").strip() or "unknown"
        raise PrerequisiteError(
            f"{what} is running in another process (pid {holder})",
            "wait for it to finish, or stop it, then run the command again",
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise _cannot_lock(path, error) from error
        notice(f"{path}: this file system has no locks: do not start this stage twice at the same time")
    with contextlib.suppress(OSError):  # the pid is only for the message above
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)


def _cannot_lock(path: Path, error: OSError) -> PrerequisiteError:
    return PrerequisiteError(
        f"{path}: cannot lock: {os.strerror(error.errno or 0)}", "check the path, its permissions and its file system"
    )


class Records(Generic[R]):
    """The records of one artifact: iterate over them, or look one up by key.

    Iterating gives them in canonical order: a sealed file is streamed, a journal sorted. Looking up builds an index
    first, which holds keys and offsets only; a second record with the same key replaces the first. Reading never
    changes the file; the unfinished last line of a journal is skipped. Raises `UsageError` with file and line for a
    record that does not decode.
    """

    def __init__(self, path: Path, kind: type[R]) -> None:
        self.path = path
        self._in_progress = path.suffix == JOURNAL
        self._decoder = msgspec.json.Decoder(kind)
        self._file = -1  # so that `close` works if the next line raises
        self._file = self._open()
        self._end = 0
        self._torn = 0
        self._indexed: dict[Key, tuple[int, int]] | None = None

    def _open(self) -> int:
        with readable(self.path):
            return os.open(self.path, os.O_RDONLY)

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> "Records[R]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decode(self, line: bytes) -> R:
        """The record of a line. Editors put a byte order mark at the beginning of a file."""
        return self._decoder.decode(line.removeprefix(codecs.BOM_UTF8))

    def _lines(self) -> Iterator[tuple[bytes, R]]:
        with readable(self.path), self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if self._in_progress and not line.endswith(b"\n"):
                    self._torn = number
                    return
                try:
                    yield line, self._decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise _corrupt(self.path, number, str(error)) from None

    @property
    def _index(self) -> dict[Key, tuple[int, int]]:
        if self._indexed is None:
            index, end = {}, 0
            for line, record in self._lines():
                index[record.key] = (end, len(line))
                end += len(line)
            self._indexed, self._end = index, end
        return self._indexed

    def __contains__(self, key: Key) -> bool:
        return key in self._index

    def __len__(self) -> int:
        return len(self._index)

    def ordered_keys(self) -> list[Key]:
        """All keys in canonical order."""
        return sorted(self._index)

    def get(self, key: Key) -> R:
        """The latest record with this key. Raises `KeyError` if there is none."""
        offset, length = self._index[key]
        return self._decode(os.pread(self._file, length, offset))

    def having(self, keys: list[Key]) -> list[R]:
        """The records with these keys, as far as there are any."""
        return [self.get(key) for key in keys if key in self]

    def __iter__(self) -> Iterator[R]:
        if self._in_progress:
            return (self.get(key) for key in self.ordered_keys())
        return (record for _, record in self._lines())

    def find_damage(self) -> None:
        """Raise `UsageError` with the line of the first record that does not decode or whose unit occurs twice."""
        seen: dict[Key, int] = {}
        for number, (_, record) in enumerate(self._lines(), 1):
            if record.key in seen:
                raise _corrupt(self.path, number, f"the same unit is on line {seen[record.key]}")
            seen[record.key] = number

    def to_pandas(self) -> "pandas.DataFrame":
        """A table with one row a record; nested fields stay lists and dicts."""
        require_package("pandas", "a pandas table")
        import pandas

        return pandas.DataFrame(self._rows())

    def to_dataset(self) -> "Dataset":
        """A Hugging Face data set with one row a record."""
        require_package("datasets", "a Hugging Face data set")
        from datasets import Dataset

        return Dataset.from_list(self._rows())

    def _rows(self) -> list[dict[str, Any]]:
        records = list(iter(self))  # list(self) asks for the length first, which reads the file once more
        rows: list[dict[str, Any]] = msgspec.to_builtins(records)
        return rows

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Journal(Records[R]):
    """An artifact that a stage is working on: records are appended one by one and sealed at the end. One writer."""

    def __init__(self, path: Path, kind: type[R], notice: Callable[[str], None] = lambda _: None) -> None:
        """Open or create the journal. A torn last line is cut off, and `notice` says so."""
        super().__init__(path, kind)
        self._encode = msgspec.json.Encoder().encode
        try:
            len(self)
        except BaseException:
            self.close()
            raise
        if self._torn:
            os.ftruncate(self._file, self._end)
            notice(f"{path}:{self._torn}: cut off a record that was being written when the last run ended")

    def _open(self) -> int:
        with disk_space(self.path):
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            fsync_path(self.path.parent)
            return file

    def check(self, record: R) -> None:
        """Raise `MachineryError` if the record could not be read back as it is: it must not be written."""
        try:
            if self._decode(self._encode(record)) == record:
                return
            why = "it would be read back as something else"
        except (msgspec.MsgspecError, UnicodeError) as error:
            why = str(error)
        raise MachineryError("record", f"cannot be written so that it can be read again: {why}")

    def append(self, *records: R) -> None:
        """Record some units. When this returns, they survive a crash; if it raises, only the first few may."""
        lines = [self._encode(record) + b"\n" for record in records]
        index = self._index
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
                index[record.key] = (self._end, len(line))
                self._end += len(line)

    def seal(self, path: Path, note: Callable[[Path], None]) -> None:
        """Put the sorted records in place as the finished artifact, then drop the journal.

        `note` gets the complete temporary file just before it is renamed, and writes the manifest: the artifact exists
        only if its manifest describes it.
        """
        index = self._index
        read = (os.pread(self._file, length, at) for _, (at, length) in sorted(index.items()))
        lines = (line.removeprefix(codecs.BOM_UTF8) for line in read)
        temporary = write_temporary(path, lines)
        note(temporary)
        rename_durably(temporary, path)
        self.path.unlink()


def _corrupt(path: Path, line: int, why: str) -> UsageError:
    return UsageError(
        f"{path}:{line}: not a valid record: {why}",
        "correct or delete that line, then run the stage that made the file again; or redo that stage with --force",
    )
