"""Figures 3 and 4 of the paper. The same numbers give the same bytes."""

import textwrap
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sandcli.report.bands import BANDS, BandedScores, banded_scores
from sandcli.report.drawing import BAR, STYLE, rendered, subplots
from sandcli.report.estimates import bootstrap
from sandcli.report.parts import Figure
from sandcli.report.scores import AgentRow, Suite, by_group, suites_of
from sandcli.report.tables import tasks_note
from sandcli.report.trend import trend_notes

# The palette of Okabe and Ito, which is safe for colour-blind readers.
_LINE = "#B34700"
_BAND = {"hard": "#D55E00", "medium": "#E69F00", "easy": "#009E73"}
_FEW = 40
"""A band with at most this many tasks shows each task as a point."""


def figure3(rows: Sequence[AgentRow]) -> Figure | None:
    """Average reward per step (bars) and deliberation rate (line); one subplot for each test set and base model."""
    drawn = [row for row in rows if row.kind in ("base", "sft", "sand")]
    if not drawn:
        return None
    with matplotlib.rc_context(STYLE):
        return rendered(
            _figure3_drawing(drawn),
            "figure3",
            "Figure 3: reward and deliberation per step",
            "Bars: final reward / number of steps, averaged over tasks, with 95 % bootstrap intervals (left axis). "
            f"Line: deliberated steps / steps, averaged over tasks (right axis). {tasks_note(drawn)}",
        )


def _figure3_drawing(rows: Sequence[AgentRow]) -> Drawing:
    groups, suites = by_group(rows), suites_of(rows)
    drawing, grid = subplots(len(groups), len(suites), _size(groups, len(suites)))
    top = max(_upper(row, suite) for row in rows for suite in row.scores)
    for (group, members), line in zip(groups.items(), grid, strict=True):
        evaluated = suites_of(members)
        for suite, axes in zip(suites, line, strict=True):
            axes.set_visible(suite in evaluated)
            axes.set_title(f"{group}\n{suite}" if len(groups) > 1 else str(suite))
            if suite in evaluated:
                _bars(axes, members, suite, top, suite == evaluated[0], suite == evaluated[-1])
    handles = [
        Patch(color=BAR, label="reward per step"),
        Line2D([], [], color=_LINE, marker="o", markersize=3, label="deliberation rate"),
    ]
    drawing.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
    return drawing


def figure4(rows: Sequence[AgentRow]) -> Figure | None:
    """Deliberation rates of unseen tasks by difficulty band, one subplot for each iteration; None without bands."""
    drawn = [part for part in banded_scores(rows) if part.row.kind == "sand" and part.suite.split == "unseen"]
    if not drawn:
        return None
    with matplotlib.rc_context(STYLE):
        return rendered(
            _figure4_drawing(drawn),
            "figure4",
            "Figure 4: deliberation by difficulty",
            "Deliberation rate of each unseen task, by tertiles of the base model's reward on the same tasks. "
            f"Line: median; points: single tasks, in bands of few tasks. {' '.join(trend_notes(drawn))}".rstrip(),
        )


def _figure4_drawing(drawn: Sequence[BandedScores]) -> Drawing:
    lines: dict[tuple[str, str], list[BandedScores]] = {}
    for part in drawn:
        lines.setdefault((part.row.group, part.suite.world), []).append(part)
    columns = max(map(len, lines.values()))
    several = len({group for group, _ in lines}) > 1
    drawing, grid = subplots(len(lines), columns, (max(3.0, 2.1 * columns + 0.5), 2.3 * len(lines) + 0.3))
    for ((group, world), parts), line in zip(lines.items(), grid, strict=True):
        for axes in line[len(parts) :]:
            axes.set_visible(False)
        for axes, part in zip(line, parts, strict=False):
            axes.set_title(_title(f"{group}, {world}" if several else world, part.row.label))
            _violins(axes, part, first=part is parts[0])
    return drawing


def _size(groups: Mapping[str, Sequence[AgentRow]], columns: int) -> tuple[float, float]:
    """The size in inches that leaves room between labels."""
    ticks = [_tick(row).split("\n") for members in groups.values() for row in members]
    letters = max(len(line) for tick in ticks for line in tick)
    width = max(map(len, groups.values())) * max(0.42, 0.075 * letters + 0.08) + 0.3
    title = max(19, *map(len, groups)) if len(groups) > 1 else 19
    height = 2.4 + 0.13 * max(map(len, ticks))
    return columns * max(0.07 * title + 0.15, width) + 1.1, height * len(groups) + 0.3


def _upper(row: AgentRow, suite: Suite) -> float:
    return bootstrap([score.reward_per_step for score in row.scores[suite]]).high


def _bars(axes: Axes, rows: Sequence[AgentRow], suite: Suite, top: float, first: bool, last: bool) -> None:
    evaluated = [(at, row.scores[suite]) for at, row in enumerate(rows) if suite in row.scores]
    for at, scores in evaluated:
        mean, low, high = bootstrap([score.reward_per_step for score in scores])
        whiskers = [[max(0, mean - low)], [max(0, high - mean)]]  # rounding can put the mean outside
        axes.bar(at, mean, 0.6, color=BAR, linewidth=0)
        axes.errorbar(at, mean, whiskers, color="#333333", linewidth=0.7, capsize=1.5)
    axes.set_xticks(range(len(rows)), [_tick(row) for row in rows])
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.set_ylim(0, 1.08 * top or 1)
    axes.set_ylabel("reward per step" if first else "")
    axes.tick_params(axis="y", labelleft=first)
    rates = axes.twinx()
    points = [fmean(score.deliberation_rate for score in scores) for _, scores in evaluated]
    rates.plot([at for at, _ in evaluated], points, color=_LINE, marker="o", markersize=3, linewidth=1, clip_on=False)
    rates.set_ylim(0, 1)
    rates.set_ylabel("deliberation rate" if last else "")
    rates.tick_params(axis="y", labelright=last, right=last)
    rates.spines["right"].set_visible(last)
    axes.spines["right"].set_visible(False)


def _tick(row: AgentRow) -> str:
    label = row.label.replace("SAND, iteration", "it.")
    return "\n".join(textwrap.wrap(label, 12))


def _title(*lines: str) -> str:
    """A title that fits above a subplot of Figure 4."""
    return "\n".join(part for line in lines for part in textwrap.wrap(line, 32, break_on_hyphens=False))


def _violins(axes: Axes, part: BandedScores, first: bool) -> None:
    for at, band in enumerate(BANDS):
        rates = [score.deliberation_rate for score in part.scores[band]]
        if rates:
            _violin(axes, at, rates, _BAND[band])
    ticks = [f"{band}\nn = {len(part.scores[band])}" for band in BANDS]
    axes.set_xticks(range(len(BANDS)), ticks)
    axes.set_xlim(-0.6, len(BANDS) - 0.4)
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("deliberation rate" if first else "")
    axes.tick_params(axis="y", labelleft=first)
    axes.spines["right"].set_visible(False)


def _violin(axes: Axes, at: int, rates: Sequence[float], colour: str) -> None:
    """One band. Equal rates have no density, so only points and the median are drawn."""
    if len(set(rates)) > 1:
        violin: Any = axes.violinplot([rates], [at], widths=0.75, showextrema=False)
        for body in violin["bodies"]:
            body.set(facecolor=colour, edgecolor=colour, alpha=0.35, linewidth=0.6)
    if len(rates) <= _FEW or len(set(rates)) == 1:
        axes.scatter(_spread(at, rates), sorted(rates), s=5, color=colour, linewidths=0, zorder=3)
    axes.hlines(median(rates), at - 0.2, at + 0.2, color="#222222", linewidth=1.4, zorder=4)


def _spread(at: int, rates: Sequence[float]) -> list[float]:
    """Horizontal positions that put equal rates side by side, in the order of the sorted rates."""
    found = []
    for rate in sorted(set(rates)):
        count = min(rates.count(rate), _FEW)
        found += [
            at + 0.5 * ((number % count) - (count - 1) / 2) / max(count, 12) for number in range(rates.count(rate))
        ]
    return found
