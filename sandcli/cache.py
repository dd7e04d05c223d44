"""The user's cache: files that are costly to make and can be made again."""

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """The folder of converted models, fingerprints and translated games: $XDG_CACHE_HOME/sand or ~/.cache/sand."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sand"


def keep(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file atomically. By default, only this user can read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
