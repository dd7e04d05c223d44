"""`sand experiment`: arms, seeds and tasks of a plan."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sandcli.arguments import common
from sandcli.cli.app import app
from sandcli.cli.options import EngineKind
from sandcli.cli.output import print_data, print_next, print_summary


@app.command()
def experiment(
    plan: Annotated[Path, typer.Argument(help="The plan, a TOML file: see docs/experiments.md.")],
    run: Annotated[
        Path, typer.Option("--run", metavar="DIR", help="The experiment's folder, with a run for each arm and seed.")
    ],
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds 0 to N - 1 instead of the plan's.")] = None,
    only: Annotated[
        int | None, typer.Option(min=0, help="Only the runs of this seed, to make those of others on other devices.")
    ] = None,
    engine: EngineKind = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Environment processes.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs and their stages, those that are done in brackets.")
    ] = False,
) -> None:
    """Compare arms over seeds: make every run of a plan, sharing what is equal. Resumes where it stopped."""
    import asyncio

    from sandcli.errors import Exit
    from sandcli.experiments import Experiment
    from sandcli.interrupts import Interrupts

    made = Experiment(run, plan, seeds, only, common(engine, workers, None))
    if dry_run:
        print_data(made.outline())
        return
    with Interrupts():
        summary = asyncio.run(made.make())
    if summary.exit is not Exit.DONE:
        print_summary(summary, made.run.root, as_json=False)
    else:
        made_runs = "every run of the plan" if only is None else f"every run with the seed {only}"
        print_next(f"{made_runs} is done", shlex.join(["sand", "report", str(run)]))
