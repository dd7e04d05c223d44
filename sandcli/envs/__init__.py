"""Text worlds: the protocol (`base`), the worlds themselves, and the pool of worker processes (`workers`)."""

import importlib
from collections.abc import Sequence
from functools import partial

from sandcli.envs.base import World
from sandcli.errors import UsageError

WORLDS = {"scienceworld": "sandcli.envs.scienceworld:ScienceWorld"}


def world_builder(name: str, simplifications: str, tasks: Sequence[str], step_limit: int) -> "partial[World]":
    """A picklable call that makes the world of this name, or of a `module:Class` of the user's own."""
    module, _, attribute = WORLDS.get(name, name).partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        fix = f"use one of {', '.join(WORLDS)}, or module:Class of your own world"
        raise UsageError(f"unknown environment {name!r}: {error}", fix) from None
    return partial(kind, simplifications, tuple(tasks), step_limit)
