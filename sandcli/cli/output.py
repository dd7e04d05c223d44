"""How commands print: data to stdout, everything else to stderr. And the run they work on."""

import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sandcli.errors import Exit

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sandcli.config import Scalar
    from sandcli.core.artifact import StageName
    from sandcli.core.context import Context
    from sandcli.core.stage import Summary


def context_of(run: Path, flags: "dict[str, Scalar | None]", limit: int | None) -> "Context":
    """A run with its settings; `flags` override them."""
    from sandcli import perform
    from sandcli.core.run import Run

    return perform.context_of(Run(run), flags, limit)


def print_summary(summary: "Summary", root: Path, as_json: bool) -> None:
    """Print how a stage ended and which command comes next. Raises `typer.Exit` if units failed.

    Work that goes on is named with all its options: without them it would be refused as something else.
    """
    if not summary.message:
        return  # one of several distributed processes: the first one prints everything
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(summary._asdict()))
    from sandcli.core.run import Run

    _print_details(summary)
    if summary.exit is Exit.DONE:
        print_next(summary.message, _this_command() if summary.forecast else command_after(summary.stage, root))
        return
    alone = f"{Run(root).artifact(summary.stage).command} --accept-failures"
    how = "add --accept-failures" if summary.stage in sys.argv[:3] else alone
    print_next(summary.message, f"{_this_command()} (tries them again; {how} to continue without them)")
    raise typer.Exit(summary.exit)


def _print_details(summary: "Summary") -> None:
    from sandcli.progress import console
    from sandcli.status import failures_view, summary_view

    for part in (
        *(summary_view(summary.manifest) if summary.manifest else ()),
        *(failures_view(summary.failures) if summary.failures else ()),
    ):
        console.print(part, crop=False)


def command_after(stage: "StageName", root: Path) -> str:
    """The command that comes after a stage of a run."""
    from sandcli.pipeline import next_command
    from sandcli.plans import stages_in

    context = context_of(root, {}, None)
    return next_command(stage, context.run, stages_in(context.run, context.settings))


def _this_command() -> str:
    """The command that is running, without its `--dry-run`."""
    return shlex.join(["sand", *(word for word in sys.argv[1:] if word != "--dry-run")])


def print_data(parts: "Iterable[RenderableType]") -> None:
    """Print data to stdout. Strings are literal: square brackets are no markup."""
    from rich.console import Console

    class Stdout(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    console = Stdout(highlight=False, markup=False, emoji=False)
    for part in parts:
        console.print(part, crop=False)


def print_text(text: str) -> None:
    """Print lines, with control characters made visible: they may reach a terminal."""
    from sandcli.terminal import visible

    print(visible(text), flush=True)


def print_json(value: Any) -> None:
    """Print one JSON value, in ASCII."""
    print_text(json.dumps(value))


@contextlib.contextmanager
def reader_may_end() -> Iterator[None]:
    """End quietly, as other programs do, if the reader of the output (such as `| head`) has ended.

    Typer and Rich then exit with 1, as if units had failed.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where the rest of the buffer goes
        sys.exit(128 + signal.SIGPIPE)


def print_next(message: str, command: str) -> None:
    """Print what was done and the next command to stderr."""
    from sandcli.progress import notice

    notice(message)
    notice(f"next: {command}")
