"""The user's cache: files that are costly to make and can be made again."""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from sandcli.errors import PrerequisiteError

_NO_HOME = Path("/dev/null")
"""Stands for the home folder of a user who has none: it is empty and cannot be written to."""

_OLD = 24 * 3600
"""Seconds after which a temporary file belongs to a process that was killed."""


def cache_folder() -> Path:
    """The folder of converted models, fingerprints and translated games: $XDG_CACHE_HOME/sand or ~/.cache/sand."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        home = Path.home()
    except RuntimeError:
        home = _NO_HOME
    return (Path(given) if given else home / ".cache") / "sand"


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """Turn an `OSError` in work that needs the cache into an error with a fix."""
    try:
        yield
    except OSError as error:
        raise PrerequisiteError(
            f"the cache cannot be used: {error}", "set XDG_CACHE_HOME to a folder that you can write to"
        ) from error


def keep(path: Path, content: bytes, private: bool = True) -> None:
    """Write a file atomically, even if others write it at the same time. Only this user can read a `private` file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_old(path.parent, "*.tmp", _OLD)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
    try:
        with os.fdopen(opened, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_old(folder: Path, pattern: str, seconds: float) -> None:
    """Delete the files of killed processes that are at least this many seconds old."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if path.is_file() and time.time() - path.stat().st_mtime >= seconds:
                path.unlink()
