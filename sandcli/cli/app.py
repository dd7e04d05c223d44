"""The application that all commands belong to. An error ends it with one line on what went wrong and one on the fix."""

import io
import sys
import traceback
from typing import Annotated

import typer

from sandcli import __version__
from sandcli.cli.output import reader_may_end
from sandcli.errors import Exit, MachineryError, SandError

app = typer.Typer(
    help="Self-taught action deliberation (SAND): staged, resumable, crash-safe.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    epilog="Exit codes: 0 done, 1 some units failed, 2 wrong usage or bad input, 3 a prerequisite is missing, "
    "70 internal error, 130 interrupted.",
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"sand {__version__}")
        raise typer.Exit


@app.callback()
def every_command(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options that every command takes."""
    app.debug = debug  # type: ignore[attr-defined]


def main() -> None:
    """The `sand` command. Errors are printed as one line on what went wrong and one on how to fix it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal may not support every character
    try:
        with reader_may_end():
            app()
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except SandError as error:
        _exit_with(str(error.what), error.fix, error.exit)
    except MachineryError as error:
        _exit_with(str(error), "sand doctor", Exit.PREREQUISITE)
    except OSError as error:
        _exit_with(str(error), "check the path, its permissions and the free space on its disk", Exit.PREREQUISITE)
    except Exception as error:
        if "No space left" in str(error):  # safetensors raises its own error type
            _exit_with(str(error), "free some space, then run the same command again", Exit.PREREQUISITE)
        _exit_with(
            f"internal error: {type(error).__name__}: {error}",
            "sand --debug with the same command shows the traceback",
            Exit.INTERNAL,
        )


def _exit_with(what: str, fix: str, code: Exit) -> None:
    from sandcli.progress import notice

    if getattr(app, "debug", False):
        notice(traceback.format_exc())
    notice(f"error: {what}\n  fix: {fix}")
    sys.exit(code)
