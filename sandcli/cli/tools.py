"""`sand games`, which makes small ALFWorld games, and `sand bench`, the benchmarks."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sandcli.cli.app import app
from sandcli.cli.options import EngineKind, Json, RunDir
from sandcli.cli.output import context_of, print_data, print_json, print_next, print_text

games = typer.Typer(help="Make games for ALFWorld.", no_args_is_help=True)
bench = typer.Typer(
    help="Measure this program against the usual way of doing the same, on this machine. Results are ratios.",
    no_args_is_help=True,
)
app.add_typer(games, name="games")
app.add_typer(bench, name="bench")


@games.command("make")
def games_make(
    out: Annotated[Path, typer.Argument(help="The folder to make. Point env.games of a run or $ALFWORLD_DATA to it.")],
    per_type: Annotated[int, typer.Option(min=1, help="Games of each of the six types in every split.")] = 2,
    seed: Annotated[int, typer.Option(help="The same seed makes the same games.")] = 0,
) -> None:
    """Make small ALFWorld games for use without ALFWorld's own data. Each is solved and played to its end."""
    from sandcli.envs.alfworld.world import Alfworld

    Alfworld().check_available()
    from sandcli.envs.alfworld.making import make_games

    for game in make_games(out, per_type, seed):
        print_text(f"{game.game}: won in {len(game.walkthrough)} steps")
    command = ["sand", "init", "--run", "runs/alf1", "--set", "env.name=alfworld", "--set", f"env.games={out}"]
    print_next(f"made games in {out}", shlex.join(command))


@bench.command("env")
def bench_env(
    rounds: Annotated[int, typer.Option(min=1, help="How many games and tasks to play.")] = 6, as_json: Json = False
) -> None:
    """Compare environments with the stock ones: steps, resets, and restoring a state 20 steps into an episode."""
    from rich.table import Table

    from sandcli.bench.environments import bench_environments

    table, ratios = Table("ratio", "times", "slower, ms", "faster, ms", "meaning"), {}
    for ratio in bench_environments(rounds):
        ratios[ratio.name] = ratio.ratio
        table.add_row(ratio.name, f"{ratio.ratio:,.1f}", f"{ratio.slow:,.2f}", f"{ratio.fast:,.3f}", ratio.meaning)
    if as_json:
        print_json(ratios)
    else:
        print_data([table])


@bench.command("rollout")
def bench_rollout(
    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="The run whose policy, world and settings to use.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="How many branches to roll out.")] = 48,
    engine: EngineKind = None,
    as_json: Json = False,
) -> None:
    """Compare `sand rollout` with rollouts one at a time, with rollouts in lockstep, and with the engine alone."""
    from rich.table import Table

    from sandcli.bench.rollouts import bench_rollouts, chosen, ratios

    with chosen(run, engine) as (context, model):
        variants = list(bench_rollouts(context, model, episodes))
    found = ratios(variants)._asdict()
    if as_json:
        print_json(found)
        return
    table = Table("variant", "tokens", "seconds", "tokens/s", "mean batch", "cache hits")
    for variant in variants:
        used, numbers = variant.usage, (f"{variant.seconds:.1f}", f"{variant.rate:.1f}")
        hits = "unknown" if variant.hit_rate is None else f"{variant.hit_rate:.1%}"
        table.add_row(variant.name, f"{used.generated:,}", *numbers, f"{used.batch:.1f}", hits)
    print_data([table, *(f"{name}: {'unknown' if value is None else f'{value:g}'}" for name, value in found.items())])


@bench.command("train")
def bench_train(
    run: RunDir,
    steps: Annotated[int, typer.Option(min=2, help="Training steps of each variant, one trajectory a step.")] = 12,
    as_json: Json = False,
) -> None:
    """Compare the training of `sand sft` with a plain TRL script on the same rows: tokens per second and loss masks."""
    from sandcli.models import require_package

    require_package("trl", "this benchmark")
    from sandcli.bench.training import bench_training

    found = bench_training(context_of(run, {}, None), steps)._asdict()
    if as_json:
        print_json(found)
    else:
        print_data(f"{name.replace('_', ' ')}: {value}" for name, value in found.items())
