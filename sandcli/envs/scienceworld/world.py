"""ScienceWorld: 30 types of science experiments in a text world. Its simulator runs in a JVM."""

import re
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING

from sandcli.envs.base import DEFAULTS, interleave, select_types
from sandcli.envs.scienceworld import tasks as table
from sandcli.envs.scienceworld.java import find_java
from sandcli.errors import UsageError
from sandcli.prompts import load
from sandcli.records import Task
from sandcli.settings import EnvSettings

if TYPE_CHECKING:
    from sandcli.envs.scienceworld.simulator import ScienceWorldSimulator

_ETO = "teleportAction,openDoors,selfWateringFlowerPots,openContainers"
_LABELS = {*_ETO.split(","), "noElectricalAction"}
_EASY = "teleportAction,openDoors,selfWateringFlowerPots,noElectricalAction"
_CHOICE = re.compile(r"\{(\w+): (.*?) \| (.*?)\}")


class ScienceWorld:
    """ScienceWorld's tasks. `start()` starts a JVM."""

    name = "scienceworld"
    experts = ("gold",)

    def __init__(self, settings: EnvSettings = DEFAULTS) -> None:
        _check(settings.simplifications)
        self._simplifications = settings.simplifications
        self.system = instruction(settings.simplifications)
        paper = [kind for kind, facts in table.TYPES.items() if facts.limit]
        self._types = select_types("ScienceWorld", settings.tasks, list(table.TYPES), paper)
        self._paper = "paper" in settings.tasks
        self._limit = settings.step_limit

    def tasks(self, split: str) -> list[Task]:
        """The tasks of a split, ordered so that any first N cover as many types and scenes as possible."""
        if split not in ("train", "seen", "unseen"):
            raise UsageError(f"unknown split {split!r} of ScienceWorld", "use train, seen or unseen")
        return interleave(
            [Task(name=name, variation=v) for v in table.spread(self._variations(name, split))] for name in self._types
        )

    def _variations(self, name: str, split: str) -> Sequence[int]:
        kind = table.TYPES[name]
        if split == "train":
            return table.literature()[name] if self._paper and kind.limit else table.train(kind)
        if split == "seen":
            return kind.seen if self._paper else table.dev(kind)
        return table.test(kind)[:10] if self._paper else table.test(kind)

    def task_of(self, identifier: str) -> Task:
        """The task that an identifier from a published data set names.

        It is `9_412` (ETO's numbering), `sciworld_412` (AgentGym's), `find-plant_3`, or an older name such as
        `task-2a-test-conductivity_3`.
        """
        name, _, variation = identifier.rpartition("_")
        if name == "sciworld" and variation.isdecimal():
            name, variation = table.agentgym_task(int(variation))
        if name.isdecimal() and int(name) < len(table.ETO_ORDER):
            name = table.ETO_ORDER[int(name)]
        name = re.sub(r"^task-\d+a?-|[()]", "", name).replace("mendellian", "mendelian")
        if not variation.isdecimal() or name not in table.TYPES:
            raise UsageError(f"{identifier!r} names no ScienceWorld task", "use a name such as 9_412 or find-plant_3")
        if int(variation) >= table.TYPES[name].variations:
            raise UsageError(
                f"{name} has no variation {variation}", f"use a variation below {table.TYPES[name].variations}"
            )
        return Task(name=name, variation=int(variation))

    def step_limit(self, task: Task) -> int:
        """The limit from the settings, or the literature's limit for the task's type."""
        return self._limit or table.TYPES[task.name].limit or table.DEFAULT_LIMIT

    def content(self, task: Task) -> str:
        """Nothing: the simulator's version says all. Raises `UsageError` if it has no such task."""
        if task.variation is None or task.game is not None:
            raise UsageError(f"{task.name} has no number, so it is no ScienceWorld task", "name its variation")
        self.task_of(f"{task.name}_{task.variation}")
        return ""

    def observations_match(self, observed: str, recorded: str) -> bool:
        """Whether the lines are equal, in any order: the order of a listing carries no meaning."""
        return sorted(_lines(observed)) == sorted(_lines(recorded))

    def to_game_grammar(self, task: Task, actions: list[str], observations: list[str]) -> tuple[list[str], list[str]]:
        """The data as recorded: ScienceWorld has one grammar."""
        return actions, observations

    def versions(self) -> dict[str, str]:
        """The simulator's version and the simplifications."""
        return {"scienceworld": metadata.version("scienceworld"), "simplifications": self._simplifications}

    def check_available(self) -> str:
        """The Java runtime and why it was chosen."""
        java = find_java()
        return f"{java.path} ({java.reason})"

    def start(self) -> "ScienceWorldSimulator":
        """Start a JVM."""
        from sandcli.envs.scienceworld.simulator import ScienceWorldSimulator

        return ScienceWorldSimulator(find_java().path, partial(simplifications_for, self._simplifications))


def instruction(setting: str) -> str:
    """What the agent is told of its world. `{label: A | B}` in the text is A if that simplification is on, else B."""
    labels = {"eto": _ETO, "easy": _EASY}.get(setting, setting).split(",")
    return _CHOICE.sub(lambda found: found[2] if found[1] in labels else found[3], load("scienceworld/instruction"))


def simplifications_for(setting: str, task: Task) -> str:
    """The simulator's own list for a setting. `eto` removes electricity, except from the tasks that need it."""
    if setting == "none":
        return ""
    if setting != "eto":
        return setting
    electrical = "power-component" in task.name or "conductivity" in task.name
    return _ETO if electrical else f"{_ETO},noElectricalAction"


def _check(simplifications: str) -> None:
    labels = simplifications.split(",")
    if simplifications in ("eto", "easy", "none") or set(labels) <= _LABELS:
        return
    unknown = next(label for label in labels if label not in _LABELS)
    raise UsageError(
        f"unknown ScienceWorld simplification {unknown!r}",
        f"use eto, easy or none, or a comma list of {', '.join(sorted(_LABELS))}",
    )


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]
