"""The errors that users see, each with its fix, and their exit codes.

Library code raises them; only `sandcli.cli` prints them. Any other exception is a bug.
"""

import difflib
from collections.abc import Sequence
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """The exit codes of `sand`."""

    DONE = 0
    FAILED_UNITS = 1
    USAGE = 2
    PREREQUISITE = 3
    INTERNAL = 70
    INTERRUPTED = 130


class _Portable(Exception):
    """An error that arrives whole from another process, whatever arguments its class takes."""

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is sent."""
        return _remade, (type(self), str(self), vars(self))


def _remade(kind: type[Exception], text: str, attributes: dict[str, Any]) -> Exception:
    """An error as it was in another process."""
    error = kind.__new__(kind, text)
    vars(error).update(attributes)
    return error


class SandError(_Portable):
    """`what` says in one line what went wrong and where; `fix` says in one line how to fix it."""

    exit = Exit.USAGE

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


class UsageError(SandError):
    """An invalid option, setting or input file."""


def unknown_name(kind: str, name: str, known: Sequence[str]) -> UsageError:
    """The error for a name that is none of the known presets, protocols or the like; it lists them."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? {kind.capitalize()}s: " if close else "use one of: "
    return UsageError(f"there is no {kind} {name!r}", hint + ", ".join(known))


class PrerequisiteError(SandError):
    """Something is missing: an artifact, Java, a model, a free lock, disk space."""

    exit = Exit.PREREQUISITE


class Interrupted(SandError):
    """The user stopped the stage; all finished work is recorded."""

    exit = Exit.INTERRUPTED

    def __init__(self, stage: str) -> None:
        super().__init__(f"{stage} was interrupted; finished work is kept", "run the same command again to resume")


class MachineryError(_Portable):
    """An engine or environment failed. This says nothing about the agent, so it never becomes a record.

    `reason` is one of `engine`, `environment`, `timeout`, `crew`, `replay_diverged`, `expert`, `context`, `record`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ContextOverflow(MachineryError):
    """A conversation exceeds the model's context window."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__("context", f"{tokens} tokens do not fit into the model's {limit}")
