"""The pool: episodes are restored as they were, survive the death of their worker, and never get into each other."""

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sandcli.envs import worker as process
from sandcli.envs.base import Outcome, World, WorldSettings
from sandcli.envs.pool import Pool
from sandcli.envs.worker import PROCESS, Replaced, WorkerDied
from sandcli.errors import MachineryError, PrerequisiteError
from sandcli.records import Step, Task
from tests.helpers import fault
from tests.toyworld import ClosedWorld, RuinedWorld, ToyWorld

KITCHEN, GARDEN = Task(name="fetch", variation=0), Task(name="fetch", variation=1)
PATH = ["go to kitchen", "take lamp", "go to hall", "drop lamp"]
SEEN = [
    Outcome("You are in the kitchen.", 0.25, False, True),
    Outcome("You take the lamp.", 0.5, False, True),
    Outcome("You are in the hall, lamp in hand.", 0.75, False, True),
    Outcome("You drop the lamp.", 1.0, True, True),
]


def prefix(length: int) -> list[Step]:
    """The first steps of the path, as a trajectory records them."""
    return [
        Step(thought="", action=action, observation=outcome.observation, score=outcome.score)
        for action, outcome in zip(PATH[:length], SEEN, strict=False)
    ]


def workers_alive() -> list[object]:
    """The worker processes of pools; other libraries of this test process may have children of their own."""
    return [child for child in multiprocessing.active_children() if child.name == PROCESS]


def pooled(
    task: Callable[[Pool], Awaitable[None]],
    faults: Path | None = None,
    workers: int = 1,
    timeout: float = 30.0,
    kind: Callable[..., World] = ToyWorld,
) -> None:
    """Run something in a pool on the toy world."""

    async def opened() -> None:
        settings = WorldSettings(f"faults={faults}" if faults else "")
        async with Pool(partial(kind, settings), workers, timeout) as pool:
            await task(pool)

    asyncio.run(opened())
    assert workers_alive() == []


def test_an_episode_is_restored_to_the_state_after_its_prefix() -> None:
    async def task(pool: Pool) -> None:
        session = await pool.restore(KITCHEN, prefix(2))
        assert session.reset.instruction == "Bring the lamp from the kitchen to the hall. (House 0.)"
        assert (session.outcomes, session.score, session.best) == (SEEN[:2], 0.5, 0.5)
        assert await session.step("go to hall") == SEEN[2]
        assert await session.step("fly") == Outcome("I do not understand.", 0.75, False, False)
        assert await session.step("eat lamp") == Outcome("You eat the lamp. That is the end of it.", 0.0, True, True)
        assert (session.score, session.best) == (0.0, 0.75)
        await session.close()

    pooled(task)


def test_a_replay_ends_where_the_episode_does() -> None:
    async def task(pool: Pool) -> None:
        assert await pool.expert(KITCHEN, "gold", 0) == PATH
        restored = await pool.replay(KITCHEN, [*PATH, "look"])
        assert restored.outcomes == SEEN
        assert restored.reset.score == 0.0

    pooled(task)


def test_episodes_of_one_worker_do_not_disturb_each_other() -> None:
    async def task(pool: Pool) -> None:
        sessions = [await pool.restore(KITCHEN) for _ in range(3)]
        for action, outcome in zip(PATH, SEEN, strict=True):
            assert await asyncio.gather(*(session.step(action) for session in sessions)) == [outcome] * 3
        for session in sessions:
            await session.close()
        again = await pool.restore(GARDEN)
        assert (await again.step("look")).observation == "This is the hall."

    pooled(task)


def test_a_prefix_that_replays_differently_is_refused() -> None:
    async def task(pool: Pool) -> None:
        wrong = [*prefix(1), Step(thought="", action="take lamp", observation="You take\nit.", score=0.5)]
        with pytest.raises(MachineryError) as caught:
            await pool.restore(KITCHEN, wrong)
        assert caught.value.reason == "replay_diverged"
        assert caught.value.detail == "step 1 (take lamp): recorded 'You take', observed 'You take the lamp.'"
        assert (await pool.restore(KITCHEN, prefix(4))).score == 1.0

    pooled(task)


def test_a_prefix_that_goes_on_after_the_end_is_refused() -> None:
    async def task(pool: Pool) -> None:
        with pytest.raises(MachineryError, match="replay_diverged: the episode ended at step 4"):
            await pool.restore(KITCHEN, [*prefix(4), *prefix(1)])

    pooled(task)


@pytest.mark.parametrize(("kind", "timeout"), [("exit", 30.0), ("raise", 30.0), ("hang", 0.5)])
def test_an_episode_survives_its_worker(tmp_path: Path, kind: str, timeout: float) -> None:
    faults = tmp_path / "faults"
    fault(faults, kind, "fetch_0 go to hall")

    async def task(pool: Pool) -> None:
        session = await pool.restore(KITCHEN, prefix(1))
        assert [await session.step(action) for action in PATH[1:]] == SEEN[1:]
        assert session.outcomes == SEEN
        assert list(faults.iterdir()) == []

    pooled(task, faults, timeout=timeout)


def test_a_worker_that_dies_while_it_restores_is_replaced(tmp_path: Path) -> None:
    fault(tmp_path / "faults", "exit", "fetch_0 take lamp")

    async def task(pool: Pool) -> None:
        session = await pool.restore(KITCHEN, prefix(2))
        assert await session.step("go to hall") == SEEN[2]

    pooled(task, tmp_path / "faults")


@pytest.mark.parametrize(
    ("kind", "reason", "detail"),
    [
        ("exit", "environment", "the worker process ended during step"),
        ("raise", "environment", "RuntimeError: a fault of the toy world"),
        ("hang", "timeout", "no answer to step within 4 s"),
    ],
)
def test_a_call_that_kills_every_worker_is_given_up(tmp_path: Path, kind: str, reason: str, detail: str) -> None:
    for _ in range(3):
        fault(tmp_path / "faults", kind, "fetch_0 take lamp")

    async def task(pool: Pool) -> None:
        session = await pool.restore(KITCHEN, prefix(1))
        with pytest.raises(MachineryError) as caught:
            await session.step("take lamp")
        assert (caught.value.reason, caught.value.detail) == (reason, detail)
        await session.close()
        assert (await pool.replay(KITCHEN, PATH)).outcomes == SEEN

    pooled(task, tmp_path / "faults", timeout=4.0 if kind == "hang" else 30.0)


def test_an_episode_that_replays_differently_after_a_death_is_refused(tmp_path: Path) -> None:
    fault(tmp_path / "faults", "differ", "fetch_0 go to kitchen")
    fault(tmp_path / "faults", "exit", "fetch_0 take lamp")

    async def task(pool: Pool) -> None:
        session = await pool.restore(KITCHEN)
        assert (await session.step("go to kitchen")).observation == "You are in the kitchen. It flickers."
        with pytest.raises(MachineryError, match="replay_diverged"):
            await session.step("take lamp")

    pooled(task, tmp_path / "faults")


def test_a_queued_action_does_not_land_in_another_episode_when_the_worker_is_replaced(tmp_path: Path) -> None:
    fault(tmp_path / "faults", "exit", "carry_0 take lamp")

    async def task(pool: Pool) -> None:
        innocent = await pool.restore(KITCHEN, prefix(1))
        doomed = await pool.restore(Task(name="carry", variation=0))
        taken, garden, survived = await asyncio.gather(
            doomed.step("take lamp"), pool.restore(GARDEN), innocent.step("take lamp")
        )
        assert taken.observation == "You take the lamp."
        assert survived == SEEN[1]
        assert (await garden.step("look")).observation == "This is the hall."
        assert await innocent.step("go to hall") == SEEN[2]

    pooled(task, tmp_path / "faults")


def test_an_episode_knows_its_worker_by_the_time_it_was_opened(tmp_path: Path) -> None:
    fault(tmp_path / "faults", "exit", "carry_0 take lamp")

    async def task(pool: Pool) -> None:
        doomed = await pool.restore(Task(name="carry", variation=0))
        calls: list[Coroutine[None, None, Any]] = [
            pool.restore(GARDEN),
            doomed.step("take lamp"),
            pool.restore(KITCHEN),
            pool.restore(KITCHEN),
        ]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0)  # all are queued now; none gets its answer before the last one is worked off
        pool._workers[0]._thread.submit(str).result()
        garden, _, *others = await asyncio.gather(*tasks)
        assert (await garden.step("go to garden")).observation == "You are in the garden."
        assert [(await other.step("look")).observation for other in others] == ["This is the hall."] * 2

    pooled(task, tmp_path / "faults")


def test_an_episode_that_is_given_back_late_takes_no_other_with_it(tmp_path: Path) -> None:
    fault(tmp_path / "faults", "exit", "carry_0 take lamp")

    async def task(pool: Pool) -> None:
        leaving = await pool.restore(KITCHEN)
        doomed = await pool.restore(Task(name="carry", variation=0))
        _, garden, _ = await asyncio.gather(doomed.step("take lamp"), pool.restore(GARDEN), leaving.close())
        later = await pool.restore(KITCHEN)
        assert (await garden.step("go to garden")).observation == "You are in the garden."
        assert (await later.step("look")).observation == "This is the hall."
        assert (await garden.step("take lamp")).observation == "You take the lamp."

    pooled(task, tmp_path / "faults")


def test_the_deaths_of_one_episode_are_not_counted_against_its_neighbours(tmp_path: Path) -> None:
    for _ in range(3):
        fault(tmp_path / "faults", "exit", "carry_0 take lamp")

    async def task(pool: Pool) -> None:
        doomed = await pool.restore(Task(name="carry", variation=0))
        neighbours = [await pool.restore(KITCHEN) for _ in range(4)]
        steps = [neighbour.step("go to kitchen") for neighbour in neighbours]
        given_up, *survived = await asyncio.gather(doomed.step("take lamp"), *steps, return_exceptions=True)
        assert isinstance(given_up, MachineryError)
        assert survived == [SEEN[0]] * 4

    pooled(task, tmp_path / "faults")


def test_a_world_that_lacks_something_says_what() -> None:
    async def task(pool: Pool) -> None:
        raise AssertionError("the pool opened")

    with pytest.raises(PrerequisiteError) as caught:
        pooled(task, kind=ClosedWorld, workers=2)
    assert (caught.value.what, caught.value.fix) == ("the house is closed", "get a key")
    assert workers_alive() == []


def test_a_world_that_does_not_start_is_a_failure_of_machinery() -> None:
    async def task(pool: Pool) -> None:
        raise AssertionError("the pool opened")

    with pytest.raises(MachineryError, match="the environment does not start"):
        pooled(task, kind=RuinedWorld)
    assert workers_alive() == []


def test_episodes_are_spread_over_the_workers() -> None:
    async def task(pool: Pool) -> None:
        sessions = [await pool.restore(KITCHEN) for _ in range(4)]
        assert [len(workers_alive()), len(sessions)] == [2, 4]
        done = await asyncio.gather(*(session.step("go to kitchen") for session in sessions))
        assert done == [SEEN[0]] * 4

    pooled(task, workers=2)


def test_a_call_behind_the_end_of_the_pool_starts_nothing() -> None:
    async def task(pool: Pool) -> None:
        session = await pool.restore(KITCHEN)
        worker = pool._workers[0]
        worker._stop()
        with pytest.raises(WorkerDied, match="closed"):
            worker._call("restore", (KITCHEN, []), None)
        with pytest.raises(Replaced):
            worker._call("step", (0, "look"), session._life)

    pooled(task)


def test_a_worker_that_has_grown_is_replaced_and_its_episodes_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_GROWN", 1)
    monkeypatch.setattr(process, "_LOOK_EVERY", 2)

    async def task(pool: Pool) -> None:
        first = await pool.restore(KITCHEN, prefix(1))
        before = pool._workers[0]._process.pid
        second = await pool.restore(KITCHEN, prefix(2))
        assert pool._workers[0]._process.pid != before
        assert await first.step(PATH[1]) == SEEN[1]
        assert [await session.step(PATH[2]) for session in (first, second)] == [SEEN[2]] * 2

    pooled(task)


def test_branches_of_a_task_meet_the_worker_that_holds_its_snapshots() -> None:
    async def task(pool: Pool) -> None:
        sessions = [await pool.restore(KITCHEN, prefix(n % 3)) for n in range(4)]
        assert len({session._worker for session in sessions}) == 1
        other = await pool.restore(GARDEN)
        assert other._worker is not sessions[0]._worker
        for session in (*sessions, other):
            await session.close()

    pooled(task, workers=2)


def test_no_worker_idles_while_another_is_full() -> None:
    async def task(pool: Pool) -> None:
        sessions = [await pool.restore(KITCHEN, prefix(1)) for _ in range(12)]
        loads = sorted(worker.sessions for worker in pool._workers)
        assert loads[0] >= 4 and sum(loads) == 12
        assert [await session.step(PATH[1]) for session in sessions] == [SEEN[1]] * 12

    pooled(task, workers=2)


def test_a_task_that_cannot_be_played_fails_alone(tmp_path: Path) -> None:
    fault(tmp_path, "unplayable", "fetch_0 take lamp")

    async def task(pool: Pool) -> None:
        other, session = await pool.restore(GARDEN), await pool.restore(KITCHEN, prefix(1))
        process = pool._workers[0]._process.pid
        with pytest.raises(MachineryError, match=r"^environment: there is no such lamp$"):
            await session.step("take lamp")
        assert pool._workers[0]._process.pid == process
        assert (await other.step("look")).valid

    pooled(task, tmp_path)


def test_nothing_follows_the_end_of_an_episode() -> None:
    async def task(pool: Pool) -> None:
        session = await pool.restore(KITCHEN, prefix(4))
        with pytest.raises(MachineryError, match="'look' comes after the end of the episode"):
            await session.step("look")

    pooled(task)
