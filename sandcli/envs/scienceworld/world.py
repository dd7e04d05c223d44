"""ScienceWorld: 30 types of science experiments in a text world, run by its own simulator in a JVM."""

import re
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING

from sandcli.envs.base import DEFAULTS, WorldSettings, chosen_types, taking_turns
from sandcli.envs.scienceworld import tasks as table
from sandcli.envs.scienceworld.java import find_java
from sandcli.errors import UsageError
from sandcli.prompts import load
from sandcli.records import Task

if TYPE_CHECKING:
    from sandcli.envs.scienceworld.simulator import ScienceWorldSimulator

_ETO = "teleportAction,openDoors,selfWateringFlowerPots,openContainers"
_LABELS = {*_ETO.split(","), "noElectricalAction"}


class ScienceWorld:
    """The world's tasks and settings; `start()` boots a JVM.

    `settings.simplifications`: `eto`, `easy`, `none` or a comma list of the simulator's names. `settings.tasks`:
    `paper`, `all` or task types. `settings.step_limit`: 0 for each type's own.
    """

    name = "scienceworld"
    experts = ("gold",)

    def __init__(self, settings: WorldSettings = DEFAULTS) -> None:
        _check(settings.simplifications)
        self.simplifications = settings.simplifications
        self.system = load("scienceworld/instruction")
        paper = [kind for kind, facts in table.TYPES.items() if facts.limit]
        self._types = chosen_types("ScienceWorld", settings.tasks, list(table.TYPES), paper)
        self._paper = "paper" in settings.tasks
        self._limit = settings.step_limit

    def tasks(self, split: str) -> list[Task]:
        """The tasks of a split, in an order in which any first N cover as many types and scenes as possible."""
        if split not in ("train", "seen", "unseen"):
            raise UsageError(f"unknown split {split!r} of ScienceWorld", "use train, seen or unseen")
        return taking_turns(
            [Task(name=name, variation=v) for v in table.spread(self._variations(name, split))] for name in self._types
        )

    def _variations(self, name: str, split: str) -> Sequence[int]:
        kind = table.TYPES[name]
        if split == "train":
            return table.train(kind)
        if split == "seen":
            return kind.seen if self._paper else table.dev(kind)
        return table.test(kind)[:10] if self._paper else table.test(kind)

    def task_of(self, identifier: str) -> Task:
        """`9_412` (ETO's numbering), `find-plant_3`, or an older name such as `task-2a-test-conductivity_3`."""
        name, _, variation = identifier.rpartition("_")
        if name.isdecimal() and int(name) < len(table.ETO_ORDER):
            name = table.ETO_ORDER[int(name)]
        name = re.sub(r"^task-\d+a?-|[()]", "", name).replace("mendellian", "mendelian")
        if not variation.isdecimal() or name not in table.TYPES:
            raise UsageError(
                f"{identifier!r} names no ScienceWorld task", "expected something like 9_412 or find-plant_3"
            )
        if int(variation) >= table.TYPES[name].variations:
            raise UsageError(f"{name} has no variation {variation}", f"there are {table.TYPES[name].variations}")
        return Task(name=name, variation=int(variation))

    def step_limit(self, task: Task) -> int:
        """The literature's limit for the task's type, unless one was set."""
        return self._limit or table.TYPES[task.name].limit or table.DEFAULT_LIMIT

    def same(self, observed: str, recorded: str) -> bool:
        """Equal when the lines are, in any order: listings have none."""
        return sorted(_lines(observed)) == sorted(_lines(recorded))

    def adapted(self, task: Task, actions: list[str], observations: list[str]) -> tuple[list[str], list[str]]:
        """Recorded data speaks as the simulator does."""
        return actions, observations

    def versions(self) -> dict[str, str]:
        """The simulator's version and the simplifications that it runs with."""
        return {"scienceworld": metadata.version("scienceworld"), "simplifications": self.simplifications}

    def runtime(self) -> str:
        """The Java runtime that was chosen."""
        java = find_java()
        return f"{java.path} ({java.reason})"

    def start(self) -> "ScienceWorldSimulator":
        """Boot a JVM."""
        from sandcli.envs.scienceworld.simulator import ScienceWorldSimulator

        return ScienceWorldSimulator(find_java().path, partial(expand, self.simplifications))


def expand(simplifications: str, task: Task) -> str:
    """The simulator's own list for a setting and a task: electricity stays where the task needs it."""
    if simplifications == "none":
        return ""
    if simplifications != "eto":
        return simplifications
    electrical = "power-component" in task.name or "conductivity" in task.name
    return _ETO if electrical else f"{_ETO},noElectricalAction"


def _check(simplifications: str) -> None:
    labels = simplifications.split(",")
    if simplifications in ("eto", "easy", "none") or set(labels) <= _LABELS:
        return
    unknown = next(label for label in labels if label not in _LABELS)
    raise UsageError(
        f"unknown ScienceWorld simplification {unknown!r}",
        f"use eto, easy or none, or several of {', '.join(sorted(_LABELS))}",
    )


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]
