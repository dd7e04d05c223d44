"""The funnel as a picture: one subplot of horizontal bars for each run."""

import textwrap
from collections.abc import Mapping

import matplotlib
from matplotlib.axes import Axes

from sandcli.report.drawing import BAR, STYLE, rendered, subplots
from sandcli.report.funnel import Filter, Funnel
from sandcli.report.parts import Figure

_LOST = "#E3E6EA"
_REASONS = 3
"""Reasons named beside a bar; the others are added up."""
_WIDTH = 60
"""Characters in a line beside a bar."""


def funnel_figure(funnels: Mapping[str, Funnel]) -> Figure | None:
    """The funnels by name of the run; None if there is none."""
    if not funnels:
        return None
    heights = [0.42 * len(funnel.filters) + 0.5 for funnel in funnels.values()]
    with matplotlib.rc_context({**STYLE, "axes.spines.right": False}):
        drawing, grid = subplots(len(funnels), 1, (7.2, sum(heights)), heights)
        for (name, funnel), (axes,) in zip(funnels.items(), grid, strict=True):
            _bars(axes, funnel)
            axes.set_title(name if len(funnels) > 1 else "", loc="left")
        return rendered(
            drawing,
            "funnel",
            "From expert steps to training data",
            "Blue: steps that a filter of the method keeps, and their share of all expert steps. Grey: steps that it "
            "loses, with the reasons. The tables of the funnels have all numbers.",
        )


def _bars(axes: Axes, funnel: Funnel) -> None:
    before = total = funnel.filters[0].kept
    for at, one in enumerate(funnel.filters):
        axes.barh(at, before, 0.66, color=_LOST, linewidth=0)
        axes.barh(at, one.kept, 0.66, color=BAR, linewidth=0)
        share = f" ({100 * one.kept / total:.0f} %)" if at and total else ""
        axes.annotate(f"{one.kept:,}{share}", (0, at), (4, 0), textcoords="offset points", va="center")
        axes.annotate(
            _losses(one), (1, at), (8, 0), ("axes fraction", "data"), "offset points", va="center", fontsize=7
        )
        before = one.kept
    axes.set_yticks(range(len(funnel.filters)), [one.name for one in funnel.filters])
    axes.set_ylim(len(funnel.filters) - 0.5, -0.5)
    axes.set_xlim(0, total or 1)
    axes.set_xlabel("steps")
    axes.tick_params(axis="y", length=0)


def _losses(one: Filter) -> str:
    """What a filter lost and why, on a few lines."""
    if not one.lost:
        return ""
    named = [f"{reason} ({count:,})" for reason, count in list(one.lost.items())[:_REASONS]]
    others = sum(list(one.lost.values())[_REASONS:])
    text = ", ".join([*named, *([f"other reasons ({others:,})"] if others else [])])
    return "\n".join(textwrap.wrap(f"{sum(one.lost.values()):,} lost: {text}", _WIDTH))
