"""Every command: parse, call the library function of the same name, print. Nothing heavy is imported on start."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sandcli.errors import Exit, MachineryError, SandError

if TYPE_CHECKING:
    from sandcli.config import Scalar
    from sandcli.run import Stage
    from sandcli.stages.context import Context
    from sandcli.stages.job import Summary

app = typer.Typer(
    help="Self-taught action deliberation (SAND): staged, resumable, crash-safe.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    epilog="Exit codes: 0 done, 1 some units failed, 2 usage or bad input, 3 a prerequisite is missing, "
    "70 an error of ours, 130 interrupted.",
)

games = typer.Typer(help="Games for ALFWorld.", no_args_is_help=True)
bench = typer.Typer(help="What this machine does, against the stock ways; ratios from one run.", no_args_is_help=True)
app.add_typer(games, name="games")
app.add_typer(bench, name="bench")

Form = Literal["terminal", "markdown", "csv", "latex"]
RunDir = Annotated[Path, typer.Option("--run", metavar="DIR", help="The run directory.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N trajectories (eval: tasks a split).")]
EngineKind = Annotated[str | None, typer.Option(help="auto, transformers, vllm, server, or scripted (for tests).")]
Workers = Annotated[int | None, typer.Option(min=1, help="Environment processes.")]
Processes = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that train together, one a GPU. Not needed under torchrun or Slurm."),
]
Seed = Annotated[int | None, typer.Option(help="The run's seed.")]
Temperature = Annotated[float | None, typer.Option(min=0, help="Sampling temperature (paper: 1.0).")]
Force = Annotated[bool, typer.Option("--force", help="Move what is there aside and redo the stage.")]
Stale = Annotated[
    bool,
    typer.Option("--accept-stale", help="Keep what was made from other inputs or settings, and go on; it is noted."),
]
Failed = Annotated[bool, typer.Option("--accept-failures", help="Finish without the units that machinery failed.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; do nothing.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command."""
    app.debug = debug  # type: ignore[attr-defined]


@app.command()
def init(
    run: RunDir,
    previous: Annotated[Path | None, typer.Option("--from", help="Start the iteration after this run.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="The paper's settings, such as scienceworld-llama3.1-8b; a wrong name lists all.")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="TABLE.KEY=VALUE", help="A setting.")] = None,
) -> None:
    """Make a run directory with its sand.toml."""
    from sandcli.starting import start_run

    start_run(run, previous, settings or [], preset)
    after = "sample" if previous else "collect"
    _chat(f"made {run}; settings are in {run / 'sand.toml'}", f"sand {after} --run {run}")


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
    from sandcli.stages.collect import CollectJob
    from sandcli.stages.work import work

    flags = {"collect.thoughts": thoughts, "collect.expert": expert, **_common(engine, workers, seed)}
    context = _context(run, flags, limit)
    job = CollectJob(context, source, keep_diverged)
    _report(work(job, _options(force, accept_stale, accept_failures, dry_run)), context, as_json)


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
    without: Annotated[
        str | None, typer.Option(help="An ablation: sampling (the base model proposes the actions), or critique.")
    ] = None,
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
    _stage("synthesize", run, {"method.without": without, **_common(engine, None, seed)}, limit, options, as_json)


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
        report([run])


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="The run directories.")],
    form: Annotated[Form, typer.Option("--format", help="How the tables are printed.")] = "terminal",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write all tables (.md, .csv, .tex) and figures (.svg, .png).")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write one page with all of it and a viewer of trajectories."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw the paper's Tables 2, 3 and 4 and Figures 3 and 4 from what was evaluated in one or more runs."""
    from sandcli.progress import notice
    from sandcli.reporting import on_terminal, report_on, write_files, written
    from sandcli.viewing import write_html

    made = report_on(runs, os.environ)
    if as_json:
        print(json.dumps(made.plain()))
    elif form == "terminal":
        for part in on_terminal(made):
            _out(part)
    else:
        print(written(made, form), end="")
    for line in (*(f"warning: {warning}" for warning in made.warnings), *made.lacking):
        notice(line)
    if out is not None:
        notice(f"wrote {len(write_files(made, out))} files to {out}")
    if page is not None:
        write_html(page, made, runs)
        notice(f"wrote {page}; open it in a browser")


@app.command()
def status(run: RunDir, as_json: Json = False) -> None:
    """Show every artifact: done, partial, stale or missing, and the units that failed."""
    from sandcli.status import listing, table

    items = listing(_context(run, {}, None))
    if as_json:
        print(json.dumps([item._asdict() for item in items]))
    else:
        _out(table(items))


@app.command()
def show(
    run: RunDir,
    name: Annotated[str | None, typer.Argument(metavar="ID", help="A trajectory; without it, all are listed.")] = None,
    step: Annotated[int | None, typer.Option(min=0, help="One step whole: from history to thought.")] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Show what is trained on, loss mask coloured.")] = False,
) -> None:
    """Read a trajectory, or one step of it with its candidates, rollouts, critiques and thought."""
    from sandcli.show import show_run

    for part in show_run(_context(run, {}, None), name, step, tokens):
        _out(part)


@app.command()
def config(run: RunDir, as_json: Json = False) -> None:
    """Show every setting in force and where it came from."""
    from rich.table import Table

    from sandcli.config import resolve, without_password
    from sandcli.run import Run

    Run(run).must_exist()
    settings = [
        setting._replace(value=[without_password(url) for url in setting.value])
        if isinstance(setting.value, list)
        else setting
        for setting in resolve(run, os.environ, {}).listing()
    ]
    if as_json:
        print(json.dumps([setting._asdict() for setting in settings]))
        return
    drawn = Table("setting", "value", "from", "meaning")
    for setting in settings:
        drawn.add_row(setting.name, json.dumps(setting.value), setting.origin, setting.meaning)
    _out(drawn)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine: Java, models, packages, GPU, disk; every lack comes with its mend."""
    from sandcli.doctor import examine, table

    checks = examine()
    if as_json:
        print(json.dumps([check._asdict() for check in checks]))
    else:
        _out(table(checks))
    if not all(check.fine for check in checks):
        raise typer.Exit(Exit.PREREQUISITE)


@games.command("make")
def games_make(
    out: Annotated[Path, typer.Argument(help="The folder to make; env.games of a run, or $ALFWORLD_DATA.")],
    per_type: Annotated[int, typer.Option(min=1, help="Games of each of the six types, in every split.")] = 2,
    seed: Annotated[int, typer.Option(help="The same seed makes the same games.")] = 0,
) -> None:
    """Make small ALFWorld games, each solved and played to its end, where ALFWorld's own data is not at hand."""
    from sandcli.envs.alfworld.world import Alfworld

    Alfworld().runtime()
    from sandcli.envs.alfworld.making import make_games

    for game in make_games(out, per_type, seed):
        print(f"{game.game}: won in {len(game.walkthrough)} steps")
    _chat(f"made games in {out}", f"sand init --run runs/alf1 --set env.name=alfworld --set env.games={out}")


@bench.command("env")
def bench_env(
    rounds: Annotated[int, typer.Option(min=1, help="Games and tasks that are played.")] = 6, as_json: Json = False
) -> None:
    """Our environments against the stock ones: steps, resets, and restoring the state after 20 steps."""
    from rich.table import Table

    from sandcli.bench.environments import bench_environments

    drawn, found = Table("ratio", "times", "slower, ms", "faster, ms", "meaning"), {}
    for ratio in bench_environments(rounds):
        found[ratio.name] = ratio.ratio
        drawn.add_row(ratio.name, f"{ratio.ratio:,.1f}", f"{ratio.slow:,.2f}", f"{ratio.fast:,.3f}", ratio.meaning)
    if as_json:
        print(json.dumps(found))
    else:
        _out(drawn)


@bench.command("rollout")
def bench_rollout(
    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="A run, for its policy, world and settings.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Branches that are rolled out.")] = 48,
    engine: EngineKind = None,
    as_json: Json = False,
) -> None:
    """The same rollouts one at a time, in lockstep, as `sand rollout` makes them, and the bare engine's requests."""
    from rich.table import Table

    from sandcli.bench.rollouts import bench_rollouts, chosen, ratios

    drawn, ways = Table("way", "tokens", "seconds", "tokens/s", "mean batch", "cache hits"), []
    with chosen(run, engine) as (context, model):
        for way in bench_rollouts(context, model, episodes):
            ways.append(way)
            hits, used = f"{way.hit_rate:.1%}", way.usage
            drawn.add_row(
                way.name, f"{used.generated:,}", f"{way.seconds:.1f}", f"{way.rate:.1f}", f"{used.batch:.1f}", hits
            )
    found = ratios(ways)._asdict()
    if as_json:
        print(json.dumps(found))
    else:
        _out(drawn)
        for name, value in found.items():
            _out(f"{name}: {value:g}")


@bench.command("train")
def bench_train(
    run: RunDir,
    steps: Annotated[int, typer.Option(min=2, help="Steps each way, one trajectory a step.")] = 12,
    as_json: Json = False,
) -> None:
    """The training of `sand sft` against a plain TRL script on the same rows: tokens a second, and the masks."""
    from sandcli.bench.training import bench_training

    found = bench_training(_context(run, {}, None), steps)._asdict()
    if as_json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            _out(f"{name.replace('_', ' ')}: {value}")


def _stage(
    stage: "Stage", run: Path, flags: "dict[str, Scalar | None]", limit: int | None, options: Any, as_json: bool
) -> None:
    from sandcli.stages.registry import perform

    context = _context(run, flags, limit)
    _report(perform(stage, context, options), context, as_json)


def _context(run: Path, flags: "dict[str, Scalar | None]", limit: int | None) -> "Context":
    from sandcli.config import resolve
    from sandcli.run import Run
    from sandcli.stages.context import Context

    there = Run(run)
    there.must_exist()
    return Context(there, resolve(run, os.environ, flags).settings, limit)


def _options(force: bool, accept_stale: bool, accept_failures: bool, dry_run: bool) -> Any:
    from sandcli.stages.job import Options

    return Options(force, accept_stale, accept_failures, dry_run)


def _common(engine: str | None, workers: int | None, seed: int | None) -> "dict[str, Scalar | None]":
    return {"engine.kind": engine, "run.workers": workers, "run.seed": seed}


def _listed(text: str | None) -> list[str] | None:
    return text.split(",") if text else None


def _report(summary: "Summary", context: "Context", as_json: bool) -> None:
    from sandcli.progress import console
    from sandcli.status import failures_table, following, summary_table

    if not summary.message:
        return  # a process that followed another one, which has told everything
    root = context.run.root
    if as_json:
        import msgspec

        print(msgspec.json.encode(summary._asdict()).decode())
    if summary.manifest is not None:
        console.print(summary_table(summary.manifest))
    if summary.failures:
        console.print(failures_table(summary.failures))
    if summary.exit is Exit.DONE:
        again = summary.forecast and "done;" not in summary.message
        _chat(summary.message, f"sand {summary.stage} --run {root}" if again else following(summary.stage, context))
        return
    _chat(summary.message, f"sand {summary.stage} --run {root} (tries them again; --accept-failures goes on without)")
    raise typer.Exit(summary.exit)


def _out(drawn: Any) -> None:
    from rich.console import Console

    Console(highlight=False).print(drawn)


def _chat(message: str, following: str) -> None:
    from sandcli.progress import notice

    notice(message)
    notice(f"next: {following}")


def main() -> None:
    """The `sand` command: errors become one line of what and one of how to mend it."""
    try:
        app()
    except SandError as error:
        _die(str(error.what), error.fix, error.exit)
    except MachineryError as error:
        _die(str(error), "sand doctor", Exit.PREREQUISITE)
    except KeyboardInterrupt:
        _die("interrupted", "run the same command again to go on", Exit.INTERRUPTED)
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
