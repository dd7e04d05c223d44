"""The stages, from `init` to `eval`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandcli.cli.app import app
from sandcli.cli.options import (
    DryRun,
    EngineKind,
    Failed,
    Force,
    Json,
    Limit,
    Processes,
    RunDir,
    Seed,
    Stale,
    Temperature,
    Workers,
)
from sandcli.cli.output import chat, context_of, tell

if TYPE_CHECKING:
    from sandcli.config import Scalar
    from sandcli.core.run import Stage


@app.command()
def init(
    run: RunDir,
    previous: Annotated[Path | None, typer.Option("--from", help="Start the iteration after this run.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="The paper's settings, such as scienceworld-llama3.1-8b; a wrong name lists all.")
    ] = None,
    without: Annotated[
        str | None, typer.Option(help="An ablation: sampling (the base model proposes the actions), or critique.")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="TABLE.KEY=VALUE", help="A setting.")] = None,
) -> None:
    """Make a run directory with its sand.toml."""
    from sandcli.init import start_run
    from sandcli.status import following

    ablation = [f"method.without={without}"] if without else []
    start_run(run, previous, [*(settings or []), *ablation], preset)
    after = following("collect", context_of(run, {}, None)) if previous else f"sand collect --run {run}"
    chat(f"made {run}; settings are in {run / 'sand.toml'}", after)


@app.command()
def collect(
    run: RunDir,
    source: Annotated[Path | None, typer.Option("--from", help="A file of trajectories in ETO's form.")] = None,
    keep_diverged: Annotated[bool, typer.Option(help="Keep trajectories of the file that replay differently.")] = False,
    thoughts: Annotated[str | None, typer.Option(help="base: the base model writes them; none: no thoughts.")] = None,
    expert: Annotated[
        str | None,
        typer.Option(
            help="ScienceWorld: gold, the simulator's own path. ALFWorld: handcoded, which searches and knows only "
            "what a player sees, or planner, which knows the hidden state and goes the shortest way."
        ),
    ] = None,
    limit: Limit = None,
    engine: EngineKind = None,
    workers: Workers = None,
    seed: Seed = None,
    force: Force = False,
    accept_stale: Stale = False,
    accept_failures: Failed = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make D_exp: from the world's own expert, or from a file of recorded trajectories, each verified by replay."""
    from sandcli.core.runner import work
    from sandcli.stages.collect import CollectJob

    flags = {"collect.thoughts": thoughts, "collect.expert": expert, **_common(engine, workers, seed)}
    context = context_of(run, flags, limit)
    job = CollectJob(context, source, keep_diverged)
    tell(work(job, _options(force, accept_stale, accept_failures, dry_run)), context, as_json)


@app.command()
def sft(
    run: RunDir,
    limit: Limit = None,
    nproc: Processes = None,
    seed: Seed = None,
    force: Force = False,
    accept_stale: Stale = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Fine-tune the base model on D_exp: the policy before iteration 1."""
    flags = {"trainer.nproc": nproc, **_common(None, None, seed)}
    _stage("sft", run, flags, limit, _options(force, accept_stale, False, dry_run), as_json)


@app.command()
def sample(
    run: RunDir,
    n: Annotated[int | None, typer.Option(min=1, help="Turns drawn at every step (paper: 5).")] = None,
    temperature: Temperature = None,
    limit: Limit = None,
    engine: EngineKind = None,
    seed: Seed = None,
    force: Force = False,
    accept_stale: Stale = False,
    accept_failures: Failed = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Draw N turns at every expert step and flag the steps where actions disagree (Eq. 4)."""
    flags = {"sample.n": n, "sample.temperature": temperature, **_common(engine, None, seed)}
    _stage("sample", run, flags, limit, _options(force, accept_stale, accept_failures, dry_run), as_json)


@app.command()
def rollout(
    run: RunDir,
    temperature: Temperature = None,
    limit: Limit = None,
    engine: EngineKind = None,
    workers: Workers = None,
    seed: Seed = None,
    force: Force = False,
    accept_stale: Stale = False,
    accept_failures: Failed = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Execute every candidate of a flagged step in the real environment, to the end of the episode."""
    flags = {"rollout.temperature": temperature, **_common(engine, workers, seed)}
    _stage("rollout", run, flags, limit, _options(force, accept_stale, accept_failures, dry_run), as_json)


@app.command()
def critique(
    run: RunDir,
    limit: Limit = None,
    engine: EngineKind = None,
    seed: Seed = None,
    force: Force = False,
    accept_stale: Stale = False,
    accept_failures: Failed = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let the base model judge every candidate from what its rollout led to."""
    options = _options(force, accept_stale, accept_failures, dry_run)
    _stage("critique", run, _common(engine, None, seed), limit, options, as_json)


@app.command()
def synthesize(
    run: RunDir,
    limit: Limit = None,
    engine: EngineKind = None,
    seed: Seed = None,
    force: Force = False,
    accept_stale: Stale = False,
    accept_failures: Failed = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let the base model write one deliberation a flagged step, and make D_delib."""
    options = _options(force, accept_stale, accept_failures, dry_run)
    _stage("synthesize", run, _common(engine, None, seed), limit, options, as_json)


@app.command()
def train(
    run: RunDir,
    limit: Limit = None,
    nproc: Processes = None,
    seed: Seed = None,
    force: Force = False,
    accept_stale: Stale = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Fine-tune the policy on D_delib: the next policy."""
    flags = {"trainer.nproc": nproc, **_common(None, None, seed)}
    _stage("train", run, flags, limit, _options(force, accept_stale, False, dry_run), as_json)


@app.command("eval")
def evaluate(
    run: RunDir,
    splits: Annotated[str | None, typer.Option(help="Comma list of train, seen, unseen.")] = None,
    models: Annotated[str | None, typer.Option(help="Comma list of model, sft, base, or folders.")] = None,
    limit: Limit = None,
    engine: EngineKind = None,
    workers: Workers = None,
    force: Force = False,
    accept_stale: Stale = False,
    accept_failures: Failed = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Run greedy episodes on held-out tasks: reward, success, deliberation rate, tokens."""
    flags = {"eval.splits": _listed(splits), "eval.models": _listed(models), **_common(engine, workers, None)}
    _stage("eval", run, flags, limit, _options(force, accept_stale, accept_failures, dry_run), as_json)
    if not dry_run and not as_json:
        from sandcli.cli.inspect import report

        report([run])


def _stage(
    stage: "Stage", run: Path, flags: "dict[str, Scalar | None]", limit: int | None, options: Any, as_json: bool
) -> None:
    from sandcli.pipeline import perform

    context = context_of(run, flags, limit)
    tell(perform(stage, context, options), context, as_json)


def _options(force: bool, accept_stale: bool, accept_failures: bool, dry_run: bool) -> Any:
    from sandcli.core.stage import Options

    return Options(force, accept_stale, accept_failures, dry_run)


def _common(engine: str | None, workers: int | None, seed: int | None) -> "dict[str, Scalar | None]":
    return {"engine.kind": engine, "run.workers": workers, "run.seed": seed}


def _listed(text: str | None) -> list[str] | None:
    return [part.strip() for part in text.split(",")] if text else None
