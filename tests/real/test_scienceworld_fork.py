"""Forks behave exactly as replays: on every task type, interleaved with other episodes, and after a detour."""

import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path
from types import SimpleNamespace

import pytest

from sandcli.envs.base import Outcome, Reset
from sandcli.envs.scienceworld import simulator as live
from sandcli.envs.scienceworld import tasks as table
from sandcli.envs.scienceworld.simulator import ScienceWorldEpisode, ScienceWorldSimulator
from sandcli.envs.scienceworld.world import ScienceWorld
from sandcli.records import Task
from sandcli.settings import EnvSettings

pytestmark = pytest.mark.real

ROOMS = ["kitchen", "greenhouse", "outside", "workshop", "foundry", "living room", "art studio", "bathroom"]
THINGS = ["cup", "orange", "metal pot", "stove", "battery", "seed jar", "bee hive", "flower pot", "thermometer", "sink"]


@pytest.fixture(scope="module")
def simulator() -> Iterator[ScienceWorldSimulator]:
    started = ScienceWorld(EnvSettings(tasks=["all"])).start()
    yield started
    started.close()


def walk(seed: int, length: int) -> list[str]:
    """Random commands of every kind, sensible or not."""
    draw = random.Random(seed)
    kinds: list[Callable[[], str]] = [
        lambda: f"teleport to {draw.choice(ROOMS)}",
        lambda: "look around",
        lambda: f"{draw.choice(['pick up', 'examine', 'open', 'activate'])} {draw.choice(THINGS)}",
        lambda: f"move {draw.choice(THINGS)} to {draw.choice(THINGS)}",
        lambda: f"pour {draw.choice(THINGS)} into {draw.choice(THINGS)}",
        lambda: "wait1",
        lambda: "inventory",
        lambda: "1",
    ]
    return [draw.choice(kinds)() for _ in range(length)]


def follow(episode: ScienceWorldEpisode, actions: list[str]) -> list[Outcome]:
    return [episode.step(action) for action in actions]


def forked(episode: ScienceWorldEpisode) -> ScienceWorldEpisode:
    fork = episode.fork()
    assert fork is not None
    return fork


@pytest.mark.parametrize("name", list(table.TYPES))
def test_fork_continues_exactly_as_a_replay(simulator: ScienceWorldSimulator, name: str) -> None:
    task = Task(name=name, variation=1)
    prefix, rest, detour = walk(1, 10), walk(2, 8), walk(3, 8)
    expected = follow(simulator.open(task), [*prefix, *rest])[len(prefix) :]
    expected_detour = follow(simulator.open(task), [*prefix, *detour])[len(prefix) :]
    original = simulator.open(task)
    follow(original, prefix)
    snapshot = forked(original)
    other, first = forked(snapshot), forked(snapshot)
    assert follow(other, detour) == expected_detour
    turns = [(original.step(action), first.step(action)) for action in rest]  # interleaved, step by step
    assert [outcome for outcome, _ in turns] == expected
    assert [outcome for _, outcome in turns] == expected
    assert follow(forked(snapshot), rest) == expected
    assert follow(forked(forked(snapshot)), detour) == expected_detour


@pytest.mark.parametrize("nonsense", ["", "look\x00\x1b[2J", "look around\nwait", "a" * 10_000, "\x01"])
def test_nonsense_is_an_invalid_action(simulator: ScienceWorldSimulator, nonsense: str) -> None:
    episode = simulator.open(Task(name="find-plant", variation=0))
    outcome = episode.step(nonsense)
    assert (outcome.score, outcome.done, outcome.valid) == (0.0, False, False)
    assert episode.step("look around").valid


def test_fork_is_none_if_java_refuses_the_copy() -> None:
    from py4j.protocol import Py4JJavaError

    class Refusing:
        def fork(self) -> None:
            raise Py4JJavaError("a field is not open", SimpleNamespace(_target_id="o1", _gateway_client=None))

    assert ScienceWorldEpisode(Refusing(), Reset("", 0.0)).fork() is None


def test_java_classes_match_their_source(tmp_path: Path) -> None:
    javac = shutil.which("javac")
    if javac is None or " 17." not in subprocess.run([javac, "-version"], capture_output=True, text=True).stdout:
        pytest.skip("compiling the classes needs javac 17")
    folder = live._CLASSES
    jar = Path(util.find_spec("scienceworld").origin).with_name("scienceworld.jar")  # type: ignore[union-attr, arg-type]
    sources = sorted(map(str, folder.glob("sand/*.java")))
    flags = ["--release", "17", "-g:none", "-nowarn", "-cp", str(jar), "-d", str(tmp_path)]
    subprocess.run([javac, *flags, *sources], check=True, capture_output=True)
    made = {file.name: file.read_bytes() for file in tmp_path.glob("sand/*.class")}
    assert made == {file.name: file.read_bytes() for file in folder.glob("sand/*.class")}
