"""Commands that only read: `report`, `export`, `status`, `show`, `config`, `doctor`."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sandcli.cli.app import app
from sandcli.cli.options import Json, RunDir
from sandcli.cli.output import context_of, print_data, print_json, print_text
from sandcli.errors import Exit
from sandcli.parameters import ExportData, ExportForm

if TYPE_CHECKING:
    from sandcli.report.build import Report

Form = Literal["terminal", "markdown", "csv", "latex"]


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run directories, or the folder of an experiment or an arm.")
    ],
    form: Annotated[Form, typer.Option("--format", help="The format of the printed tables.")] = "terminal",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write every table (.md, .csv, .tex) and figure (.svg, .png) to this folder."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            dir_okay=False,
            help="Write one HTML page with tables, figures and a viewer of episodes and trajectories.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the paper's Tables 2, 3 and 4 and Figures 3 and 4, and diagnostics, from one or more evaluated runs."""
    from sandcli.progress import notice
    from sandcli.report.build import build_report, write_files
    from sandcli.report.html import write_html

    made = build_report(runs)
    _print(made, form, as_json)
    for line in (*(f"warning: {warning}" for warning in made.warnings), *made.missing):
        notice(line)
    if out is not None:
        notice(f"wrote {len(write_files(made, out))} files to {out}")
    if page is not None:
        write_html(page, made)
        notice(f"wrote {page}; open it in a browser")


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="The file to make; it ends in .jsonl or .parquet.")],
    run: RunDir,
    data: Annotated[
        ExportData,
        typer.Option(
            help="expert (D_exp), deliberations (D_delib, made by synthesize), rft or knowagent (made by explore), or "
            "pairs."
        ),
    ] = ("deliberations"),
    form: Annotated[
        ExportForm | None,
        typer.Option(
            help="messages (of OpenAI and TRL; the default) and sharegpt: a row for each trajectory; "
            "prompt-completion: a row for each of the agent's turns; preference: prompt, chosen and rejected of each "
            "pair (the only form of pairs)."
        ),
    ] = None,
    min_reward: Annotated[
        float | None, typer.Option(help="Only trajectories, or chosen ones, with at least this reward.")
    ] = None,
    only_deliberated: Annotated[
        bool, typer.Option("--only-deliberated", help="Only trajectories, or turns, with a deliberation.")
    ] = False,
) -> None:
    """Write trajectories or preference pairs to a file that other trainers can read."""
    from sandcli.api.runs import export as write_rows

    rows = write_rows(run, file, data=data, form=form, min_reward=min_reward, only_deliberated=only_deliberated)
    print_text(f"wrote {rows:,} rows to {file}")


def _print(made: "Report", form: Form, as_json: bool) -> None:
    from sandcli.report.build import tables_as, tables_for_terminal

    if as_json:
        print_json(made.plain())
    elif form == "terminal":
        print_data(tables_for_terminal(made))
    else:
        print_text(tables_as(made, form).removesuffix("\n"))


@app.command()
def status(run: RunDir, as_json: Json = False) -> None:
    """Show the state of every stage (done, partial, stale or missing) and count the units that failed."""
    from sandcli.status import status_of, status_view

    stages = status_of(context_of(run, {}, None))
    if as_json:
        print_json([stage._asdict() for stage in stages])
    else:
        print_data(status_view(stages))


@app.command()
def show(
    run: RunDir,
    name: Annotated[
        str | None, typer.Argument(metavar="ID", help="The trajectory to show. Without it, all are listed.")
    ] = None,
    step: Annotated[int | None, typer.Option(min=0, help="Show everything about this step of the trajectory.")] = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Show the trajectory as tokens; those with loss are coloured.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Print every observation in full, even long and repeated ones.")
    ] = False,
) -> None:
    """Show a trajectory, or one step of it: its history, candidates, rollouts, critiques and deliberation."""
    from sandcli.show import show_run

    print_data(show_run(context_of(run, {}, None), name, step, tokens, full))


@app.command()
def config(run: RunDir, as_json: Json = False) -> None:
    """Show every setting: its value, where the value comes from, and what the setting means."""
    from rich.table import Column, Table

    from sandcli.config import resolve, showable
    from sandcli.core.run import Run
    from sandcli.terminal import visible

    Run(run).must_exist()
    listed = resolve(run, os.environ, {}).listing()
    settings = [setting._replace(value=showable(setting.name, setting.value)) for setting in listed]
    if as_json:
        print_json([setting._asdict() for setting in settings])
        return
    names = [Column(name, overflow="fold") for name in ("value", "from", "meaning")]
    table = Table(Column("setting", no_wrap=True), *names)
    for setting in settings:
        table.add_row(setting.name, json.dumps(setting.value), visible(setting.origin), setting.meaning)
    print_data([table])


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine (Java, models, packages, GPU, disk) and print a fix for everything that is missing."""
    from sandcli.doctor import examine, table

    checks = examine()
    if as_json:
        print_json([check._asdict() for check in checks])
    else:
        print_data([table(checks)])
    if not all(check.ok for check in checks):
        raise typer.Exit(Exit.PREREQUISITE)
