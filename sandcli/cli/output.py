"""What commands print, and the run that they speak of. Data goes to stdout, chatter to stderr."""

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
    from sandcli import perform
    from sandcli.core.run import Run

    return perform.context_of(Run(run), flags, limit)


def tell(summary: "Summary", root: Path, as_json: bool) -> None:
    """Print how a stage ended and what comes next. Raises `typer.Exit` if units failed."""
    from sandcli.progress import console
    from sandcli.status import failures_table, summary_table

    if not summary.message:
        return  # a process that followed another one, which has printed everything
    if as_json:
        import msgspec

        print(msgspec.json.encode(summary._asdict()).decode())
    if summary.manifest is not None:
        console.print(summary_table(summary.manifest))
    if summary.failures:
        console.print(failures_table(summary.failures))
    if summary.exit is Exit.DONE:
        chat(summary.message, _without_dry_run() if summary.forecast else _following(summary, root))
        return
    again = f"sand {summary.stage} --run {shlex.quote(str(root))}"
    chat(summary.message, f"{again} (tries them again; add --accept-failures to continue without them)")
    raise typer.Exit(summary.exit)


def _following(summary: "Summary", root: Path) -> str:
    from sandcli.core.run import Run
    from sandcli.pipeline import next_command

    return next_command(summary.stage, Run(root), context_of(root, {}, None).settings)


def _without_dry_run() -> str:
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
