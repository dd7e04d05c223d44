"""What commands print, and the run that they speak of. Data goes to stdout, chatter to stderr."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sandcli.errors import Exit

if TYPE_CHECKING:
    from sandcli.config import Scalar
    from sandcli.core.context import Context
    from sandcli.core.stage import Summary


def context_of(run: Path, flags: "dict[str, Scalar | None]", limit: int | None) -> "Context":
    """A run with its settings, flags included."""
    from sandcli.config import resolve
    from sandcli.core.context import Context
    from sandcli.core.run import Run

    there = Run(run)
    there.must_exist()
    return Context(there, resolve(run, os.environ, flags).settings, limit)


def tell(summary: "Summary", context: "Context", as_json: bool) -> None:
    """How a stage ended, and what comes next. Raises `typer.Exit` where units failed."""
    from sandcli.progress import console
    from sandcli.status import failures_table, following, summary_table

    if not summary.message:
        return  # a process that followed another one, which has told everything
    root = context.run.root
    if as_json:
        import msgspec

        print(msgspec.json.encode(summary._asdict()).decode())
    if summary.manifest is not None:
        console.print(summary_table(summary.manifest))
    if summary.failures:
        console.print(failures_table(summary.failures))
    if summary.exit is Exit.DONE:
        chat(summary.message, _in_earnest() if summary.forecast else following(summary.stage, context))
        return
    chat(summary.message, f"sand {summary.stage} --run {root} (tries them again; --accept-failures goes on without)")
    raise typer.Exit(summary.exit)


def _in_earnest() -> str:
    """This very command, without its `--dry-run`."""
    return shlex.join(["sand", *(word for word in sys.argv[1:] if word != "--dry-run")])


def put(drawn: Any) -> None:
    """Data, on stdout."""
    from rich.console import Console

    Console(highlight=False).print(drawn)


def chat(message: str, following: str) -> None:
    """What was done and the next command, on stderr."""
    from sandcli.progress import notice

    notice(message)
    notice(f"next: {following}")
