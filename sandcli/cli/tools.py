"""Games to play and benchmarks."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sandcli.cli.app import app
from sandcli.cli.options import EngineKind, Json, RunDir
from sandcli.cli.output import chat, context_of, put

games = typer.Typer(help="Games for ALFWorld.", no_args_is_help=True)
bench = typer.Typer(help="What this machine does, against the stock ways; ratios from one run.", no_args_is_help=True)
app.add_typer(games, name="games")
app.add_typer(bench, name="bench")


@games.command("make")
def games_make(
    out: Annotated[Path, typer.Argument(help="The folder to make; env.games of a run, or $ALFWORLD_DATA.")],
    per_type: Annotated[int, typer.Option(min=1, help="Games of each of the six types, in every split.")] = 2,
    seed: Annotated[int, typer.Option(help="The same seed makes the same games.")] = 0,
) -> None:
    """Make small ALFWorld games, each solved and played to its end, where ALFWorld's own data is not at hand."""
    from sandcli.envs.alfworld.world import Alfworld

    Alfworld().check_available()
    from sandcli.envs.alfworld.making import make_games

    for game in make_games(out, per_type, seed):
        print(f"{game.game}: won in {len(game.walkthrough)} steps")
    chat(f"made games in {out}", f"sand init --run runs/alf1 --set env.name=alfworld --set env.games={out}")


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
        put(drawn)


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
        put(drawn)
        for name, value in found.items():
            put(f"{name}: {value:g}")


@bench.command("train")
def bench_train(
    run: RunDir,
    steps: Annotated[int, typer.Option(min=2, help="Steps each way, one trajectory a step.")] = 12,
    as_json: Json = False,
) -> None:
    """The training of `sand sft` against a plain TRL script on the same rows: tokens a second, and the masks."""
    from sandcli.bench.training import bench_training

    found = bench_training(context_of(run, {}, None), steps)._asdict()
    if as_json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            put(f"{name.replace('_', ' ')}: {value}")
