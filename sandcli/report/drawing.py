"""How all figures are drawn. The same numbers give the same bytes."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure as Drawing

from sandcli.report.parts import Figure

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "sand",
}
"""Settings of matplotlib."""

BAR = "#56B4E9"
"""The colour of bars, from the palette of Okabe and Ito, which is safe for colour-blind readers."""

_DPI = 200


def subplots(
    lines: int, columns: int, size: tuple[float, float], heights: Sequence[float] | None = None
) -> tuple[Drawing, Any]:
    """An empty drawing of this size in inches, and its axes, line by line. `heights` are relative to each other."""
    drawing = Drawing(figsize=size, layout="constrained")
    return drawing, drawing.subplots(lines, columns, squeeze=False, height_ratios=heights)


def rendered(drawing: Drawing, name: str, title: str, caption: str) -> Figure:
    """The figure with the contents of its files."""
    png, svg = io.BytesIO(), io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font does not cover
        drawing.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
        drawing.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return Figure(name, title, caption, svg.getvalue(), png.getvalue())
