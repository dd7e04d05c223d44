"""`sand bench env`: compare our environments with the stock ones on this machine, in one run.

Machines are shared and noisy, so stock and ours alternate, and the result is the ratio of their medians (for the pool,
of the best rounds). Both play the same games and tasks with the same actions.
"""

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from sandcli.envs.alfworld.files import TYPES
from sandcli.envs.alfworld.world import Alfworld
from sandcli.envs.base import Simulator, World
from sandcli.envs.pool import Pool
from sandcli.envs.scienceworld.java import find_java
from sandcli.envs.scienceworld.world import ScienceWorld, simplifications_for
from sandcli.envs.worker_process import WorkerProcess
from sandcli.progress import notice
from sandcli.records import Task
from sandcli.settings import EnvSettings

_PREFIX = 20
"""Length of the restored prefix, in steps."""

_SECONDS = 6.0
_ROUNDS = 4
"""How long a round of the pool runs, and how many there are: a JVM is slow until its code is compiled."""


class Ratio(NamedTuple):
    """The slower time divided by the faster one; `slow` and `fast` are in milliseconds."""

    name: str
    ratio: float
    slow: float
    fast: float
    meaning: str


class _Times:
    """Samples in seconds."""

    def __init__(self) -> None:
        self.slow: list[float] = []
        self.fast: list[float] = []

    def ratio(self, name: str, meaning: str) -> Ratio:
        slow, fast = median(self.slow), median(self.fast)
        return Ratio(name, round(slow / fast, 2), round(1000 * slow, 3), round(1000 * fast, 3), meaning)


def bench_environments(rounds: int) -> Iterator[Ratio]:
    """Yield each ratio as soon as it is measured. `rounds` is the number of games and tasks to play."""
    yield from _alfworld(rounds)
    yield from _scienceworld(rounds)
    yield _pool_scaling()


def _alfworld(rounds: int) -> Iterator[Ratio]:
    Alfworld().check_available()
    from sandcli.envs.alfworld.making import make_games

    restore, step, reset = _Times(), _Times(), _Times()
    with tempfile.TemporaryDirectory() as folder:
        notice("ALFWorld: making games")
        list(make_games(Path(folder), per_type=-(-rounds // len(TYPES)), seed=0))
        settings = EnvSettings(games=folder)
        for task in Alfworld(settings).tasks("train")[:rounds]:
            notice(f"ALFWorld: {task.name}")
            actions = _alfworld_stock(Path(folder), task, restore, step, reset)
            worker = WorkerProcess(partial(Alfworld, settings))  # a new simulator: it has not loaded the game yet
            reset.fast.append(_timed(lambda: worker.restore(task, []))[0])  # noqa: B023
            _ours(worker, task, actions, restore, step)
    yield reset.ratio("alfworld_reset_ratio", "stock reset / ours, for a game that is translated but not loaded")
    yield step.ratio("alfworld_step_ratio", "stock step / ours, text and admissible commands included")
    yield restore.ratio("alfworld_restore_ratio", f"stock reset and replay of {_PREFIX} steps / our restore")


def _alfworld_stock(root: Path, task: Task, restore: _Times, step: _Times, reset: _Times) -> list[str]:
    """Play a random walk in the stock environment; the actions taken."""
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler

    from sandcli.envs.alfworld.files import FILE, FOLDER

    wanted = textworld.EnvInfos(won=True, admissible_commands=True)
    path = root / FOLDER / (task.game or "") / FILE
    env = textworld.start(str(path), wanted, wrappers=[AlfredDemangler])
    seconds, state = _timed(env.reset)
    reset.slow.append(seconds)
    draw, actions, total = random.Random(0), list[str](), seconds
    for _ in range(_PREFIX):
        actions.append(draw.choice([c for c in state.admissible_commands if c not in ("help", "look")]))
        seconds, (state, _, _) = _timed(partial(env.step, actions[-1]))
        step.slow.append(seconds)
        total += seconds
    restore.slow.append(total)
    return actions


def _scienceworld(rounds: int) -> Iterator[Ratio]:
    tasks = ScienceWorld().tasks("train")[:rounds]
    replay, restore, step = _Times(), _Times(), _Times()
    simulator = ScienceWorld().start()
    worker = WorkerProcess(ScienceWorld, simulator)
    stock = _stock_scienceworld()
    try:
        for task in [*tasks, *tasks]:  # the first pass warms up both JVMs
            notice(f"ScienceWorld: {task.name}")
            actions = _walk(_PREFIX)
            if task is tasks[0]:
                replay, restore, step = _Times(), _Times(), _Times()
            restore.slow.append(_scienceworld_stock(stock, task, actions, step))
            replay.slow.append(_timed(partial(_replayed, simulator, task, actions))[0])
            _ours(worker, task, actions, restore, step)
    finally:
        worker.close()
        stock.close()
    replay.fast = restore.fast
    yield step.ratio("scienceworld_step_ratio", "step of the stock class / ours")
    yield replay.ratio("scienceworld_restore_ratio", f"our load and replay of {_PREFIX} steps / our fork")
    yield restore.ratio("scienceworld_restore_vs_stock_ratio", f"stock load and replay of {_PREFIX} steps / our fork")


def _replayed(simulator: Simulator, task: Task, actions: Sequence[str]) -> None:
    episode = simulator.open(task)
    for action in actions:
        episode.step(action)
    episode.close()


def _stock_scienceworld() -> Any:
    from scienceworld import ScienceWorldEnv

    os.environ["PATH"] = (
        f"{Path(find_java().path).parent}{os.pathsep}{os.environ['PATH']}"  # it runs the first java on PATH
    )
    return ScienceWorldEnv("", envStepLimit=10**6)


def _scienceworld_stock(env: Any, task: Task, actions: Sequence[str], step: _Times) -> float:
    simplified = simplifications_for("eto", task)
    seconds, _ = _timed(lambda: (env.load(task.name, task.variation, simplified), env.reset()))
    for action in actions:
        taken, _ = _timed(partial(env.step, action))
        step.slow.append(taken)
        seconds += taken
    return seconds


def _ours(worker: WorkerProcess, task: Task, actions: list[str], restore: _Times, step: _Times) -> None:
    """Take the actions step by step, then restore the state after them, as branches do."""
    slot, _, _ = worker.restore(task, [])
    for action in actions:
        step.fast.append(_timed(partial(worker.step, slot, action))[0])
    worker.release(slot)
    worker.release(worker.restore(task, actions)[0])  # the first branch makes the snapshot
    for _ in range(10):
        seconds, (slot, _, _) = _timed(partial(worker.restore, task, actions))
        restore.fast.append(seconds)
        worker.release(slot)


def _walk(length: int) -> list[str]:
    draw = random.Random(0)
    rooms = ["kitchen", "greenhouse", "outside", "workshop", "foundry"]
    return [
        draw.choice([f"teleport to {draw.choice(rooms)}", "look around", "wait1", "inventory"]) for _ in range(length)
    ]


def _pool_scaling() -> Ratio:
    rates = {}
    for workers in (1, 2):
        notice(f"pool: {workers} worker{'s' * (workers > 1)}")
        rates[workers] = asyncio.run(_rate(ScienceWorld, workers))
    one, two = (1 / rates[1], 1 / rates[2])
    meaning = "ScienceWorld steps a second of 2 workers / of 1"
    return Ratio("pool_scaling", round(one / two, 2), round(1000 * one, 3), round(1000 * two, 3), meaning)


async def _rate(build: Callable[[], World], workers: int) -> float:
    """Steps per second in the best round of a pool with eight concurrent episodes."""
    rates = []
    async with Pool(build, workers, 120.0) as pool:
        tasks = build().tasks("train")[:8]

        async def episodes(until: float, task: Task) -> int:
            taken = 0
            while time.monotonic() < until:
                session = await pool.restore(task)
                for action in _walk(_PREFIX):
                    await session.step(action)
                    taken += 1
                await session.close()
            return taken

        for _ in range(_ROUNDS):
            start = time.monotonic()
            taken = await asyncio.gather(*(episodes(start + _SECONDS, task) for task in tasks))
            rates.append(sum(taken) / (time.monotonic() - start))
    return max(rates)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result
