"""Text worlds: the protocol (`base`), the worlds themselves, and the pool of worker processes (`pool`).

Worlds are plug-ins: any installed package can add one under the entry-point group `sandcli.envs`.
"""

import contextlib
import importlib
import sys
from functools import partial
from importlib.metadata import entry_points

from sandcli.envs.base import World
from sandcli.errors import UsageError
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
    except Exception as error:
        what = f"the module of the environment {settings.name!r} does not load: {type(error).__name__}: {error}"
        raise UsageError(
            what, "correct the module; run the same command with sand --debug to see where it fails"
        ) from error
