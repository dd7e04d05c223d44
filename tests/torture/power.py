"""A worst-case power cut: nothing survives that was not synced, neither data nor names.

Linux keeps both in memory until a file, or the folder of a name, is synced. A kill loses neither; a power cut may lose
all of it. This follows what one process changes and can take it back.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Unsynced:
    """What would be lost now. `shadow` is a folder on the same file system for hard links to replaced files."""

    def __init__(self, shadow: Path) -> None:
        self._shadow = shadow
        self._real_open, self._real_rename, self._real_unlink = os.open, os.rename, os.unlink
        self._real_truncate = os.ftruncate
        self._kept = 0
        self._data: dict[int, tuple[int, int]] = {}
        self._names: list[tuple[Path, Callable[[], None]]] = []

    def before(self, call: str, *arguments: Any, **named: Any) -> None:
        """A call is about to be made."""
        if named.get("dir_fd") is not None:  # a folder that is being deleted: its name went first
            return
        match call:
            case "write" | "ftruncate":
                self._writes(arguments[0])
            case "fsync":
                self._syncs(arguments[0])
            case "open":
                self._creates(Path(arguments[0]))
            case "rename" | "replace":
                self._renames(Path(arguments[0]), Path(arguments[1]))
            case "unlink" | "remove":
                self._unlinks(Path(arguments[0]))

    def cut(self) -> None:
        """Undo everything that was not synced, the latest change first."""
        for descriptor, size in self._data.values():
            if os.fstat(descriptor).st_size > size:
                self._real_truncate(descriptor, size)
        for _, undo in reversed(self._names):
            with contextlib.suppress(FileNotFoundError):
                undo()

    def _writes(self, descriptor: int) -> None:
        stat = os.fstat(descriptor)
        if stat.st_ino not in self._data:
            path = f"/proc/self/fd/{descriptor}"
            self._data[stat.st_ino] = (self._real_open(path, os.O_WRONLY), stat.st_size)

    def _syncs(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        self._data.pop(os.fstat(descriptor).st_ino, None)
        self._names = [(folder, undo) for folder, undo in self._names if folder != path]

    def _creates(self, path: Path) -> None:
        if not path.exists():
            self._names.append((path.parent.resolve(), lambda: self._real_unlink(path)))

    def _renames(self, old: Path, new: Path) -> None:
        kept = self._second_name(new)

        def undo() -> None:
            self._real_rename(new, old)
            if kept:
                self._real_rename(kept, new)

        self._names.append((new.parent.resolve(), undo))

    def _unlinks(self, path: Path) -> None:
        if kept := self._second_name(path):
            self._names.append((path.parent.resolve(), lambda: self._real_rename(kept, path)))

    def _second_name(self, path: Path) -> Path | None:
        if not path.is_file():
            return None
        self._kept += 1
        kept = self._shadow / str(self._kept)
        os.link(path, kept)
        return kept
