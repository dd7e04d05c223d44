"""Text worlds: the protocol (`base`), the worlds themselves, and the pool of worker processes (`workers`).

Worlds are plug-ins: any installed package may offer one under the entry-point group `sandcli.envs`.
"""

import importlib
from functools import partial
from importlib.metadata import entry_points

from sandcli.envs.base import World, WorldSettings
from sandcli.errors import UsageError

GROUP = "sandcli.envs"


def world_builder(name: str, settings: WorldSettings) -> "partial[World]":
    """A picklable call that makes the world of this name, or of a `module:Class`."""
    known = {point.name: point.value for point in entry_points(group=GROUP)}
    module, _, attribute = known.get(name, name).partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        fix = f"use one of {', '.join(sorted(known))}, or module:Class of your own world"
        raise UsageError(f"unknown environment {name!r}: {error}", fix) from None
    return partial(kind, settings)
