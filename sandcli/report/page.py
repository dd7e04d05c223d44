"""One self-contained HTML file: a report's tables and figures, and a viewer of episodes and training steps.

It opens from a disk, with no network. An index of everything is in the page; the texts are packed in blocks that
the browser unpacks when one of them is looked at, so that ten thousand episodes stay usable. The file is written
as it is read: what is in memory is the index and one block.
"""

import base64
import gzip
import html
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

from sandcli.records import Critique, Episode, Rollout, Sample, Thought, Trajectory
from sandcli.report.parts import Figure, Grid

_EPISODES, _TRAINING = 50, 4
"""Episodes and training trajectories of a block."""


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
    """An episode in the index; page.js reads these by place."""

    run: str
    agent: str
    split: str
    task: str
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


def write_page(out: Path, page: Page, runs: Sequence[Shown]) -> None:
    """Write the page; `out` appears when it is whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f"{out.name}.part")
    with part.open("w", encoding="utf-8") as file:
        head, tail = _asset("page.html").split("<!-- data -->")
        for name, content in _filled(page):
            head = head.replace(f"<!-- {name} -->", content)
        file.write(head)
        entries = list(_packed(file, "episodes", _episodes(runs), _EPISODES))
        lessons = list(_packed(file, "training", _lessons(runs), _TRAINING))
        index = {"episodes": entries, "training": lessons, "blocks": {"episodes": _EPISODES, "training": _TRAINING}}
        file.write(f'<script type="application/json" id="index">{_inert(msgspec.json.encode(index).decode())}</script>')
        file.write(tail.replace("/* script */", _asset("page.js")))
        file.flush()
        os.fsync(file.fileno())
    part.replace(out)


def _episodes(runs: Sequence[Shown]) -> Iterator[tuple[Any, Any]]:
    for run in runs:
        for e in run.episodes:
            yield _entry(run.name, run.labels.get(e.model, e.model), e), e


def _entry(run: str, agent: str, e: Episode) -> _Entry:
    return _Entry(run, agent, e.split, str(e.task), e.reward, e.success, len(e.steps), e.deliberated, e.tokens, e.end)


def _lessons(runs: Sequence[Shown]) -> Iterator[tuple[Any, Any]]:
    for run in runs:
        for d in run.training:
            flagged = sum(sample.deliberate for sample in d.samples)
            deliberated = sum(step.deliberated for step in d.trained.steps)
            t = d.trained
            yield _Lesson(run.name, t.id, t.instruction, len(t.steps), flagged, deliberated, t.reward), d


def _packed(file: IO[str], kind: str, pairs: Iterable[tuple[Any, Any]], size: int) -> Iterator[Any]:
    """Write the records in blocks and give their entries for the index."""
    block: list[Any] = []
    number = 0
    for entry, record in pairs:
        block.append(record)
        yield entry
        if len(block) == size:
            _write_block(file, f"{kind}-{number}", block)
            block, number = [], number + 1
    if block:
        _write_block(file, f"{kind}-{number}", block)


def _write_block(file: IO[str], name: str, records: Sequence[Any]) -> None:
    packed = base64.b64encode(gzip.compress(msgspec.json.encode(records), mtime=0)).decode()
    file.write(f'<script type="application/octet-stream" id="{name}">{packed}</script>\n')


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
    words = [any(any(map(str.isalpha, cell)) for cell in column) for column in zip(*grid.rows, strict=True)]
    marks = [' class="text"' if wordy else "" for wordy in words] or [""] * len(grid.header)
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
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
