"""What the functions of the library share: from their arguments to a stage that runs."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

if TYPE_CHECKING:
    from sandcli.config import Scalar
    from sandcli.core.artifact import StageName
    from sandcli.core.run import Run
    from sandcli.core.stage import Options, Summary

RunLike: TypeAlias = Union["Run", str, PathLike[str]]
"""A run, or the path of its directory."""


async def do(
    name: "StageName", run: RunLike, flags: "Mapping[str, Scalar | None]", limit: int | None, options: "Options"
) -> "Summary":
    """Bring one stage of a run up to date."""
    from sandcli.perform import context_of, perform

    return await perform(name, context_of(as_run(run), flags, limit), options)


def as_run(run: RunLike) -> "Run":
    """The run of a path."""
    from sandcli.core.run import Run

    return run if isinstance(run, Run) else Run(run)


def found(source: Path | None) -> str | None:
    """A path given by the caller, or a name on the hub."""
    if source is None:
        return None
    path = Path(source)
    return str(path.absolute() if path.exists() else source)


def rule(strict: bool, as_recorded: bool) -> str | None:
    """The value of collect.rows. Raises `UsageError` if both are asked for."""
    from sandcli.errors import UsageError

    if strict and as_recorded:
        raise UsageError("strict and as-recorded contradict each other", "choose one of them")
    return "strict" if strict else "as-recorded" if as_recorded else None


def options(force: bool, accept_stale: bool, accept_failures: bool, dry_run: bool) -> "Options":
    """What the user asks of any stage."""
    from sandcli.core.stage import Options

    return Options(force, accept_stale, accept_failures, dry_run)


def common(
    engine: str | None, workers: int | None, seed: int | None, cluster: str | None = None
) -> "dict[str, Scalar | None]":
    """The settings that most stages share."""
    return {"engine.kind": engine, "run.workers": workers, "run.seed": seed, "cluster.address": cluster}


def trained_by(
    nproc: int | None, nodes: int | None, first_node: str | None, seed: int | None
) -> "dict[str, Scalar | None]":
    """The settings that all training stages share."""
    compute = {"trainer.nproc": nproc, "trainer.nodes": nodes, "trainer.first_node": first_node}
    return {**compute, **common(None, None, seed)}


def listed(text: str | None) -> list[str] | None:
    """The items of a list that commas separate."""
    return [part.strip() for part in text.split(",")] if text else None


def played(
    panel: str | None,
    splits: str | None,
    models: str | None,
    shared: "dict[str, Scalar | None]",
) -> "dict[str, Scalar | None]":
    """What is played, and by whom, and the `shared` settings. A panel is named, or a path from the current folder."""
    from sandcli.panels.files import PUBLISHED

    named = not panel or panel in PUBLISHED
    chosen = {"eval.panel": panel if named else found(Path(panel or "")), "eval.splits": listed(splits)}
    return {**chosen, "eval.models": listed(models), **shared}
