"""The application that all commands belong to, and how it ends: errors become a line of what and one of how."""

import sys
from typing import Annotated

import typer

from sandcli import __version__
from sandcli.errors import Exit, MachineryError, SandError

app = typer.Typer(
    help="Self-taught action deliberation (SAND): staged, resumable, crash-safe.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    epilog="Exit codes: 0 done, 1 some units failed, 2 usage or bad input, 3 a prerequisite is missing, "
    "70 an error of ours, 130 interrupted.",
)


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"sand {__version__}")
        raise typer.Exit


@app.callback()
def every_command(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """Options of every command."""
    app.debug = debug  # type: ignore[attr-defined]


def main() -> None:
    """The `sand` command: errors become one line of what and one of how to mend it."""
    try:
        app()
    except SandError as error:
        _die(str(error.what), error.fix, error.exit)
    except MachineryError as error:
        _die(str(error), "sand doctor", Exit.PREREQUISITE)
    except OSError as error:
        _die(str(error), "check that path, its permissions and the space on its disk", Exit.PREREQUISITE)
    except Exception as error:
        if "No space left" in str(error):  # safetensors has an error of its own for it
            _die(str(error), "free some space, then run the same command again", Exit.PREREQUISITE)
        _die(f"internal error: {type(error).__name__}: {error}", "sand --debug shows where", Exit.INTERNAL)


def _die(what: str, fix: str, code: Exit) -> None:
    if getattr(app, "debug", False):
        raise
    print(f"error: {what}\n  fix: {fix}", file=sys.stderr)
    sys.exit(code)
