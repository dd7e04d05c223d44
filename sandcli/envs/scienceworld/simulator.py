"""A running ScienceWorld: one JVM that holds any number of episodes.

We start the JVM ourselves to set three things: flags that make replays identical (with the stock class, iteration
order depends on identity hashes), a heap limit, and a silent standard output. Our classes in `jvm/` isolate the
episodes of one JVM from each other and fork them by copying the simulator's objects.
"""

import logging
import os
import subprocess
from collections.abc import Callable, Sequence
from importlib import util
from pathlib import Path
from typing import Any

from sandcli.envs.base import Outcome, Reset
from sandcli.envs.scienceworld.java import environment
from sandcli.envs.scienceworld.navigation import fold_walks
from sandcli.errors import MachineryError
from sandcli.records import Task

_SEPARATOR = "\x01"
_UNKNOWN_ACTION = "No known action matches that input."
_CLASSES = Path(__file__).with_name("jvm")
_FLAGS = [
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",  # the same iteration order in every run
    "-XX:+DisplayVMOutputToStderr",  # py4j expects its port on stdout
    "-Duser.language=en",  # numbers have Western digits and a decimal point everywhere
    "-Duser.country=US",
    "-Dfile.encoding=UTF-8",
    # our classes read and copy the private fields of java.util's
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED",
]


class ScienceWorldSimulator:
    """A JVM. `simplifications` returns the simulator's list of simplifications for a task."""

    def __init__(self, java: str, simplifications: Callable[[Task], str]) -> None:
        self._simplifications = simplifications
        self._gateway, self._process = _launch(java)
        jvm = self._gateway.jvm
        # The simulator prints a lot at every step, and nobody reads its output: a full pipe would block it.
        jvm.java.lang.System.setOut(jvm.java.io.PrintStream(jvm.java.io.OutputStream.nullOutputStream()))
        self._episodes = jvm.sand.Episode

    def open(self, task: Task) -> "ScienceWorldEpisode":
        """A new episode at the start of a task."""
        simplifications = self._simplifications(task)
        episode = self._episodes.load(task.name, task.variation, simplifications)
        instruction, score = episode.begun().split(_SEPARATOR)
        if float(score) < 0:
            episode._detach()
            raise MachineryError("environment", f"ScienceWorld did not load {task}, simplified by {simplifications!r}")
        return ScienceWorldEpisode(episode, Reset(instruction, float(score)))

    def expert(self, task: Task, kind: str, seed: int) -> list[str]:
        """The simulator's gold path, with walks replaced by teleports if that reaches the same score."""
        actions = self._episodes.gold(task.name, task.variation, self._simplifications(task))
        path = [str(action) for action in actions]
        actions._detach()
        short = fold_walks(path)
        if short == path:
            return path
        reached = self._score(task, short)
        return short if reached >= 1.0 or reached >= self._score(task, path) else path

    def _score(self, task: Task, actions: Sequence[str]) -> float:
        episode = self.open(task)
        best = episode.reset.score
        try:
            for action in actions:
                outcome = episode.step(action)
                best = max(best, outcome.score)
                if outcome.done:
                    break
        finally:
            episode.close()
        return best

    def close(self) -> None:
        """Stop the JVM."""
        self._gateway.shutdown()  # first, or py4j's finalisers would still call the JVM
        self._process.kill()
        self._process.wait(timeout=20)


class ScienceWorldEpisode:
    """One episode: a handle to its object in the JVM."""

    def __init__(self, episode: Any, reset: Reset) -> None:
        self._episode = episode
        self.reset = reset

    def step(self, action: str) -> Outcome:
        """Execute one action."""
        observation, score, completed = self._episode.step(action).split(_SEPARATOR)
        points = round(100 * float(score))  # whole points, as the literature counts
        # A wrong focus fails the task with -100, but the simulator itself would continue.
        done = completed == "true" or points < 0
        return Outcome(observation, max(0, points) / 100, done, not observation.startswith(_UNKNOWN_ACTION))

    def fork(self) -> "ScienceWorldEpisode | None":
        """An independent episode in the same state, copied inside the JVM. None if Java refuses the copy."""
        from py4j.protocol import Py4JJavaError

        try:
            return ScienceWorldEpisode(self._episode.fork(), self.reset)
        except Py4JJavaError:
            return None

    def close(self) -> None:
        """Drop the JVM's reference to the episode.

        It takes half a megabyte. py4j's handle is part of a reference cycle, so without this call the JVM would keep it
        until Python's cycle collector happens to run.
        """
        self._episode._detach()


def _launch(java: str) -> "tuple[Any, subprocess.Popen[str]]":
    """Start a JVM and connect to it.

    Any user of the machine can connect to py4j's port, and could run code through it as this user. So the JVM makes a
    token, prints it on its stdout, which only this process can read, and refuses a client that does not send it first.
    """
    from py4j.java_gateway import GatewayParameters, JavaGateway, find_jar_path

    logging.getLogger("py4j").setLevel(logging.CRITICAL)  # its finalisers log errors once the JVM is gone
    jar = Path(util.find_spec("scienceworld").origin).with_name("scienceworld.jar")  # type: ignore[union-attr, arg-type]
    classes = os.pathsep.join((find_jar_path(), str(jar), str(_CLASSES)))
    process = subprocess.Popen(
        [java, *_FLAGS, "-classpath", classes, "py4j.GatewayServer", "--enable-auth", "--die-on-broken-pipe", "0"],
        stdin=subprocess.PIPE,  # closed when this process ends for any reason; then the JVM ends too
        stdout=subprocess.PIPE,
        cwd=jar.parent,
        env=environment(),
        text=True,
    )
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    if not port.isdecimal():
        process.kill()
        process.wait()
        raise MachineryError("environment", f"{java} did not start ScienceWorld: it printed {port!r}")
    token = process.stdout.readline().strip()
    return JavaGateway(gateway_parameters=GatewayParameters(auto_field=True, port=int(port), auth_token=token)), process
