"""`init`, one command for each stage, and `run` for all of them."""

import inspect
import shlex
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from msgspec import Meta

from sandcli.api import baselines, runs, stages
from sandcli.cli.app import app
from sandcli.cli.options import IfNeeded, Json, RunDir
from sandcli.cli.output import command_after, context_of, print_next, print_summary

if TYPE_CHECKING:
    from sandcli.core.artifact import StageName
    from sandcli.core.stage import Summary
    from sandcli.verb import Verb


@app.command()
def init(
    run: RunDir,
    previous: Annotated[Path | None, typer.Option("--from", help="Start the iteration after this run.")] = None,
    d_exp: Annotated[Path | None, typer.Option(help="Take D_exp from this run instead of collecting it.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="The paper's settings, such as scienceworld-llama3.1-8b; a wrong name lists all.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="How agents are told their task, read and stopped: eto, mpo or sand; see docs/protocols.md."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="sand, or a baseline: rft (rejection-sampling fine-tuning), eto (DPO), knowagent (rules of actions), "
            "mpo (a planner), mpo-sft (before it) or early-experience (reflections on one step)."
        ),
    ] = None,
    without: Annotated[
        str | None,
        typer.Option(
            help="An ablation: sampling (the base model proposes the actions), critique, or deliberations (a control "
            "that keeps the original thoughts)."
        ),
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="TABLE.KEY=VALUE", help="A setting.")] = None,
) -> None:
    """Make a run directory with its sand.toml."""
    from sandcli.new_run import assigned
    from sandcli.presets import data_wanted
    from sandcli.progress import notice

    chosen = {"method.name": method, "method.without": without}
    variant = [f"{name}={value}" for name, value in chosen.items() if value]
    made = runs.init(
        run,
        previous=previous,
        d_exp=d_exp,
        preset=preset,
        protocol=protocol,
        settings=assigned([*(settings or []), *variant]),
    )
    after = made.artifact("collect").command
    if previous is not None or d_exp is not None:
        after = command_after("collect", run)
    if d_exp is None and (wanted := data_wanted(preset)):
        notice(wanted)
    print_next(f"made {run}; settings are in {run / 'sand.toml'}", after)


def _command(stage: "StageName", verb: "Verb[..., Summary]") -> Callable[..., None]:
    """The command of a verb: the same options, `--run`, `--if-needed` and `--json`."""

    def command(run: Path, if_needed: bool, as_json: bool, **options: Any) -> None:
        from sandcli.interrupts import Interrupts
        from sandcli.training.processes import process_count

        if if_needed and _skipped(stage, run):
            return
        with Interrupts(launched=process_count() > 1), redirect_stdout(sys.stderr):  # stdout is for data
            summary = verb(run, **options)
        print_summary(summary, run, as_json)
        if stage in ("eval", "counterfactual") and not (options["dry_run"] or as_json):
            from sandcli.cli.inspect import report

            report([run])

    return _with_options(command, verb, {"if_needed": (IfNeeded, False), "as_json": (Json, False)})


def _skipped(stage: "StageName", run: Path) -> bool:
    from sandcli.perform import is_skipped

    return is_skipped(stage, context_of(run, {}, None))


def _with_options(command: Callable[..., None], verb: Any, more: dict[str, tuple[Any, Any]]) -> Callable[..., None]:
    """Give a command the options of a verb's signature, in the form that typer reads."""
    taken = [
        parameter.replace(annotation=_option(name, parameter.annotation), kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(verb.__wrapped__).parameters.items()
        if name != "run"
    ]
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, keyword, default=value, annotation=hint) for name, (hint, value) in more.items()]
    run = inspect.Parameter("run", keyword, annotation=RunDir)
    command.__signature__ = inspect.Signature([run, *taken, *added])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in (run, *taken, *added)}
    command.__doc__ = verb.__doc__
    return command


def _option(name: str, hint: Any) -> Any:
    """A parameter of a verb as an option of its command."""
    kind, meta = get_args(hint)
    assert isinstance(meta, Meta)
    default = f"--{name.replace('_', '-')}"
    flag = (meta.extra or {}).get("flag", default)
    return Annotated[kind, typer.Option(flag, help=meta.description, min=meta.ge)]


for _stage, _verb in (
    ("collect", stages.collect),
    ("sft", stages.sft),
    ("plan", baselines.plan),
    ("explore", baselines.explore),
    ("knowledge", baselines.knowledge),
    ("wkm", baselines.wkm),
    ("sample", stages.sample),
    ("rollout", stages.rollout),
    ("critique", stages.critique),
    ("synthesize", stages.synthesize),
    ("pairs", baselines.pairs),
    ("train", stages.train),
    ("prefer", baselines.prefer),
    ("eval", stages.evaluate),
    ("counterfactual", stages.counterfactual),
):
    app.command(_stage)(_command(_stage, _verb))  # type: ignore[arg-type]


def _run(run: Path, **options: Any) -> None:
    from sandcli.errors import Exit
    from sandcli.interrupts import Interrupts

    with Interrupts(), redirect_stdout(sys.stderr):
        summaries = runs.iterate(run, **options)
    if summaries and summaries[-1].exit is not Exit.DONE:
        print_summary(summaries[-1], run, as_json=False)
    elif not options["dry_run"]:
        _end(run, **options)


def _end(first: Path, iterations: int, until: "StageName | None", **_: Any) -> None:
    """Say how far `sand run` came, and what comes next."""
    from sandcli.pipeline import next_root

    roots = [first]
    while len(roots) < iterations:
        roots.append(next_root(roots[-1]))
    if until is None:
        print_next("every stage is done", shlex.join(["sand", "report", *map(str, roots)]))
    else:
        print_next(f"done as far as {until}", command_after(until, roots[-1]))


app.command("run")(_with_options(_run, runs.iterate, {}))
