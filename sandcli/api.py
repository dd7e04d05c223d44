"""The library: one function for each command, callable from Python, from a notebook, and awaitable.

`sample(run, n=5)` blocks; `await sample.aio(run, n=5)` runs in the caller's event loop. The command line takes the
names, types, bounds and help of its options from these signatures. Nothing heavy is imported before a call.
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, Union

from msgspec import Meta

from sandcli import parameters as given
from sandcli.verb import Verb

if TYPE_CHECKING:
    from sandcli.config import Scalar
    from sandcli.core.artifact import StageName
    from sandcli.core.run import Run
    from sandcli.core.stage import Options, Summary

RunLike: TypeAlias = Union["Run", str, PathLike[str]]
"""A run, or the path of its directory."""


def init(
    run: RunLike,
    *,
    previous: RunLike | None = None,
    preset: str | None = None,
    protocol: str | None = None,
    settings: "Mapping[str, Scalar] | None" = None,
) -> "Run":
    """Make a run directory with its sand.toml; with `previous`, the iteration after that run.

    `settings` are by `table.key`, such as `{"sample.n": 5}`; they override those of the preset and the protocol. Raises
    `UsageError` for a wrong setting or if there is a run already, `PrerequisiteError` if the previous run is not
    finished.
    """
    from sandcli.new_run import start_run

    made = as_run(run)
    start_run(made.root, as_run(previous).root if previous is not None else None, settings or {}, preset, protocol)
    return made


@Verb
async def collect(
    run: RunLike,
    *,
    source: given.Source = None,
    strict: Annotated[bool, Meta(description="Accept a recorded trajectory only if it replays word for word.")] = False,
    as_recorded: Annotated[
        bool, Meta(description="Keep the recorded texts instead of the replay's; for training only.")
    ] = False,
    thoughts: Annotated[str | None, Meta(description="base: the base model writes them; none: no thoughts.")] = None,
    expert: given.Expert = None,
    limit: given.Limit = None,
    engine: given.EngineKind = None,
    workers: given.Workers = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Make D_exp: from the world's own expert, or from recorded trajectories, each verified by replay."""
    flags = {
        "collect.source": _found(source),
        "collect.rows": _rule(strict, as_recorded),
        "collect.thoughts": thoughts,
        "collect.expert": expert,
        **_common(engine, workers, seed),
    }
    return await _do("collect", run, flags, limit, _options(force, accept_stale, accept_failures, dry_run))


@Verb
async def sft(
    run: RunLike,
    *,
    limit: given.Limit = None,
    nproc: given.Processes = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Fine-tune the base model on D_exp: the policy before iteration 1."""
    flags = {"trainer.nproc": nproc, **_common(None, None, seed)}
    return await _do("sft", run, flags, limit, _options(force, accept_stale, False, dry_run))


@Verb
async def sample(
    run: RunLike,
    *,
    n: Annotated[int | None, Meta(ge=1, description="Turns sampled at every step (paper: 5).")] = None,
    temperature: given.Temperature = None,
    limit: given.Limit = None,
    engine: given.EngineKind = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Sample N turns at every expert step and flag the steps where actions disagree (Eq. 4)."""
    flags = {"sample.n": n, "sample.temperature": temperature, **_common(engine, None, seed)}
    return await _do("sample", run, flags, limit, _options(force, accept_stale, accept_failures, dry_run))


@Verb
async def rollout(
    run: RunLike,
    *,
    temperature: given.Temperature = None,
    limit: given.Limit = None,
    engine: given.EngineKind = None,
    workers: given.Workers = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Execute every candidate of a flagged step in the real environment, to the end of the episode."""
    flags = {"rollout.temperature": temperature, **_common(engine, workers, seed)}
    return await _do("rollout", run, flags, limit, _options(force, accept_stale, accept_failures, dry_run))


@Verb
async def critique(
    run: RunLike,
    *,
    limit: given.Limit = None,
    engine: given.EngineKind = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Let the base model criticise every candidate from what its rollout led to (Eq. 5)."""
    options = _options(force, accept_stale, accept_failures, dry_run)
    return await _do("critique", run, _common(engine, None, seed), limit, options)


@Verb
async def synthesize(
    run: RunLike,
    *,
    limit: given.Limit = None,
    engine: given.EngineKind = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Let the base model write one deliberation for each flagged step (Eq. 6), and make D_delib."""
    options = _options(force, accept_stale, accept_failures, dry_run)
    return await _do("synthesize", run, _common(engine, None, seed), limit, options)


@Verb
async def train(
    run: RunLike,
    *,
    limit: given.Limit = None,
    nproc: given.Processes = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Fine-tune the policy on D_delib: the next policy."""
    flags = {"trainer.nproc": nproc, **_common(None, None, seed)}
    return await _do("train", run, flags, limit, _options(force, accept_stale, False, dry_run))


@Verb
async def evaluate(
    run: RunLike,
    *,
    panel: given.Panel = None,
    splits: given.Splits = None,
    models: given.Models = None,
    deliberation: Annotated[str | None, Meta(description="Comma-separated list of free, never, always.")] = None,
    limit: given.Tasks = None,
    engine: given.EngineKind = None,
    workers: given.Workers = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Run greedy episodes on held-out tasks: reward, success, deliberation rate, tokens."""
    flags = {**_played(panel, splits, models, engine, workers), "eval.deliberation": _listed(deliberation)}
    return await _do("eval", run, flags, limit, _options(force, accept_stale, accept_failures, dry_run))


@Verb
async def counterfactual(
    run: RunLike,
    *,
    panel: given.Panel = None,
    splits: given.Splits = None,
    models: given.Models = None,
    limit: given.Limit = None,
    engine: given.EngineKind = None,
    workers: given.Workers = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Take every deliberated step of the evaluated episodes again, without deliberating: what changes?"""
    options = _options(force, accept_stale, accept_failures, dry_run)
    return await _do("counterfactual", run, _played(panel, splits, models, engine, workers), limit, options)


@Verb
async def iterate(
    run: RunLike,
    *,
    iterations: Annotated[int, Meta(ge=1, description="Iterations of the method (paper: 3).")] = 3,
    until: Annotated[str | None, Meta(description="Stop after this stage of the last iteration.")] = None,
    engine: given.EngineKind = None,
    workers: given.Workers = None,
    dry_run: given.DryRun = False,
) -> "list[Summary]":
    """Run Algorithm 1: every stage of the first iteration, then the next iterations, each in a directory of its own.

    Stopped at any point, the same call resumes there. The iteration after `runs/it1` goes into `runs/it2`. Ends early
    if units of a stage failed.
    """
    from sandcli.perform import Pipeline

    return await Pipeline(_common(engine, workers, None), iterations, until, dry_run).run(as_run(run))


async def _do(
    name: "StageName", run: RunLike, flags: "Mapping[str, Scalar | None]", limit: int | None, options: "Options"
) -> "Summary":
    from sandcli.perform import context_of, perform

    return await perform(name, context_of(as_run(run), flags, limit), options)


def as_run(run: RunLike) -> "Run":
    """The run of a path."""
    from sandcli.core.run import Run

    return run if isinstance(run, Run) else Run(run)


def _found(source: Path | None) -> str | None:
    """A path given by the caller, or a name on the hub."""
    if source is None:
        return None
    path = Path(source)
    return str(path.absolute() if path.exists() else source)


def _rule(strict: bool, as_recorded: bool) -> str | None:
    from sandcli.errors import UsageError

    if strict and as_recorded:
        raise UsageError("strict and as-recorded contradict each other", "choose one of them")
    return "strict" if strict else "as-recorded" if as_recorded else None


def _options(force: bool, accept_stale: bool, accept_failures: bool, dry_run: bool) -> "Options":
    from sandcli.core.stage import Options

    return Options(force, accept_stale, accept_failures, dry_run)


def _common(engine: str | None, workers: int | None, seed: int | None) -> "dict[str, Scalar | None]":
    return {"engine.kind": engine, "run.workers": workers, "run.seed": seed}


def _listed(text: str | None) -> list[str] | None:
    return [part.strip() for part in text.split(",")] if text else None


def _played(
    panel: str | None, splits: str | None, models: str | None, engine: str | None, workers: int | None
) -> "dict[str, Scalar | None]":
    """What is played, and by whom. A panel is named, or given as a path from the current folder."""
    from sandcli.panels.files import PUBLISHED

    named = panel is None or panel in PUBLISHED
    chosen = {"eval.panel": panel if named else _found(Path(panel or "")), "eval.splits": _listed(splits)}
    return {**chosen, "eval.models": _listed(models), **_common(engine, workers, None)}
