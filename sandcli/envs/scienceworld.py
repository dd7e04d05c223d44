"""ScienceWorld: 30 types of science experiments in a text world, run by its own simulator in a JVM.

We start the JVM ourselves: with flags that make every replay identical (the stock class leaves iteration order to
identity hashes), a bounded heap and a silent standard output. Several episodes live in one JVM at once; the
simulator's four global variables are put back before an episode goes on (`_Globals`).
"""

import difflib
import logging
import re
from collections.abc import Sequence
from importlib import metadata, util
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

from sandcli.envs import scienceworld_tasks as table
from sandcli.envs.base import Environment, Outcome, Reset
from sandcli.envs.java import find_java
from sandcli.errors import MachineryError, UsageError
from sandcli.prompts import load
from sandcli.records import Task

_ETO = "teleportAction,openDoors,selfWateringFlowerPots,openContainers"
_LABELS = {*_ETO.split(","), "noElectricalAction"}
_UNKNOWN_ACTION = "No known action matches that input."
_FLAGS = [
    "-Xmx1g",
    "-XX:+UseSerialGC",
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",  # the same iteration order in every run
    "--add-opens=java.base/java.util=ALL-UNNAMED",  # to read the state of the random generator
]


class ScienceWorld:
    """The world's tasks and settings; `start()` boots a JVM.

    `simplifications`: `eto`, `easy`, `none` or a comma list of the simulator's names. `tasks`: `paper`, `all` or
    task types. `step_limit`: 0 for each type's own.
    """

    name = "scienceworld"

    def __init__(self, simplifications: str = "eto", tasks: Sequence[str] = ("paper",), step_limit: int = 0) -> None:
        _check(simplifications)
        self.simplifications = simplifications
        self.system = load("scienceworld/instruction")
        self._types = list(dict.fromkeys(kind for name in tasks for kind in _selected(name)))
        self._paper = "paper" in tasks
        self._limit = step_limit

    def tasks(self, split: str) -> list[Task]:
        """The tasks of a split, types taking turns, so that any first N cover as many types as possible."""
        if split not in ("train", "seen", "unseen"):
            raise UsageError(f"unknown split {split!r} of ScienceWorld", "use train, seen or unseen")
        rows = zip_longest(
            *([Task(name=name, variation=v) for v in self._variations(name, split)] for name in self._types)
        )
        return [task for row in rows for task in row if task is not None]

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

    def versions(self) -> dict[str, str]:
        """The simulator's version and the simplifications that it runs with."""
        return {"scienceworld": metadata.version("scienceworld"), "simplifications": self.simplifications}

    def runtime(self) -> str:
        """The Java runtime that was chosen."""
        java = find_java()
        return f"{java.path} ({java.reason})"

    def start(self) -> "ScienceWorldSimulator":
        """Boot a JVM."""
        return ScienceWorldSimulator(self.simplifications)


class ScienceWorldSimulator:
    """A JVM with any number of ScienceWorld episodes in it."""

    def __init__(self, simplifications: str) -> None:
        self._simplifications = simplifications
        self._gateway, self._process = _launch(find_java().path)
        self._jvm = self._gateway.jvm
        # The simulator prints a lot on every step; it must not reach a pipe that nobody reads.
        self._jvm.java.lang.System.setOut(
            self._jvm.java.io.PrintStream(self._jvm.java.io.OutputStream.nullOutputStream())
        )
        self._globals = _Globals(self._jvm)

    def open(self) -> Environment:
        """A new episode slot of this JVM."""
        return _Episode(
            self._jvm.scienceworld.runtime.pythonapi.PythonInterface(), self._globals, self._simplifications
        )

    def expert(self, task: Task) -> list[str]:
        """The simulator's gold path, walks through rooms folded into teleports where that reaches the same score."""
        game = self._jvm.scienceworld.runtime.pythonapi.PythonInterface()
        self._globals.leave()
        game.load(task.name, task.variation, expand(self._simplifications, task), True)
        path = [str(action) for action in game.getGoldActionSequence()]
        folded = fold_navigation(path)
        return folded if self._score(task, folded) >= self._score(task, path) else path

    def _score(self, task: Task, actions: Sequence[str]) -> float:
        episode = self.open()
        best = episode.reset(task).score
        for action in actions:
            outcome = episode.step(action)
            best = max(best, outcome.score)
            if outcome.done:
                break
        return best

    def close(self) -> None:
        """End the JVM."""
        self._gateway.shutdown()  # or py4j's finalisers go on talking to it
        self._process.kill()
        self._process.wait(timeout=20)


class _Episode:
    def __init__(self, game: Any, variables: "_Globals", simplifications: str) -> None:
        self._game = game
        self._globals = variables
        self._simplifications = simplifications

    def reset(self, task: Task) -> Reset:
        self._globals.leave()
        self._game.load(task.name, task.variation, expand(self._simplifications, task), False)
        self._globals.adopt(self)
        score = float(self._game.getScore())
        if score < 0:
            raise MachineryError("environment", f"ScienceWorld did not load {task} with {self._simplifications!r}")
        return Reset(str(self._game.getTaskDescription()), score)

    def step(self, action: str) -> Outcome:
        self._globals.enter(self)
        observation = str(self._game.step(action))
        points = round(100 * float(self._game.getScore()))  # whole points, as the literature counts
        # A wrong focus fails the task with -100; the simulator itself leaves it to its callers to stop there.
        done = bool(self._game.getCompleted()) or points < 0
        score = max(0, points) / 100
        return Outcome(observation, score, done, not observation.startswith(_UNKNOWN_ACTION))


class _Globals:
    """The simulator's global variables, swapped in and out so that episodes of one JVM do not see each other.

    They are the counter of object ids, the random generator, and the list of simplifications in force.
    """

    _SCRAMBLER = 0x5DEECE66D  # java.util.Random.setSeed xors with it

    def __init__(self, jvm: Any) -> None:
        self._class = jvm.java.lang.Class.forName
        self._ids = self._module("util.UniqueIdentifier$")
        self._count = self._field("util.UniqueIdentifier$", "count")
        self._random = self._module("scala.util.Random$").self()
        self._seed = self._field("java.util.Random", "seed")
        processor = "main.scala.scienceworld.runtime.SimplifierProcessor$"
        self._simplifications = self._field(processor, "simplifications").get(self._module(processor))
        self._saved: WeakKeyDictionary[_Episode, tuple[int, int, Any]] = WeakKeyDictionary()
        self._current: _Episode | None = None

    def _field(self, owner: str, name: str) -> Any:
        field = self._class(owner).getDeclaredField(name)
        field.setAccessible(True)
        return field

    def _module(self, owner: str) -> Any:
        return self._field(owner, "MODULE$").get(None)

    def adopt(self, episode: _Episode) -> None:
        """The variables as they are now belong to this episode."""
        self._current = episode

    def enter(self, episode: _Episode) -> None:
        """Save the variables of the episode that ran last and put back this one's."""
        if self._current is episode:
            return
        self.leave()
        count, seed, simplifications = self._saved.pop(episode)
        self._count.setInt(self._ids, count)
        self._random.setSeed(seed ^ self._SCRAMBLER)
        self._simplifications.clear()
        getattr(self._simplifications, "$plus$plus$eq")(simplifications)
        self._current = episode

    def leave(self) -> None:
        """Save the variables of the episode that ran last."""
        if self._current is not None:
            state = (
                int(self._count.get(self._ids)),
                int(self._seed.get(self._random)),
                self._simplifications.clone(),
            )
            self._saved[self._current] = state
            self._current = None


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


def fold_navigation(path: Sequence[str]) -> list[str]:
    """Replace each run of `open door to X` and `go to X` by one `teleport to` the room it ends in."""
    folded: list[str] = []
    moving = False
    for action in path:
        room = action.removeprefix("go to ")
        if action.startswith("open door to "):
            continue
        if room == action:
            moving = False
            folded.append(action)
        else:
            folded[len(folded) - moving :] = [f"teleport to {room}"]
            moving = True
    return folded


def _selected(name: str) -> list[str]:
    if name == "all":
        return list(table.TYPES)
    if name == "paper":
        return [kind for kind, facts in table.TYPES.items() if facts.limit]
    if name not in table.TYPES:
        close = difflib.get_close_matches(name, table.TYPES, n=1)
        fix = f"did you mean {close[0]}?" if close else "use paper, all, or one of: " + ", ".join(table.TYPES)
        raise UsageError(f"unknown ScienceWorld task type {name!r}", fix)
    return [name]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def _launch(java: str) -> tuple[Any, Any]:
    from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

    logging.getLogger("py4j").setLevel(logging.CRITICAL)  # its finalisers complain about a JVM that is gone
    jar = Path(util.find_spec("scienceworld").origin).with_name("scienceworld.jar")  # type: ignore[union-attr, arg-type]
    try:
        port, process = launch_gateway(
            classpath=str(jar),
            die_on_exit=True,
            cwd=str(jar.parent),
            return_proc=True,
            java_path=java,
            javaopts=_FLAGS,
        )
    except ValueError as error:  # py4j reads the port from the first line that the JVM prints
        raise MachineryError("environment", f"{java} did not start ScienceWorld: it printed {error}") from error
    return JavaGateway(gateway_parameters=GatewayParameters(auto_field=True, port=port)), cast(Any, process)
