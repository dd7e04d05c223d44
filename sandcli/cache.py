"""The user's own cache: whatever is costly to make and can be made again."""

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Where converted models, fingerprints and translated games are kept: $XDG_CACHE_HOME/sand, or ~/.cache/sand."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sand"


def keep(path: Path, content: bytes) -> None:
    """Write a file of the cache, whole or not at all, for this user only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    Path(file.name).replace(path)
