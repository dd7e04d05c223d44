"""Whether this machine can play a panel: the same world, tasks and contents."""

from collections.abc import Iterator

from sandcli.envs.base import World
from sandcli.errors import UsageError
from sandcli.panels.panel import Panel


def differences(panel: Panel, world: World) -> list[str]:
    """A line for every kind of difference between a panel and its world on this machine.

    Raises `PrerequisiteError` if the world's data are missing altogether.
    """
    return [" ".join(line.split()) for line in (*_versions(panel, world), *_tasks(panel, world))]


def _versions(panel: Panel, world: World) -> Iterator[str]:
    here = world.versions()
    for name in sorted(panel.versions | here):
        there, own = panel.versions.get(name, "missing"), here.get(name, "missing")
        if there != own:
            yield f"{name} is {there} in the panel and {own} here"


def _tasks(panel: Panel, world: World) -> Iterator[str]:
    tasks = list(dict.fromkeys(task for split in panel.splits.values() for task in split))
    missing: list[str] = []
    changed: list[str] = []
    for task in tasks:
        try:
            if world.content(task.task) != task.content:
                changed.append(str(task.task))
        except UsageError as error:
            missing.append(error.what)
    if missing:
        yield f"{len(missing)} of {len(tasks)} tasks are not here; the first: {missing[0]}"
    if changed:
        yield f"{len(changed)} of {len(tasks)} tasks have other content here; the first: {changed[0]}"
