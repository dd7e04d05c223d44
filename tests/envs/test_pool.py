"""The pool restores episodes exactly, keeps them alive when their worker dies, and isolates them from each other."""

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sandcli.envs import worker as worker_module
from sandcli.envs.base import Outcome, World
from sandcli.envs.pool import NO_LOG, Pool
from sandcli.envs.worker import PROCESS_NAME, WorkerDied, WorkerReplaced
from sandcli.errors import MachineryError, PrerequisiteError
from sandcli.records import Step, Task
from sandcli.settings import EnvSettings
from tests.envs.odd_worlds import PonderingWorld
from tests.helpers import fault
from tests.toyworld import ClosedWorld, RuinedWorld, ToyWorld

KITCHEN, GARDEN = Task(name="fetch", variation=0), Task(name="fetch", variation=1)
PATH = ["go to kitchen", "take lamp", "go to hall", "drop lamp"]
OUTCOMES = [
    Outcome("You are in the kitchen.", 0.25, False, True),
    Outcome("You take the lamp.", 0.5, False, True),
    Outcome("You are in the hall, lamp in hand.", 0.75, False, True),
    Outcome("You drop the lamp.", 1.0, True, True),
]


def prefix(length: int) -> list[Step]:
    """The first steps of PATH as a trajectory records them."""
    return [
        Step(thought="", action=action, observation=outcome.observation, score=outcome.score)
        for action, outcome in zip(PATH[:length], OUTCOMES, strict=False)
    ]


def workers_alive() -> list[object]:
    """The worker processes of pools. Other libraries may have started children too."""
    return [child for child in multiprocessing.active_children() if child.name == PROCESS_NAME]


def run_in_pool(
    task: Callable[[Pool], Awaitable[None]],
    faults: Path | None = None,
    workers: int = 1,
    timeout: float = 30.0,
    kind: Callable[..., World] = ToyWorld,
    log: Path = NO_LOG,
) -> None:
    """Run a test in a pool on the toy world; no worker may be left."""

    async def opened() -> None:
        settings = EnvSettings(simplifications=f"faults={faults}" if faults else "")
        async with Pool(partial(kind, settings), workers, timeout, log) as pool:
            await task(pool)

    asyncio.run(opened())
    assert workers_alive() == []


def test_restore_brings_an_episode_to_the_state_after_its_prefix() -> None:
    async def task(pool: Pool) -> None:
        session = await pool.restore(KITCHEN, prefix(2))
        assert session.reset.instruction == "Bring the lamp from the kitchen to the hall. (House 0.)"
        assert (session.outcomes, session.score, session.best) == (OUTCOMES[:2], 0.5, 0.5)
        assert await session.step("go to hall") == OUTCOMES[2]
        assert await session.step("fly") == Outcome("I do not understand.", 0.75, False, False)
        assert await session.step("eat lamp") == Outcome("You eat the lamp. That is the end of it.", 0.0, True, True)
        assert (session.score, session.best) == (0.0, 0.75)
        await session.close()

    run_in_pool(task)


def test_expert_without_an_answer_in_time_is_asked_once() -> None:
    async def task(pool: Pool) -> None:
        pool._workers[0]._timeout = 0.5  # the start may take longer
        with pytest.raises(MachineryError, match=r"raise run\.timeout, or choose another expert") as caught:
            await pool.expert(KITCHEN, "gold", 0)
        assert caught.value.reason == "expert"
        assert pool.restarts == {"no answer to expert within 0.5 s": 1}

    run_in_pool(task, kind=PonderingWorld)


def test_expert_is_broken_off_by_an_interrupt_and_so_are_those_that_wait_for_its_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sandcli.envs.pool._GRACE", 0.1)

    async def task(pool: Pool) -> None:
        asked: list[int] = []

        def stop() -> bool:
            asked.append(1)
            return len(asked) > 4

        experts = [pool.expert(house, "gold", 0, stop) for house in (KITCHEN, GARDEN)]
        for broken in await asyncio.gather(*experts, return_exceptions=True):
            assert isinstance(broken, MachineryError) and broken.detail == "it was interrupted"

    run_in_pool(task, timeout=1_000.0, kind=PonderingWorld)


def test_replay_stops_at_the_end_of_the_episode() -> None:
    async def task(pool: Pool) -> None:
        assert await pool.expert(KITCHEN, "gold", 0) == PATH
        restored = await pool.replay(KITCHEN, [*PATH, "look"])
        assert restored.outcomes == OUTCOMES
        assert restored.reset.score == 0.0

    run_in_pool(task)


def test_worker_isolates_its_episodes() -> None:
    async def task(pool: Pool) -> None:
        sessions = [await pool.restore(KITCHEN) for _ in range(3)]
        for action, outcome in zip(PATH, OUTCOMES, strict=True):
            assert await asyncio.gather(*(session.step(action) for session in sessions)) == [outcome] * 3
        for session in sessions:
            await session.close()
        again = await pool.restore(GARDEN)
        assert (await again.step("look")).observation == "This is the hall."

    run_in_pool(task)


def test_restore_rejects_a_prefix_that_replays_differently() -> None:
    async def task(pool: Pool) -> None:
        wrong = [*prefix(1), Step(thought="", action="take lamp", observation="You take\nit.", score=0.5)]
        with pytest.raises(MachineryError) as caught:
            await pool.restore(KITCHEN, wrong)
        assert caught.value.reason == "replay_diverged"
        assert caught.value.detail == "step 1 (take lamp): recorded 'You take', observed 'You take the lamp.'"
        assert (await pool.restore(KITCHEN, prefix(4))).score == 1.0

    run_in_pool(task)


def test_restore_rejects_a_prefix_longer_than_the_episode() -> None:
    async def task(pool: Pool) -> None:
        with pytest.raises(MachineryError, match="replay_diverged: the episode ended at step 4"):
            await pool.restore(KITCHEN, [*prefix(4), *prefix(1)])

    run_in_pool(task)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "timeout"), [("exit", 30.0), ("raise", 30.0), ("hang", 10.0)])
def test_episode_survives_worker_death(tmp_path: Path, kind: str, timeout: float) -> None:
    faults = tmp_path / "faults"
    fault(faults, kind, "fetch_0 go to hall")

    async def task(pool: Pool) -> None:
        session = await pool.restore(KITCHEN, prefix(1))
        assert [await session.step(action) for action in PATH[1:]] == OUTCOMES[1:]
        assert session.outcomes == OUTCOMES
        assert list(faults.iterdir()) == []

    run_in_pool(task, faults, timeout=timeout)


def test_restore_survives_worker_death(tmp_path: Path) -> None:
    fault(tmp_path / "faults", "exit", "fetch_0 take lamp")

    async def task(pool: Pool) -> None:
        session = await pool.restore(KITCHEN, prefix(2))
        assert await session.step("go to hall") == OUTCOMES[2]

    run_in_pool(task, tmp_path / "faults")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "reason", "detail"),
    [
        ("exit", "environment", "the worker process ended during step"),
        ("raise", "environment", "RuntimeError: a fault in the toy world"),
        ("hang", "timeout", "no answer to step within 4 s"),
    ],
)
def test_step_fails_after_three_worker_deaths(tmp_path: Path, kind: str, reason: str, detail: str) -> None:
    for _ in range(3):
        fault(tmp_path / "faults", kind, "fetch_0 take lamp")

    async def task(pool: Pool) -> None:
        session = await pool.restore(KITCHEN, prefix(1))
        with pytest.raises(MachineryError) as caught:
            await session.step("take lamp")
        assert (caught.value.reason, caught.value.detail) == (reason, detail)
        await session.close()
        assert (await pool.replay(KITCHEN, PATH)).outcomes == OUTCOMES

    run_in_pool(task, tmp_path / "faults", timeout=4.0 if kind == "hang" else 30.0)


def test_episode_fails_if_it_replays_differently_after_worker_death(tmp_path: Path) -> None:
    fault(tmp_path / "faults", "differ", "fetch_0 go to kitchen")
    fault(tmp_path / "faults", "exit", "fetch_0 take lamp")

    async def task(pool: Pool) -> None:
        session = await pool.restore(KITCHEN)
        assert (await session.step("go to kitchen")).observation == "You are in the kitchen. It flickers."
        with pytest.raises(MachineryError, match="replay_diverged"):
            await session.step("take lamp")

    run_in_pool(task, tmp_path / "faults")


def test_queued_action_never_reaches_another_episode_after_worker_death(tmp_path: Path) -> None:
    fault(tmp_path / "faults", "exit", "carry_0 take lamp")

    async def task(pool: Pool) -> None:
        innocent = await pool.restore(KITCHEN, prefix(1))
        doomed = await pool.restore(Task(name="carry", variation=0))
        taken, garden, survived = await asyncio.gather(
            doomed.step("take lamp"), pool.restore(GARDEN), innocent.step("take lamp")
        )
        assert taken.observation == "You take the lamp."
        assert survived == OUTCOMES[1]
        assert (await garden.step("look")).observation == "This is the hall."
        assert await innocent.step("go to hall") == OUTCOMES[2]

    run_in_pool(task, tmp_path / "faults")


def test_episode_belongs_to_the_generation_that_opened_it(tmp_path: Path) -> None:
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
        await asyncio.sleep(
            0
        )  # all calls are queued now; wait until the worker has run them, before any gets its answer
        pool._workers[0]._thread.submit(str).result()
        garden, _, *others = await asyncio.gather(*tasks)
        assert (await garden.step("go to garden")).observation == "You are in the garden."
        assert [(await other.step("look")).observation for other in others] == ["This is the hall."] * 2

    run_in_pool(task, tmp_path / "faults")


def test_late_release_frees_no_other_episode(tmp_path: Path) -> None:
    fault(tmp_path / "faults", "exit", "carry_0 take lamp")

    async def task(pool: Pool) -> None:
        leaving = await pool.restore(KITCHEN)
        doomed = await pool.restore(Task(name="carry", variation=0))
        _, garden, _ = await asyncio.gather(doomed.step("take lamp"), pool.restore(GARDEN), leaving.close())
        later = await pool.restore(KITCHEN)
        assert (await garden.step("go to garden")).observation == "You are in the garden."
        assert (await later.step("look")).observation == "This is the hall."
        assert (await garden.step("take lamp")).observation == "You take the lamp."

    run_in_pool(task, tmp_path / "faults")


def test_worker_deaths_count_only_against_the_episode_that_causes_them(tmp_path: Path) -> None:
    for _ in range(3):
        fault(tmp_path / "faults", "exit", "carry_0 take lamp")

    async def task(pool: Pool) -> None:
        doomed = await pool.restore(Task(name="carry", variation=0))
        neighbours = [await pool.restore(KITCHEN) for _ in range(4)]
        steps = [neighbour.step("go to kitchen") for neighbour in neighbours]
        given_up, *survived = await asyncio.gather(doomed.step("take lamp"), *steps, return_exceptions=True)
        assert isinstance(given_up, MachineryError)
        assert survived == [OUTCOMES[0]] * 4

    run_in_pool(task, tmp_path / "faults")


def test_pool_reports_a_missing_prerequisite() -> None:
    async def task(pool: Pool) -> None:
        raise AssertionError("the pool opened")

    with pytest.raises(PrerequisiteError) as caught:
        run_in_pool(task, kind=ClosedWorld, workers=2)
    assert (caught.value.what, caught.value.fix) == ("the house is closed", "get a key")
    assert workers_alive() == []


def test_pool_reports_a_world_that_does_not_start() -> None:
    async def task(pool: Pool) -> None:
        raise AssertionError("the pool opened")

    with pytest.raises(MachineryError, match="the environment does not start"):
        run_in_pool(task, kind=RuinedWorld)
    assert workers_alive() == []


def test_pool_starts_all_workers_and_plays_episodes_concurrently() -> None:
    async def task(pool: Pool) -> None:
        sessions = [await pool.restore(KITCHEN) for _ in range(4)]
        assert [len(workers_alive()), len(sessions)] == [2, 4]
        done = await asyncio.gather(*(session.step("go to kitchen") for session in sessions))
        assert done == [OUTCOMES[0]] * 4

    run_in_pool(task, workers=2)


def test_call_queued_after_close_starts_no_process() -> None:
    async def task(pool: Pool) -> None:
        session = await pool.restore(KITCHEN)
        worker = pool._workers[0]
        worker._stop()
        with pytest.raises(WorkerDied, match="closed"):
            worker._call("restore", (KITCHEN, []), None)
        with pytest.raises(WorkerReplaced):
            worker._call("step", (0, "look"), session._generation)

    run_in_pool(task)


def test_pool_replaces_a_worker_that_grows_too_big_and_its_episodes_continue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_MAX_MEMORY", 1)
    monkeypatch.setattr(worker_module, "_MEMORY_CHECK_EVERY", 2)

    async def task(pool: Pool) -> None:
        first = await pool.restore(KITCHEN, prefix(1))
        before = pool._workers[0]._process.pid
        second = await pool.restore(KITCHEN, prefix(2))
        assert pool._workers[0]._process.pid != before
        assert list(pool.restarts.values()) == [1]
        assert await first.step(PATH[1]) == OUTCOMES[1]
        assert [await session.step(PATH[2]) for session in (first, second)] == [OUTCOMES[2]] * 2

    run_in_pool(task)


def test_pool_sends_branches_to_the_worker_with_their_snapshots() -> None:
    async def task(pool: Pool) -> None:
        sessions = [await pool.restore(KITCHEN, prefix(n % 3)) for n in range(4)]
        assert len({session._worker for session in sessions}) == 1
        other = await pool.restore(GARDEN)
        assert other._worker is not sessions[0]._worker
        for session in (*sessions, other):
            await session.close()

    run_in_pool(task, workers=2)


def test_pool_spreads_a_task_when_its_worker_is_busy() -> None:
    async def task(pool: Pool) -> None:
        sessions = [await pool.restore(KITCHEN, prefix(1)) for _ in range(12)]
        loads = sorted(worker.sessions for worker in pool._workers)
        assert loads[0] >= 4 and sum(loads) == 12
        assert [await session.step(PATH[1]) for session in sessions] == [OUTCOMES[1]] * 12

    run_in_pool(task, workers=2)


def test_machinery_error_fails_one_episode_and_keeps_the_worker(tmp_path: Path) -> None:
    fault(tmp_path, "unplayable", "fetch_0 take lamp")

    async def task(pool: Pool) -> None:
        other, session = await pool.restore(GARDEN), await pool.restore(KITCHEN, prefix(1))
        process = pool._workers[0]._process.pid
        with pytest.raises(MachineryError, match=r"^environment: there is no such lamp$"):
            await session.step("take lamp")
        assert pool._workers[0]._process.pid == process
        assert (await other.step("look")).valid

    run_in_pool(task, tmp_path)


def test_step_after_the_end_of_an_episode_fails() -> None:
    async def task(pool: Pool) -> None:
        session = await pool.restore(KITCHEN, prefix(4))
        with pytest.raises(MachineryError, match="'look' comes after the end of the episode"):
            await session.step("look")

    run_in_pool(task)
