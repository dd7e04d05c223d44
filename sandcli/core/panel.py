"""Evaluation on a panel: a run with the panel's tasks, step limits, preamble and settings."""

import contextlib
import shlex
from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

from sandcli.agent.preamble import messages_of
from sandcli.config import refuse_contradictions
from sandcli.core.context import Context
from sandcli.envs import make_world
from sandcli.envs.base import World
from sandcli.errors import SandError, UsageError
from sandcli.messages import Message, as_said
from sandcli.panels.check import differences
from sandcli.panels.files import PUBLISHED, read_panel
from sandcli.panels.panel import NamedPanel, Panel, PanelTask, fixed_values
from sandcli.records import Task


class PanelWorld:
    """A world whose tasks and step limits are those of a panel. All else is the world's own."""

    def __init__(self, world: World, named: NamedPanel) -> None:
        self._world = world
        self._named = named
        tasks = [task for split in named.panel.splits.values() for task in split]
        self._limits = {task.task: task.step_limit for task in tasks}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def tasks(self, split: str) -> list[Task]:
        """The panel's tasks of a split. Raises `UsageError` if it has no such split."""
        splits = self._named.panel.splits
        if split not in splits:
            raise UsageError(
                f"the panel {self._named.name} has no split {split!r}",
                f"--splits {','.join(splits)}, or set eval.splits",
            )
        return [task.task for task in splits[split]]

    def step_limit(self, task: Task) -> int:
        """The panel's limit."""
        return self._limits[task]


class PanelContext(Context):
    """A run as it plays a panel. Models, engines and worker processes are the run's own."""

    named_panel: NamedPanel

    def __init__(self, context: Context, named: NamedPanel) -> None:
        super().__init__(context.run, named.panel.applied_to(context.settings))
        self.named_panel = named

    @cached_property
    def world(self) -> World:
        """The panel's world."""
        return cast(World, PanelWorld(make_world(self.world_builder), self.named_panel))

    def own_preamble(self) -> list[Message]:
        """The panel's messages before the task."""
        return messages_of(self.named_panel.panel.preamble, f"the panel {self.named_panel.name}")

    def unlike(self, own: Context) -> list[str]:
        """What the panel changes, apart from tasks and step limits: the run's agent may have been trained otherwise."""
        ours, theirs = (fixed_values(context.settings) for context in (own, self))
        changed = [name for name in ours if ours[name] != theirs[name] and name != "env.step_limit"]
        lines = [f"{name} {ours[name]!r} -> {theirs[name]!r}" for name in changed]
        with contextlib.suppress(SandError):  # the run has no preamble, or one that cannot be read
            if own.preamble != self.preamble:
                lines.append("its own preamble")
        return lines


def playing(context: Context) -> Context:
    """A run as held-out tasks are played in it: on the panel `eval.panel`, or, without one, as it is.

    Raises `UsageError` if the panel is missing or damaged, or if this run or this machine cannot play it.
    """
    name = context.settings.eval.panel
    if not name:
        return context
    named = read_panel(name if name in PUBLISHED else context.path(name))
    if found := differences_here(named, context):
        check = shlex.join(["sand", "panel", "check", named.name, "--run", str(context.run.root)])
        raise UsageError(f"the panel {name} cannot be played here: {found[0]}", f"{check} lists all differences")
    played = PanelContext(context, named)
    refuse_contradictions(played.settings)
    return played


def differences_here(named: NamedPanel, context: Context) -> list[str]:
    """A line for every kind of difference between a panel and its world in a run on this machine; none if it fits."""
    theirs, ours = named.panel.world, context.settings.env.name
    if theirs != ours:
        return [f"the panel is of the world {theirs!r}, not of {ours!r}"]
    return differences(named.panel, PanelContext(context, named).world)


def must_play_whole_panel(context: Context) -> None:
    """Raise `UsageError` if only a part of the run's panel is asked for: that would be another panel."""
    name = context.settings.eval.panel
    if name and context.limit is not None:
        raise UsageError(
            f"--limit {context.limit} would play only a part of the panel {name}",
            f"leave out --limit, or make a smaller panel: sand panel make --limit {context.limit}",
        )


def panel_of(context: Context, splits: Sequence[str], limit: int | None) -> Panel:
    """The panel of what `sand eval` plays in a run. Raises `UsageError` if a split has no task."""
    played = playing(context)
    return Panel(
        world=played.settings.env.name,
        versions=played.world.versions(),
        settings=fixed_values(played.settings),
        preamble=as_said(played.own_preamble()),
        splits={split: _tasks(played.world, split, limit) for split in splits},
    )


def _tasks(world: World, split: str, limit: int | None) -> list[PanelTask]:
    tasks = world.tasks(split)[:limit]
    if not tasks:
        raise UsageError(f"the split {split} of {world.name} has no task", "choose other splits, or other env.tasks")
    return [
        PanelTask(
            name=task.name,
            variation=task.variation,
            game=task.game,
            step_limit=world.step_limit(task),
            content=world.content(task),
        )
        for task in tasks
    ]
