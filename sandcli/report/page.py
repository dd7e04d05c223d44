"""One self-contained HTML file: a report's tables and figures, and a viewer of episodes and training trajectories.

It works from disk without a network. The page contains an index of all records and their texts in compressed blocks;
the browser decompresses a block when it is needed, so that the page stays fast with ten thousand episodes. Only the
index and one block are in memory while the file is written.
"""

import base64
import gzip
import html
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from sandcli.episodes import Episode, agent_name
from sandcli.records import Critique, Rollout, Sample, Thought, Trajectory
from sandcli.report.formats import numeric
from sandcli.report.parts import Figure, Grid
from sandcli.terminal import visible

_EPISODES, _TRAINING = 50, 4
"""Episodes and training trajectories in a block."""

_SCRIPTS = "base.js", "lists.js", "episode.js", "trajectory.js", "navigation.js"
"""In the order in which they are joined."""


class TrainingTrajectory(msgspec.Struct, frozen=True):
    """A trajectory in D_exp (`expert`) and in D_delib (`trained`), with the records that led from one to the other."""

    expert: Trajectory
    trained: Trajectory
    samples: list[Sample]
    rollouts: list[Rollout]
    critiques: list[Critique]
    thoughts: list[Thought]


class RunData(NamedTuple):
    """One run. `labels` gives the report's names for its agents; the records are read lazily."""

    name: str
    labels: dict[str, str]
    episodes: Iterable[Episode]
    training: Iterable[TrainingTrajectory]


class Page(NamedTuple):
    """The contents of the page apart from the records of runs."""

    title: str
    grids: Sequence[Grid]
    figures: Sequence[Figure]
    warnings: Sequence[str]


class _EpisodeEntry(msgspec.Struct, array_like=True):
    """An episode in the index. viewer/base.js knows the order of the fields."""

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


class _TrajectoryEntry(msgspec.Struct, array_like=True):
    """A training trajectory in the index. viewer/base.js knows the order of the fields."""

    run: str
    id: str
    instruction: str
    steps: int
    flagged: int
    deliberated: int
    reward: float


def page_of(page: Page, runs: Sequence[RunData]) -> Iterator[bytes]:
    """The bytes of the page, in parts."""
    head, tail = _asset("page.html").split("<!-- data -->")
    for name, content in _filled(page):
        head = head.replace(f"<!-- {name} -->", content)
    yield head.encode()
    episodes: list[Any] = []
    training: list[Any] = []
    yield from _blocks("episodes", _episodes(runs), _EPISODES, episodes)
    yield from _blocks("training", _training(runs), _TRAINING, training)
    index = {"episodes": episodes, "training": training, "blocks": {"episodes": _EPISODES, "training": _TRAINING}}
    yield f'<script type="application/json" id="index">{_inert(msgspec.json.encode(index).decode())}</script>'.encode()
    yield tail.replace("/* script */", "\n".join(map(_asset, _SCRIPTS))).encode()


def _episodes(runs: Sequence[RunData]) -> Iterator[tuple[Any, Any]]:
    for run in runs:
        for e in run.episodes:
            agent = agent_name(e.model, e.deliberation)
            yield _entry(run.name, run.labels.get(agent, agent), e), e


def _entry(run: str, agent: str, e: Episode) -> _EpisodeEntry:
    score = e.reward, e.success, len(e.steps), e.deliberated, e.tokens, e.end
    task = f"{e.task} (draw {e.draw})" if e.draw else str(e.task)
    return _EpisodeEntry(run, agent, e.split, task, e.task.name, *score)


def _training(runs: Sequence[RunData]) -> Iterator[tuple[Any, Any]]:
    for run in runs:
        for d in run.training:
            flagged = sum(sample.deliberate for sample in d.samples)
            deliberated = sum(step.deliberated for step in d.trained.steps)
            t = d.trained
            yield _TrajectoryEntry(run.name, t.id, t.instruction, len(t.steps), flagged, deliberated, t.reward), d


def _blocks(kind: str, pairs: Iterable[tuple[Any, Any]], size: int, entries: list[Any]) -> Iterator[bytes]:
    """The records in compressed blocks. Adds their index entries to `entries`."""
    rest, number = iter(pairs), itertools.count()
    while block := list(itertools.islice(rest, size)):
        entries += [entry for entry, _ in block]
        records = msgspec.json.encode([record for _, record in block])
        compressed = base64.b64encode(gzip.compress(records, mtime=0)).decode()
        yield f'<script type="application/octet-stream" id="{kind}-{next(number)}">{compressed}</script>\n'.encode()


def _filled(page: Page) -> list[tuple[str, str]]:
    warnings = "".join(f"<li>{html.escape(visible(text))}</li>" for text in page.warnings)
    return [
        ("title", html.escape(page.title)),
        ("style", _asset("page.css")),
        ("warnings", f'<ul class="warnings">{warnings}</ul>' if warnings else ""),
        ("tables", "".join(map(_table, page.grids))),
        ("figures", "".join(map(_figure, page.figures))),
    ]


def _table(grid: Grid) -> str:
    """The table as HTML: words are aligned left, numbers right."""
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
    """The figure as an image, not inline, because ids in two SVG files may clash."""
    image = base64.b64encode(figure.svg.encode()).decode()
    caption, title = html.escape(figure.caption), html.escape(figure.title)
    return (
        f'<figure><img alt="{title}" src="data:image/svg+xml;base64,{image}">'
        f"<figcaption><b>{title}.</b> {caption}</figcaption></figure>"
    )


def _inert(text: str) -> str:
    """JSON that cannot end the script element around it."""
    return text.replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (Path(__file__).parent / "viewer" / name).read_text(encoding="utf-8")
