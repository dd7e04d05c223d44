"""`sand panel`: makes and checks evaluation panels."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandcli.cli.app import app
from sandcli.cli.options import Json, RunDir
from sandcli.cli.output import context_of, print_json, print_next, print_text
from sandcli.errors import Exit

if TYPE_CHECKING:
    from sandcli.core.context import Context
    from sandcli.panels.panel import Panel, PanelTask

panel = typer.Typer(help="Fix everything about an evaluation except the agent's weights.", no_args_is_help=True)
app.add_typer(panel, name="panel")


@panel.command("make")
def panel_make(
    file: Annotated[Path, typer.Argument(help="The file to make.")],
    run: RunDir,
    splits: Annotated[
        str | None, typer.Option(help="Comma-separated list of splits; default: the run's eval.splits.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only N tasks of each split: those that `sand eval --limit N` plays.")
    ] = None,
) -> None:
    """Write what `sand eval` plays in a run to a panel: tasks, step limits, preamble and settings."""
    from sandcli.core.panel import panel_of
    from sandcli.panels.files import write_panel

    context = context_of(run, {}, None)
    chosen = [split.strip() for split in splits.split(",")] if splits else context.settings.eval.splits
    made = panel_of(context, chosen, limit)
    write_panel(file, made)
    for line in _described(made):
        print_text(line)
    command = ["sand", "eval", "--run", str(run), "--panel", str(file)]
    print_next(f"made {file}", shlex.join([*command, *(["--splits", ",".join(chosen)] if splits else [])]))


@panel.command("check")
def panel_check(
    name: Annotated[str, typer.Argument(metavar="FILE", help="A panel's file, or the name of a published panel.")],
    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="The run that is to play it, and whose games count.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a panel holds, and check that this machine has the same world, tasks and contents.

    Exit code 3 if anything differs.
    """
    from sandcli.core.panel import differences_here
    from sandcli.panels.files import read_panel

    named = read_panel(name)
    found = differences_here(named, _context_of(named.panel, run))
    if as_json:
        print_json({"hash": named.panel.hash, "world": named.panel.world, "differences": found})
    else:
        for line in (*_described(named.panel), *(f"differs: {line}" for line in found)):
            print_text(line)
        print_text("this machine cannot play it" if found else "this machine can play it")
    if found:
        raise typer.Exit(Exit.PREREQUISITE)


def _context_of(panel: "Panel", run: Path | None) -> "Context":
    """The run, or one with the default settings on the panel's world."""
    from msgspec.structs import replace

    from sandcli.core.context import Context
    from sandcli.core.run import Run
    from sandcli.errors import UsageError
    from sandcli.settings import EnvSettings, Settings

    if run is not None:
        return context_of(run, {}, None)
    if ":" in panel.world:  # the file of somebody else must not choose which code runs
        raise UsageError(f"the panel is of the world {panel.world!r}", "add --run with a run of this world")
    return Context(Run("."), replace(Settings(), env=EnvSettings(name=panel.world)))


def _described(panel: "Panel") -> Iterator[str]:
    """What a panel holds, in lines."""
    yield f"hash: {panel.hash}"
    yield f"world: {panel.world} ({', '.join(f'{name} {version}' for name, version in panel.versions.items())})"
    for split, tasks in panel.splits.items():
        yield f"{split}: {_counted(tasks)}"
    characters = sum(len(said.content) for said in panel.preamble)
    yield f"preamble: {_number(len(panel.preamble), 'message')}, {_number(characters, 'character')}"
    yield from (f"{name} = {value!r}" for name, value in panel.settings.items())


def _counted(tasks: "list[PanelTask]") -> str:
    kinds, limits = {task.name for task in tasks}, sorted({task.step_limit for task in tasks})
    steps = f"step limit {limits[0]}" if len(limits) == 1 else f"step limits {limits[0]} to {limits[-1]}"
    return f"{_number(len(tasks), 'task')} of {_number(len(kinds), 'type')}, {steps}"


def _number(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"
