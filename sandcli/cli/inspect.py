"""Reports, and everything that shows what is there."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sandcli.cli.app import app
from sandcli.cli.options import Json, RunDir
from sandcli.cli.output import context_of, put
from sandcli.errors import Exit

if TYPE_CHECKING:
    from sandcli.report.build import Report

Form = Literal["terminal", "markdown", "csv", "latex"]


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="The run directories.")],
    form: Annotated[Form, typer.Option("--format", help="How the tables are printed.")] = "terminal",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write all tables (.md, .csv, .tex) and figures (.svg, .png).")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", dir_okay=False, help="Write one page with all of it and a viewer of trajectories."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw the paper's Tables 2, 3 and 4 and Figures 3 and 4 from what was evaluated in one or more runs."""
    from sandcli.progress import notice
    from sandcli.report.build import report_on, write_files
    from sandcli.report.html import write_html

    made = report_on(runs)
    _print(made, form, as_json)
    for line in (*(f"warning: {warning}" for warning in made.warnings), *made.lacking):
        notice(line)
    if out is not None:
        notice(f"wrote {len(write_files(made, out))} files to {out}")
    if page is not None:
        write_html(page, made)
        notice(f"wrote {page}; open it in a browser")


def _print(made: "Report", form: Form, as_json: bool) -> None:
    from sandcli.report.build import on_terminal, written

    if as_json:
        print(json.dumps(made.plain()))
    elif form == "terminal":
        for part in on_terminal(made):
            put(part)
    else:
        print(written(made, form), end="")


@app.command()
def status(run: RunDir, as_json: Json = False) -> None:
    """Show every artifact: done, partial, stale or missing, and the units that failed."""
    from sandcli.status import listing, table

    items = listing(context_of(run, {}, None))
    if as_json:
        print(json.dumps([item._asdict() for item in items]))
    else:
        put(table(items))


@app.command()
def show(
    run: RunDir,
    name: Annotated[str | None, typer.Argument(metavar="ID", help="A trajectory; without it, all are listed.")] = None,
    step: Annotated[int | None, typer.Option(min=0, help="One step whole: from history to thought.")] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Show what is trained on, loss mask coloured.")] = False,
) -> None:
    """Read a trajectory, or one step of it with its candidates, rollouts, critiques and thought."""
    from sandcli.show import show_run

    for part in show_run(context_of(run, {}, None), name, step, tokens):
        put(part)


@app.command()
def config(run: RunDir, as_json: Json = False) -> None:
    """Show every setting in force and where it came from."""
    from rich.table import Column, Table

    from sandcli.config import resolve
    from sandcli.core.run import Run
    from sandcli.settings import without_password

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
    drawn = Table("setting", "value", Column("from", overflow="fold"), "meaning")
    for setting in settings:
        drawn.add_row(setting.name, json.dumps(setting.value), setting.origin, setting.meaning)
    put(drawn)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine: Java, models, packages, GPU, disk; every lack comes with its mend."""
    from sandcli.doctor import examine, table

    checks = examine()
    if as_json:
        print(json.dumps([check._asdict() for check in checks]))
    else:
        put(table(checks))
    if not all(check.ok for check in checks):
        raise typer.Exit(Exit.PREREQUISITE)
