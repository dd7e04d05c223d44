"""Text worlds: the protocol (`base`), the worlds themselves, and the pool of worker processes (`pool`).

Worlds are plug-ins: any installed package can add one under the entry-point group `sandcli.envs`.
"""

import contextlib
import importlib
import sys
from functools import partial
from importlib.metadata import entry_points

from sandcli.envs.base import World
from sandcli.errors import SandError, UsageError
from sandcli.settings import EnvSettings

GROUP = "sandcli.envs"


def world_builder(settings: EnvSettings) -> "partial[World]":
    """A picklable call that makes the world `settings.name`: a registered name, or `module:Class`."""
    known = {point.name: point.value for point in entry_points(group=GROUP)}
    module, _, attribute = known.get(settings.name, settings.name).partition(":")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for data
            kind = getattr(importlib.import_module(module), attribute)
        return partial(kind, settings)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        fix = f"use one of {', '.join(sorted(known))}, or module:Class of your own world"
        raise UsageError(f"unknown environment {settings.name!r}: {error}", fix) from None
    except (Exception, SystemExit) as error:
        raise _broken(f"the module of the environment {settings.name!r} does not load", error) from error


def make_world(build: "partial[World]") -> World:
    """The world. Raises `UsageError` if its own code fails, which the message says."""
    try:
        return build()
    except SandError:
        raise
    except (Exception, SystemExit) as error:
        made = f"{build.func.__module__}:{build.func.__qualname__}"
        raise _broken(f"the environment {made} cannot be made", error) from error


def _broken(what: str, error: BaseException) -> UsageError:
    why = "it calls sys.exit" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
    return UsageError(f"{what}: {why}", "correct it; run the same command with sand --debug to see where it fails")
