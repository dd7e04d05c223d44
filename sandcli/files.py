"""Write files so that a crash leaves either the old content or the new."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from sandcli.errors import PrerequisiteError, UsageError

_NO_FSYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
"""Errors of file systems that cannot fsync a folder: whether their renames are durable is up to them."""


def must_be_free(path: Path, example: str) -> None:
    """Raise `UsageError` if a new file cannot have this path; `example` is a name that one in a folder could have."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder", f"name a file, such as {path / example}")
    if path.exists():
        raise UsageError(f"there is already a file {path}", "choose another name, or delete it")


def write_atomic(path: Path, chunks: Iterable[bytes]) -> None:
    """Replace a file atomically: write a temporary file next to it, fsync, rename, fsync the folder."""
    rename_durably(write_temporary(path, chunks), path)


def rename_durably(temporary: Path, path: Path) -> None:
    """Replace or create a file so that a power failure leaves either the old state or the new one."""
    with disk_space(path):
        temporary.replace(path)
    fsync_path(path.parent)


def move_durably(path: Path, to: Path, below: Path) -> None:
    """Move a file or folder, making missing folders under `below`. A power failure leaves it in one place."""
    with disk_space(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        path.rename(to)
    for folder in (to.parent, *to.parent.parents):  # the new place is durable before the old one is gone
        fsync_path(folder)
        if folder == below:
            break
    fsync_path(path.parent)


def write_temporary(path: Path, chunks: Iterable[bytes]) -> Path:
    """Write a complete, durable file beside `path`, to be renamed onto it."""
    temporary = path.with_name(path.name + ".tmp")
    with disk_space(path), temporary.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def end_with_newline(path: Path) -> None:
    """Add the newline at the end of a text file that an editor left out."""
    with disk_space(path), path.open("rb+") as file:
        if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
            file.write(b"\n")
            file.flush()
            os.fsync(file.fileno())


def follow_umask(folder: Path) -> None:
    """Give the files in a folder the mode of new files: libraries make some readable by their owner only."""
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        new = Path(inside) / "new"
        new.touch()
        mode = new.stat().st_mode & 0o777
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def fsync_path(path: Path) -> None:
    """Make the content of a file, or a rename in a folder, survive a power failure."""
    with disk_space(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if not (path.is_dir() and error.errno in _NO_FSYNC):
                raise
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def disk_space(path: Path) -> Iterator[None]:
    """Turn a failed write into an error with a fix."""
    try:
        yield
    except OSError as error:
        raise PrerequisiteError(f"{path}: cannot write: {os.strerror(error.errno or 0)}", _fix(error)) from error


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn a failed read into an error with a fix."""
    try:
        yield
    except OSError as error:
        raise PrerequisiteError(f"{path}: cannot read: {os.strerror(error.errno or 0)}", _fix(error)) from error


def _fix(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space there, then run the same command again"
    if error.errno in (errno.EISDIR, errno.ENOTDIR):
        return "move what is there out of the way, then run the same command again"
    return "check the path and its permissions"
