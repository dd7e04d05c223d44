"""One self-contained HTML file: a report's tables and figures, and a viewer of episodes and training steps.

It opens from a disk, with no network. An index of everything is in the page; the texts are packed in blocks that
the browser unpacks when one of them is looked at, so that ten thousand episodes stay usable. The file is written
as it is read: what is in memory is the index and one block.
"""

import base64
import gzip
import html
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from sandcli.records import Critique, Episode, Rollout, Sample, Thought, Trajectory
from sandcli.report.formats import numeric
from sandcli.report.parts import Figure, Grid

_EPISODES, _TRAINING = 50, 4
"""Episodes and training trajectories of a block."""

_SCRIPTS = "base.js", "lists.js", "episode.js", "training.js", "places.js"
"""In the order in which they are put together."""


class Deliberated(msgspec.Struct, frozen=True):
    """A training trajectory in D_exp and in D_delib, with all that led from one to the other."""

    expert: Trajectory
    trained: Trajectory
    samples: list[Sample]
    rollouts: list[Rollout]
    critiques: list[Critique]
    thoughts: list[Thought]


class Shown(NamedTuple):
    """One run. `labels` says how the report names its models; records are read as they are written."""

    name: str
    labels: dict[str, str]
    episodes: Iterable[Episode]
    training: Iterable[Deliberated]


class Page(NamedTuple):
    """What stands on the page beside the runs."""

    title: str
    grids: Sequence[Grid]
    figures: Sequence[Figure]
    warnings: Sequence[str]


class _Entry(msgspec.Struct, array_like=True):
    """An episode in the index; viewer/base.js reads these by place."""

    run: str
    agent: str
    split: str
    task: str
    kind: str
    reward: float
    success: bool
    steps: int
    deliberated: int
    tokens: int
    end: str


class _Lesson(msgspec.Struct, array_like=True):
    """A training trajectory in the index."""

    run: str
    id: str
    instruction: str
    steps: int
    flagged: int
    deliberated: int
    reward: float


def page_of(page: Page, runs: Sequence[Shown]) -> Iterator[bytes]:
    """The page's bytes, a part at a time."""
    head, tail = _asset("page.html").split("<!-- data -->")
    for name, content in _filled(page):
        head = head.replace(f"<!-- {name} -->", content)
    yield head.encode()
    entries: list[Any] = []
    lessons: list[Any] = []
    yield from _blocks("episodes", _episodes(runs), _EPISODES, entries)
    yield from _blocks("training", _lessons(runs), _TRAINING, lessons)
    index = {"episodes": entries, "training": lessons, "blocks": {"episodes": _EPISODES, "training": _TRAINING}}
    yield f'<script type="application/json" id="index">{_inert(msgspec.json.encode(index).decode())}</script>'.encode()
    yield tail.replace("/* script */", "\n".join(map(_asset, _SCRIPTS))).encode()


def _episodes(runs: Sequence[Shown]) -> Iterator[tuple[Any, Any]]:
    for run in runs:
        for e in run.episodes:
            yield _entry(run.name, run.labels.get(e.model, e.model), e), e


def _entry(run: str, agent: str, e: Episode) -> _Entry:
    score = e.reward, e.success, len(e.steps), e.deliberated, e.tokens, e.end
    return _Entry(run, agent, e.split, str(e.task), e.task.name, *score)


def _lessons(runs: Sequence[Shown]) -> Iterator[tuple[Any, Any]]:
    for run in runs:
        for d in run.training:
            flagged = sum(sample.deliberate for sample in d.samples)
            deliberated = sum(step.deliberated for step in d.trained.steps)
            t = d.trained
            yield _Lesson(run.name, t.id, t.instruction, len(t.steps), flagged, deliberated, t.reward), d


def _blocks(kind: str, pairs: Iterable[tuple[Any, Any]], size: int, entries: list[Any]) -> Iterator[bytes]:
    """The records packed in blocks; their entries for the index are put into `entries`."""
    left, number = iter(pairs), itertools.count()
    while block := list(itertools.islice(left, size)):
        entries += [entry for entry, _ in block]
        records = msgspec.json.encode([record for _, record in block])
        packed = base64.b64encode(gzip.compress(records, mtime=0)).decode()
        yield f'<script type="application/octet-stream" id="{kind}-{next(number)}">{packed}</script>\n'.encode()


def _filled(page: Page) -> list[tuple[str, str]]:
    warnings = "".join(f"<li>{html.escape(text)}</li>" for text in page.warnings)
    return [
        ("title", html.escape(page.title)),
        ("style", _asset("page.css")),
        ("warnings", f'<ul class="warnings">{warnings}</ul>' if warnings else ""),
        ("tables", "".join(map(_table, page.grids))),
        ("figures", "".join(map(_figure, page.figures))),
    ]


def _table(grid: Grid) -> str:
    """Columns of words stand left, those of numbers right."""
    marks = ["" if number else ' class="text"' for number in numeric(grid)]
    head, *rows = (
        "".join(f"<{tag}{mark}>{html.escape(cell)}</{tag}>" for cell, mark in zip(row, marks, strict=True))
        for tag, row in [("th", grid.header), *(("td", row) for row in grid.rows)]
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in grid.notes)
    return (
        f'<section class="grid"><h3>{html.escape(grid.title)}</h3>'
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f'<div class="notes">{notes}</div></section>'
    )


def _figure(figure: Figure) -> str:
    """As an image of its own: the names inside two drawings may be the same."""
    drawn = base64.b64encode(figure.svg.encode()).decode()
    caption, title = html.escape(figure.caption), html.escape(figure.title)
    return (
        f'<figure><img alt="{title}" src="data:image/svg+xml;base64,{drawn}">'
        f"<figcaption><b>{title}.</b> {caption}</figcaption></figure>"
    )


def _inert(text: str) -> str:
    """JSON that cannot end the element it stands in."""
    return text.replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (Path(__file__).parent / "viewer" / name).read_text(encoding="utf-8")
