"""Errors that a person meets, each with its fix, and the exit codes they map to.

Library code raises these; `sandcli.cli` alone prints them. Anything else that is raised is a bug.
"""

from enum import IntEnum


class Exit(IntEnum):
    """What the process says to the shell."""

    DONE = 0
    FAILED_UNITS = 1
    USAGE = 2
    PREREQUISITE = 3
    INTERNAL = 70
    INTERRUPTED = 130


class SandError(Exception):
    """One line of what went wrong and where, one line of how to mend it."""

    exit = Exit.USAGE

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


class UsageError(SandError):
    """A wrong option, setting or input file."""


class PrerequisiteError(SandError):
    """Something that must be there first: an artifact, Java, a model, a free lock, disk space."""

    exit = Exit.PREREQUISITE


class Interrupted(SandError):
    """The user stopped the stage; everything finished by then is recorded."""

    exit = Exit.INTERRUPTED

    def __init__(self, stage: str) -> None:
        super().__init__(f"{stage} was interrupted; finished work is kept", "run the same command again to go on")


class MachineryError(Exception):
    """An engine or environment failed. It says nothing about the agent, so it never becomes a record.

    `reason` is one of `engine`, `environment`, `timeout`, `replay_diverged`, `context`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ContextOverflow(MachineryError):
    """A conversation no longer fits into the model's context window."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__("context", f"{tokens} tokens do not fit into the model's {limit}")
