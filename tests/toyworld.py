"""A tiny deterministic text world in plain Python, for tests: fetch the lamp and drop it in the hall.

Tests configure it through the `simplifications` setting, as `name=value,...`: `pause` (seconds per step), `rules` (the
version of the world) and `faults`, a folder of fault files. Each fault happens once. Its file is named after what
happens (`exit-1`, `hang-1`, `raise-1`, `unplayable-1`, `differ-1`, `surrogate-1`, `nan-1`, `high-1`, `low-1`) and
contains the task and action that trigger it, such as `fetch_0 take lamp`.
"""

import os
import time
from copy import copy
from pathlib import Path

from sandcli.envs.base import DEFAULTS, Environment, Outcome, Reset, select_types
from sandcli.errors import MachineryError, PrerequisiteError, UsageError
from sandcli.records import Task
from sandcli.settings import EnvSettings

SYSTEM = """You live in a house with a hall, a kitchen and a garden. Rooms are reached with `go to ROOM`.
Answer with a thought and one action:
Thought: why
Action: the action"""

VARIATIONS = {"fetch": 12, "carry": 6, "riddle": 2}
"""`carry` starts in the lamp's room; the expert for `riddle` does not solve it."""

BAD_SCORES = {"nan": float("nan"), "high": 7.5, "low": -1.0}
"""The score that some faults return."""

SPLITS = {"train": slice(0, 6), "seen": slice(6, 9), "unseen": slice(9, 12)}


class ToyWorld:
    """The world's tasks."""

    name = "toyworld"
    system = SYSTEM
    experts = ("gold",)

    def __init__(self, settings: EnvSettings = DEFAULTS) -> None:
        self._settings = dict(item.split("=") for item in settings.simplifications.split(",") if "=" in item)
        self._tasks = select_types("toy", settings.tasks, list(VARIATIONS), ["fetch"])
        self._limit = settings.step_limit or 8

    def tasks(self, split: str) -> list[Task]:
        """The tasks of a split, one type after the other (not interleaved)."""
        if split not in SPLITS:
            raise UsageError(f"unknown toy split {split!r}", f"use {', '.join(SPLITS)}")
        return [Task(name=name, variation=v) for name in self._tasks for v in range(VARIATIONS[name])[SPLITS[split]]]

    def task_of(self, identifier: str) -> Task:
        """`fetch_3`."""
        name, _, variation = identifier.rpartition("_")
        if name not in VARIATIONS or not variation.isdecimal() or int(variation) >= VARIATIONS[name]:
            raise UsageError(f"{identifier!r} names no toy task", "use a name such as fetch_3")
        return Task(name=name, variation=int(variation))

    def step_limit(self, task: Task) -> int:
        """The same limit for all tasks."""
        return self._limit

    def content(self, task: Task) -> str:
        """What the task's house is made of."""
        self.task_of(str(task))
        return "wood"

    def observations_match(self, observed: str, recorded: str) -> bool:
        """Whether the words are equal."""
        return observed.split() == recorded.split()

    def to_game_grammar(self, task: Task, actions: list[str], observations: list[str]) -> tuple[list[str], list[str]]:
        """As recorded."""
        return actions, observations

    def versions(self) -> dict[str, str]:
        """The rules; pauses and faults do not change content."""
        return {"toyworld": self._settings.get("rules", "1")}

    def check_available(self) -> str:
        return "plain Python"

    def start(self) -> "ToySimulator":
        """Nothing heavy."""
        faults = self._settings.get("faults")
        return ToySimulator(float(self._settings.get("pause", "0")), Path(faults) if faults else None)


class ToySimulator:
    """Opens episodes."""

    def __init__(self, pause: float, faults: Path | None) -> None:
        self._pause = pause
        self._faults = faults

    def open(self, task: Task) -> Environment:
        """A new episode."""
        return ToyEpisode(task, self._pause, self._faults)

    def expert(self, task: Task, kind: str, seed: int) -> list[str]:
        """The shortest path; not a solution for `riddle`."""
        walk = [] if task.name == "carry" else [f"go to {place(task)}"]
        return walk + ["take lamp", "go to hall"] + (["drop lamp"] if task.name != "riddle" else [])

    def close(self) -> None:
        """Nothing to stop."""


class ToyEpisode:
    """One episode. Reaching, taking, bringing and dropping the lamp score a quarter each."""

    def __init__(self, task: Task, pause: float, faults: Path | None) -> None:
        self._pause = pause
        self._faults = faults
        self._task = task
        self._room = self._lamp = place(task)
        self._score = 0.25
        if task.name != "carry":
            self._room, self._score = "hall", 0.0
        self.reset = Reset(f"Bring the lamp from the {self._lamp} to the hall. (House {task.variation}.)", self._score)

    def fork(self) -> Environment:
        """Another episode in the same state."""
        return copy(self)

    def close(self) -> None:
        """Nothing to free."""

    def step(self, action: str) -> Outcome:
        """Execute one action."""
        time.sleep(self._pause)
        fault = self._fault(action)
        verb, _, what = action.strip().lower().partition(" ")
        if (verb, what) == ("eat", "lamp") and self._lamp in (self._room, "hand"):
            self._score = 0.0
            return Outcome("You eat the lamp. That is the end of it.", 0.0, True, True)
        text = self._go(what.removeprefix("to ")) if verb == "go" else self._handle(verb, what)
        valid = text is not None
        score = BAD_SCORES.get(fault, self._score)
        return Outcome((text or "I do not understand.") + fault, score, self._score == 1.0, valid)

    def _go(self, room: str) -> str | None:
        if room not in ("hall", "kitchen", "garden"):
            return None
        self._room = room
        if room == self._lamp:
            self._reach(0.25)
        if self._lamp == "hand" and room == "hall":
            self._reach(0.75)
        return f"You are in the {room}{', lamp in hand' if self._lamp == 'hand' else ''}."

    def _handle(self, verb: str, what: str) -> str | None:
        match verb, what:
            case "look", "":
                return f"This is the {self._room}." + (" There is a lamp." if self._lamp == self._room else "")
            case "take", "lamp":
                if self._lamp != self._room:
                    return "There is no lamp here."
                self._lamp = "hand"
                self._reach(0.5)
                return "You take the lamp."
            case "drop", "lamp":
                if self._lamp != "hand":
                    return "You do not hold a lamp."
                self._lamp = self._room
                self._reach(1.0 if self._room == "hall" else 0.5)
                return "You drop the lamp."
        return None

    def _reach(self, score: float) -> None:
        self._score = max(self._score, score)

    def _fault(self, action: str) -> str:
        """Trigger a fault that matches this action; the text that it adds to the observation."""
        for path in sorted(self._faults.glob("*-*")) if self._faults else []:
            if path.read_text() == f"{self._task} {action}":
                path.unlink()
                return _trigger(path.name.partition("-")[0])
        return ""


def place(task: Task) -> str:
    """Where the lamp is."""
    return ("kitchen", "garden")[(task.variation or 0) % 2]


def _trigger(kind: str) -> str:
    match kind:
        case "exit":
            os._exit(1)
        case "hang":
            parent = os.getppid()
            while os.getppid() == parent:  # end with the parent
                time.sleep(0.05)
        case "unplayable":
            raise MachineryError("environment", "there is no such lamp")
        case "raise":
            raise RuntimeError("a fault in the toy world")
        case "surrogate":
            return " \ud800 and \udfff"
        case "nan" | "high" | "low":
            return kind
    return " It flickers."


class ClosedWorld(ToyWorld):
    """A world that lacks a prerequisite."""

    def check_available(self) -> str:
        return "plain Python"

    def start(self) -> ToySimulator:
        """Raises."""
        raise PrerequisiteError("the house is closed", "get a key")


class RuinedWorld(ToyWorld):
    """A world whose start kills its process."""

    def check_available(self) -> str:
        return "plain Python"

    def start(self) -> ToySimulator:
        """Exits."""
        os._exit(1)
