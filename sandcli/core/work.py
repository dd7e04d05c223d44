"""What a stage has recorded so far, as the runner sees it: a journal of records, or a folder that one unit makes."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from sandcli.core.store import Keyed
from sandcli.files import rename_durably
from sandcli.records import Key

R = TypeVar("R", bound=Keyed)


class Work(Protocol[R]):
    """A journal as the runner sees it: which units are done, and how to add and seal more."""

    def __contains__(self, key: Key) -> bool: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[R]: ...

    def ordered_keys(self) -> list[Key]:
        """The names of the units that are done."""

    def get(self, key: Key) -> R:
        """The record of one of them."""

    def check(self, record: R) -> None:
        """Raise `MachineryError` if the record could not be read back as it is."""

    def append(self, *records: R) -> None:
        """Add records that survive a crash from now on."""

    def seal(self, path: Path, note: Callable[[Path], None]) -> None:
        """Move everything into place as the artifact; `note` writes the manifest just before that."""

    def close(self) -> None:
        """Close the files."""


class FolderJournal(Generic[R]):
    """The journal of an artifact that is a folder made by one unit: that unit writes `result` into it.

    It counts as done only when it is sealed. Its record stays in memory, for the manifest.
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

    def check(self, record: R) -> None:
        """See `Work`; nothing is written."""

    def append(self, *records: R) -> None:
        """See `Work`."""
        self._made.update((record.key, record) for record in records)

    def seal(self, path: Path, note: Callable[[Path], None]) -> None:
        """See `Work`."""
        result = self._path / "result"
        note(result)
        if path.exists():  # exists only if it was edited after a kill between this rename and `finish`
            path.rename(path.with_name(f"{path.name}.replaced-{time.monotonic_ns()}"))
        rename_durably(result, path)
        discard(self._path)

    def close(self) -> None:
        """See `Work`."""


def discard(folder: Path) -> None:
    """Delete a folder so that a kill leaves it either untouched or gone; remains may be left under another name."""
    if folder.exists():
        remainder = folder.with_name(f"{folder.name}.discarded-{time.monotonic_ns()}")
        folder.rename(remainder)
    for remainder in folder.parent.glob(f"{folder.name}.discarded-*"):
        shutil.rmtree(remainder, ignore_errors=True)
