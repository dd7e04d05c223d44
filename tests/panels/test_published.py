"""The published panels are what tests/published_panels.py makes today, and keep what they promise."""

import pytest

from sandcli.envs.scienceworld import tasks as table
from sandcli.envs.scienceworld.world import ScienceWorld
from sandcli.panels.check import differences
from sandcli.panels.files import PUBLISHED, read_panel
from sandcli.panels.panel import written
from sandcli.records import Task
from tests.published_panels import FOLDER, SHORT, scienceworld

SCIENCEWORLD = scienceworld()


def tasks(name: str) -> dict[str, set[Task]]:
    """The tasks of a panel by split."""
    return {split: {task.task for task in own} for split, own in read_panel(name).panel.splits.items()}


def trained(task: Task) -> bool:
    """Whether the literature, or the simulator's own split, trains on a task."""
    variation = task.variation or 0
    return variation in table.literature()[task.name] or variation in table.train(table.TYPES[task.name])


@pytest.mark.parametrize("name", SCIENCEWORLD)
def test_published_panel_is_made_again(name: str) -> None:
    committed = (FOLDER / f"{name}.json").read_bytes()
    assert committed == written(SCIENCEWORLD[name]), "run python -m tests.published_panels and read the changes"


def test_every_published_panel_has_a_maker() -> None:
    assert set(PUBLISHED) == {*SCIENCEWORLD, "alfworld-made"}


@pytest.mark.parametrize("name", SCIENCEWORLD)
def test_panel_of_scienceworld_can_be_played(name: str) -> None:
    assert differences(read_panel(name).panel, ScienceWorld()) == []


def test_panel_of_the_paper_holds_its_194_seen_and_211_unseen_tasks() -> None:
    world, found = ScienceWorld(), tasks("scienceworld-paper")
    assert found == {split: set(world.tasks(split)) for split in ("seen", "unseen")}
    assert {split: len(own) for split, own in found.items()} == {"seen": 194, "unseen": 211}


def test_short_and_development_tasks_are_apart_and_nobody_trains_on_them() -> None:
    paper, short, dev = (tasks(f"scienceworld-{name}") for name in ("paper", "short", "dev"))
    assert {split: len(own) for split, own in (short | dev).items()} == {"seen": 32, "unseen": 42, "dev": 42}
    assert short["seen"] < paper["seen"] and short["unseen"] < paper["unseen"]
    assert not dev["dev"] & (paper["seen"] | paper["unseen"])
    assert not [task for own in (short | dev).values() for task in own if trained(task)]
    assert all({task.name for task in own} == set(SHORT) for own in (short | dev).values())
    limits = {task.step_limit for own in read_panel("scienceworld-short").panel.splits.values() for task in own}
    assert limits == {10, 12, 15}
