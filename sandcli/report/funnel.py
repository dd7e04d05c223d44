"""From expert steps to training data: how many steps pass each filter of the method, and why the others do not. Pure.

A step is a (trajectory, step). The filters come in the order of the method: each counts only what the one before kept.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sandcli.records import Key
from sandcli.report.sheets import Sheet, SheetRow

FLAGGED = "inconsistent"
"""The filter of Eq. 4."""


class Passed(NamedTuple):
    """The steps that pass a filter by themselves. `why` gives the reason for any other step."""

    name: str
    steps: set[Key]
    why: Callable[[Key], str]


class Filter(NamedTuple):
    """A filter: how many of the steps before it were kept, and how many were lost for which reason, most first.

    `outside` counts steps that pass although an earlier filter lost them: an artifact was made again since.
    """

    name: str
    kept: int
    lost: Mapping[str, int]
    outside: int = 0


class Funnel(NamedTuple):
    """The filters of one run, expert steps first. `notes` say what cannot be seen from the numbers."""

    filters: Sequence[Filter]
    notes: Sequence[str] = ()


def filtered(passed: Sequence[Passed]) -> list[Filter]:
    """The filters applied one after the other; the first one only says which steps there are."""
    found: list[Filter] = []
    before = passed[0].steps if passed else set()
    for name, steps, why in passed:
        kept = before & steps
        lost = Counter(why(step) for step in before - kept)
        most_first = dict(sorted(lost.items(), key=lambda item: (-item[1], item[0])))
        found.append(Filter(name, len(kept), most_first, len(steps - kept)))
        before = kept
    return found


def funnel_sheet(name: str, run: str, group: str, funnel: Funnel) -> Sheet:
    """The funnel of one run as the table `name`."""
    rows: list[SheetRow] = []
    total = before = funnel.filters[0].kept
    for one in funnel.filters:
        for outcome, count in {"kept": one.kept, **one.lost}.items():
            rows.append(SheetRow(group, one.name, [outcome, count, _percent(count, before), _percent(count, total)]))
        before = one.kept
    notes = [
        "Each filter sees only the steps that the one before kept; kept and its reasons add up to them.",
        *_summary(funnel),
        *_outside(funnel),
        *funnel.notes,
    ]
    columns = ["outcome", "steps", "of before, %", "of all, %"]
    return Sheet(name, f"From expert steps to training data: {run}", "filter", columns, rows, notes)


def _percent(count: int, whole: int) -> float | None:
    return 100 * count / whole if whole else None


def _summary(funnel: Funnel) -> list[str]:
    """What is left of the inconsistent steps."""
    flagged = next((one.kept for one in funnel.filters if one.name == FLAGGED), 0)
    last = funnel.filters[-1]
    if not flagged or last.name == FLAGGED:
        return []
    return [f"{last.name}: {last.kept:,} of {flagged:,} inconsistent steps ({100 * last.kept / flagged:.1f} %)."]


def _outside(funnel: Funnel) -> list[str]:
    return [
        f"{one.name}: {one.outside:,} steps are not counted, because a filter before lost them; an artifact was made "
        "again since."
        for one in funnel.filters
        if one.outside
    ]
