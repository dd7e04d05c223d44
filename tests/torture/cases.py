"""A case: one fault and what must be true afterwards. Its name is all that is needed to repeat it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.torture.inside import Ended


class Wrong(Exception):
    """A requirement that is not met after a fault."""


class Case(NamedTuple):
    """`name` is KIND/...; `run` works in its own folder and raises `Wrong`. It returns False if no fault occurred."""

    name: str
    run: Callable[[Path], bool]

    @property
    def kind(self) -> str:
        return self.name.partition("/")[0]


def must(holds: bool, what: str, ended: Ended | None = None) -> None:
    """Raise `Wrong` unless it holds."""
    if not holds:
        raise Wrong(what + (f"\n    exit {ended.code}: {_end_of(ended.said)}" if ended else ""))


def must_end_well(ended: Ended, codes: tuple[int, ...], names: tuple[str, ...] = ()) -> None:
    """Check the exit code; an error needs one line that names what is damaged, and one that says how to fix it."""
    must(ended.clean, "internal error", ended)
    must(ended.code in codes, f"exit code {ended.code}", ended)
    if ended.code in (2, 3):
        errors = [line for line in ended.said.splitlines() if line.startswith("error: ")]
        must(len(errors) == 1 and "\n  fix: " in ended.said, "not one line on what is wrong and one on the fix", ended)
        named = not names or any(name in errors[0] for name in names)
        must(named, f"the error does not name {' or '.join(names)}", ended)


def _end_of(said: str) -> str:
    return " | ".join(line.strip() for line in said.strip().splitlines()[-4:])[-600:]
