"""Makes the published panels.

`python -m tests.published_panels` writes those of ScienceWorld. With the folder of games that
`sand games make FOLDER --per-type 8` made, it also writes that of ALFWorld.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec.structs import replace

from sandcli.core.context import Context
from sandcli.core.panel import panel_of
from sandcli.core.run import Run
from sandcli.envs.base import interleave
from sandcli.envs.scienceworld import tasks as table
from sandcli.panels import files
from sandcli.panels.panel import Panel, PanelTask, written
from sandcli.records import Task
from sandcli.settings import EnvSettings, Settings

FOLDER = Path(files.__file__).with_name("published")

SHORT = (
    "find-animal",
    "find-living-thing",
    "find-non-living-thing",
    "find-plant",
    "lifespan-longest-lived",
    "lifespan-longest-lived-then-shortest-lived",
    "lifespan-shortest-lived",
)
"""Types that the literature gives at most 15 steps, and that take the simulator's own path at most 16."""

PER_TYPE = 8
"""Games of each type and split in alfworld-made."""


def scienceworld() -> dict[str, Panel]:
    """The panels of ScienceWorld, by name."""
    paper = panel_of(Context(Run("."), Settings()), ["seen", "unseen"], None)
    short = replace(paper, settings=paper.settings | {"agent.max_tokens": 256})
    return {
        "scienceworld-paper": paper,
        "scienceworld-short": replace(short, splits={"seen": _each(_seen), "unseen": _each(_unseen)}),
        "scienceworld-dev": replace(short, splits={"dev": _each(_dev)}),
    }


def alfworld(games: Path) -> dict[str, Panel]:
    """The panel of made games."""
    settings = replace(Settings(), env=EnvSettings(name="alfworld", games=str(games)))
    return {"alfworld-made": panel_of(Context(Run("."), settings), ["seen", "unseen"], None)}


def _each(variations: Callable[[str], Iterable[int]], count: int = 6) -> list[PanelTask]:
    """At most `count` variations of each short type, far apart, that the literature does not train on."""
    chosen = []
    for name in SHORT:
        untrained = sorted(set(variations(name)) - set(table.literature()[name]))
        chosen.append([Task(name=name, variation=v) for v in table.spread(untrained)[:count]])
    limits = {name: table.TYPES[name].limit for name in SHORT}
    return [
        PanelTask(name=task.name, variation=task.variation, step_limit=limits[task.name]) for task in interleave(chosen)
    ]


def _seen(name: str) -> Iterable[int]:
    return table.TYPES[name].seen


def _unseen(name: str) -> Iterable[int]:
    return table.test(table.TYPES[name])[:10]


def _dev(name: str) -> Iterable[int]:
    """The simulator's development range without the literature's seen variations."""
    return set(table.dev(table.TYPES[name])) - set(table.TYPES[name].seen)


if __name__ == "__main__":
    made = scienceworld() | (alfworld(Path(sys.argv[1])) if len(sys.argv) > 1 else {})
    for name, panel in made.items():
        (FOLDER / f"{name}.json").write_bytes(written(panel))
        print(name, panel.hash, {split: len(tasks) for split, tasks in panel.splits.items()})
