"""What the driver notes about its crews, for `sand status`."""

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from sandcli.core.artifact import Artifact
from sandcli.core.manifest import read_note
from sandcli.errors import SandError
from sandcli.files import write_atomic

_FRESH = 30.0
"""Seconds after which a note is too old to be true: its driver is gone."""


class CrewNote(msgspec.Struct, frozen=True):
    """A crew: its node, and the units that it has in progress."""

    node: str
    working: int


class _Noted(msgspec.Struct, frozen=True):
    time: float
    crews: list[CrewNote]


def note(artifact: Artifact[Any], crews: Sequence[CrewNote]) -> None:
    """Replace what is noted about the crews that work on an artifact. If that fails, nothing depends on it."""
    path = artifact.note("crews.json")
    with contextlib.suppress(OSError, SandError):
        if crews:
            write_atomic(path, [msgspec.json.encode(_Noted(time.time(), list(crews)))])
        else:
            path.unlink(missing_ok=True)


def noted(artifact: Artifact[Any]) -> list[CrewNote]:
    """The crews that work on an artifact now."""
    found = read_note(artifact.note("crews.json"), _Noted)
    return found.crews if found and time.time() - found.time < _FRESH else []
