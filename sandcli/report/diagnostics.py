"""What every run says about why deliberation helps or not: its critics, and what became of its expert steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sandcli.core.run import Run
from sandcli.errors import SandError
from sandcli.method.ablations import variant_of
from sandcli.report.critics import Critics, critics_sheet, read_critics
from sandcli.report.funnel import Funnel, funnel_sheet
from sandcli.report.funnel_steps import read_funnel
from sandcli.report.rows import short_names
from sandcli.report.scores import Evaluation
from sandcli.report.sheets import Sheet


class Diagnostics(NamedTuple):
    """The diagnostics of one run, as far as its artifacts can be read; `warnings` say what cannot.

    `group` is the name of its base model, `name` that of the run.
    """

    group: str
    name: str
    critics: Critics | None
    funnel: Funnel | None
    warnings: Sequence[str] = ()


def diagnostics_of(evaluations: Sequence[Evaluation]) -> list[Diagnostics]:
    """The diagnostics of every run."""
    groups = short_names([evaluation.base for evaluation in evaluations])
    names = short_names([evaluation.run for evaluation in evaluations])
    return [_read(groups[one.base], names[one.run], one) for one in evaluations]


def _read(group: str, name: str, evaluation: Evaluation) -> Diagnostics:
    run = Run(Path(evaluation.run))
    funnel = read_funnel(run, variant_of(evaluation.method, evaluation.without))
    try:
        return Diagnostics(group, name, read_critics(run), funnel)
    except SandError as error:
        unread = f"{evaluation.run}: its critiques are not compared with the rewards: {error.what}: {error.fix}"
        return Diagnostics(group, name, None, funnel, [unread])


def diagnostic_sheets(diagnostics: Sequence[Diagnostics]) -> list[Sheet]:
    """The table of the critics, and a table of the funnel for each run."""
    critics = critics_sheet({(own.group, own.name): own.critics for own in diagnostics if own.critics})
    funnels = [(own.name, own.group, own.funnel) for own in diagnostics if own.funnel]
    sheets = [
        funnel_sheet(f"funnel-{number}" if len(funnels) > 1 else "funnel", *found)
        for number, found in enumerate(funnels, 1)
    ]
    return [*([critics] if critics else []), *sheets]
