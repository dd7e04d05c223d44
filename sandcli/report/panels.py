"""Evaluations by panel: only results on the same panel, or on none, are put into one table."""

from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import NamedTuple

from sandcli.report.parts import Figure
from sandcli.report.rows import agent_rows
from sandcli.report.scores import AgentRow, Evaluation
from sandcli.report.sheets import Sheet
from sandcli.terminal import visible


class PanelGroup(NamedTuple):
    """The evaluations on one panel, and their rows.

    `label` names the panel in titles; it is empty if no run of the report has one. `suffix` tells the tables of several
    groups apart; it is empty if there is one group.
    """

    label: str
    suffix: str
    evaluations: list[Evaluation]
    rows: list[AgentRow]

    def of_sheet(self, sheet: Sheet) -> Sheet:
        """The sheet with the panel in its name and title."""
        return sheet._replace(name=f"{sheet.name}{self.suffix}", title=self._titled(sheet.title))

    def of_figure(self, figure: Figure) -> Figure:
        """The figure with the panel in its name and title."""
        return figure._replace(name=f"{figure.name}{self.suffix}", title=self._titled(figure.title))

    def _titled(self, title: str) -> str:
        return f"{title} ({self.label})" if self.label else title


def by_panel(evaluations: Sequence[Evaluation]) -> list[PanelGroup]:
    """The evaluations of each panel, in the order in which the panels first occur."""
    groups: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        groups.setdefault(evaluation.panel, []).append(evaluation)
    several = len(groups) > 1
    return [
        PanelGroup(_label(own[0], several), f"-{panel or 'no-panel'}" if several else "", own, agent_rows(own))
        for panel, own in groups.items()
    ]


def _label(evaluation: Evaluation, several: bool) -> str:
    if evaluation.panel:
        return f"panel {visible(PurePath(evaluation.panel_name).stem)}, {evaluation.panel}"
    return "no panel" if several else ""


def different_panels(groups: Sequence[PanelGroup]) -> Iterator[str]:
    """A warning if there are several panels."""
    if len(groups) > 1:
        runs = "; ".join(f"{group.label}: {', '.join(own.run for own in group.evaluations)}" for group in groups)
        yield (
            f"the runs were not evaluated on the same panel, so they are not in the same tables ({runs}). "
            "To compare them, evaluate them on one panel: sand eval --panel PANEL --force"
        )
