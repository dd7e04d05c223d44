"""Text worlds: the protocol (`base`), the worlds themselves, and the pool of worker processes (`pool`).

Worlds are plug-ins: any installed package can add one under the entry-point group `sandcli.envs`.
"""

import importlib
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
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        fix = f"use one of {', '.join(sorted(known))}, or module:Class of your own world"
        raise UsageError(f"unknown environment {settings.name!r}: {error}", fix) from None
    return partial(kind, settings)
