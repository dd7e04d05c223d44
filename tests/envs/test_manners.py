"""Misbehaving worlds: they print, return wrong types, start programs, and fail to start."""

import contextlib
import errno
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from multiprocessing import util
from pathlib import Path
from typing import Any

import psutil
import pytest

from sandcli.envs import make_world, world_builder
from sandcli.envs.base import World
from sandcli.envs.pool import NO_LOG, Pool
from sandcli.errors import MachineryError, UsageError
from sandcli.records import Task
from sandcli.settings import EnvSettings
from tests.envs.odd_worlds import TASK, BrokenWorld, ExitingWorld, OddWorld, ShakyWorld, StumblingWorld
from tests.envs.test_pool import KITCHEN, OUTCOMES, PATH, run_in_pool, workers_alive
from tests.helpers import REPO, environment, fault, lines, make_run, perform, sand, wait_until


def in_odd_pool(task: Callable[[Pool], Awaitable[None]], log: Path = NO_LOG) -> None:
    run_in_pool(task, kind=OddWorld, log=log)


async def no_task(pool: Pool) -> None:
    raise AssertionError("the pool opened")


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or would be if its parent asked."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(
    ("action", "why"),
    [
        ("forget", "the step 'forget' gave None: Expected `array`, got `null`"),
        ("mumble", "Expected `str`, got `null`"),
        ("stop short", "Expected `array` of length 4, got 3"),
    ],
)
def test_step_of_a_wrong_type_fails_one_episode_and_keeps_the_worker(action: str, why: str) -> None:
    async def task(pool: Pool) -> None:
        other, session = await pool.restore(TASK), await pool.restore(TASK)
        with pytest.raises(MachineryError) as caught:
            await session.step(action)
        assert caught.value.reason == "environment" and why in caught.value.detail
        assert (await other.step("look")).valid
        assert not pool.restarts

    in_odd_pool(task)


def test_episode_of_a_wrong_type_fails_and_keeps_the_worker() -> None:
    async def task(pool: Pool) -> None:
        riddle = Task(name="riddle", variation=0)
        with pytest.raises(MachineryError, match="the start of an episode gave None"):
            await pool.restore(riddle)
        with pytest.raises(MachineryError, match="the world's expert gave None"):
            await pool.expert(riddle, "gold", 0)
        assert not pool.restarts

    in_odd_pool(task)


def test_log_holds_what_a_world_and_its_programs_print(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async def task(pool: Pool) -> None:
        await (await pool.restore(TASK)).step("run programs")

    log = tmp_path / "logs" / "rollout.world.log"
    in_odd_pool(task, log)
    expected = ["an odd world is imported", "the episode prints \\ud800", "its program prints", "its program complains"]
    assert log.read_text().splitlines() == expected
    assert capfd.readouterr() == ("", "")


def test_log_of_a_quiet_world_is_not_kept(tmp_path: Path) -> None:
    async def task(pool: Pool) -> None:
        assert (await pool.replay(KITCHEN, PATH)).outcomes == OUTCOMES

    run_in_pool(task, log=tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_log_holds_the_traceback_of_a_broken_world(tmp_path: Path) -> None:
    (tmp_path / "raise-1").write_text(f"{KITCHEN} look")

    async def task(pool: Pool) -> None:
        await (await pool.restore(KITCHEN)).step("look")

    run_in_pool(task, faults=tmp_path, log=tmp_path / "log")
    assert "toyworld.py" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("end", ["stop", "crash"])
def test_programs_that_a_world_started_end_with_its_worker(end: str) -> None:
    started: list[int] = []

    async def task(pool: Pool) -> None:
        session = await pool.restore(TASK)
        started.extend(map(int, (await session.step("start programs")).observation.split()))
        assert not any(map(has_ended, started))
        if end == "crash":
            with pytest.raises(MachineryError):
                await (await pool.restore(TASK)).step("crash")
            for program in (started[0], started[2]):  # a crash leaves no trace of a program in a session of its own
                wait_until(lambda program=program: has_ended(program))  # type: ignore[misc]
            with contextlib.suppress(psutil.NoSuchProcess):  # the pool may have seen it before the crash
                psutil.Process(started[1]).kill()

    in_odd_pool(task)
    for program in started:
        wait_until(lambda program=program: has_ended(program))  # type: ignore[misc]


@pytest.mark.slow
@pytest.mark.parametrize("busy", ["look", "get stuck"])
def test_worker_and_its_programs_end_when_their_parent_is_killed(busy: str) -> None:
    script = "from tests.envs.odd_worlds import abandon; abandon()"
    # It ends only when nothing holds its output open: `sand ... | tail` would wait for that too.
    done = subprocess.run(
        [sys.executable, "-c", script, busy], cwd=REPO, env=environment(), capture_output=True, text=True, timeout=100
    )
    processes = [int(word) for word in done.stdout.splitlines()[-1].split()]
    assert len(processes) == 4
    for process in processes:
        wait_until(lambda process=process: has_ended(process))  # type: ignore[misc]


@pytest.mark.slow
def test_worker_that_dies_in_its_first_ping_is_started_again(tmp_path: Path) -> None:
    (tmp_path / "shaky").touch()

    async def task(pool: Pool) -> None:
        assert (await pool.replay(KITCHEN, PATH)).outcomes == OUTCOMES
        assert pool.restarts == {"the worker process ended during ping": 1}

    run_in_pool(task, faults=tmp_path, kind=ShakyWorld)


def _refuse(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the next starts of a process fail, as they do if there are too many processes."""
    start, left = util.spawnv_passfds, [count]

    def refusing(*arguments: Any) -> int:
        if not left[0]:
            return start(*arguments)
        left[0] -= 1
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(util, "spawnv_passfds", refusing)


def test_worker_that_cannot_be_started_at_first_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def task(pool: Pool) -> None:
        assert (await pool.replay(KITCHEN, PATH)).outcomes == OUTCOMES

    _refuse(2, monkeypatch)
    run_in_pool(task)


def test_worker_that_can_never_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse(1000, monkeypatch)
    why = "the environment does not start: cannot start a worker process: Resource temporarily unavailable"
    with pytest.raises(MachineryError, match=why):
        run_in_pool(no_task, workers=2)
    assert workers_alive() == []


def test_worker_without_a_thread_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor.submit", refusing)
    with pytest.raises(MachineryError, match="cannot use a worker process: can't start new thread"):
        run_in_pool(no_task)


@pytest.mark.slow
def test_error_of_a_world_that_does_not_start_names_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(MachineryError, match=rf"does not start: RuntimeError: the house is on fire \(see {log}\)"):
        run_in_pool(no_task, kind=BrokenWorld, log=log)
    assert "odd_worlds.py" in log.read_text()


@pytest.mark.slow
def test_stdout_holds_only_data_if_a_world_prints(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", env__name="tests.envs.odd_worlds:OddWorld")
    for arguments in (["collect", "--limit", "1", "--run", str(root)], ["status", "--run", str(root)]):
        assert json.loads(sand(*arguments, "--json").stdout)
    assert "the episode prints" in (root / "logs" / "collect.world.log").read_text()


def test_step_of_a_wrong_type_fails_its_unit_and_not_the_stage(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", env__name="tests.envs.odd_worlds:OddWorld", env__tasks="fetch,carry")
    summary = perform("collect", root)
    assert {failure.detail for failure in summary.failures} == {
        "the world's expert gave None: Expected `array`, got `null`"
    }
    assert len(lines(root / "expert.jsonl.part")) == 6


def test_summary_says_how_many_workers_were_replaced_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = tmp_path / "faults"
    fault(faults, "exit", "fetch_0 take lamp")
    fault(faults, "raise", "fetch_1 take lamp")
    root = make_run(tmp_path / "run", env__simplifications=f"faults={faults}")
    manifest = perform("collect", root).manifest
    assert manifest is not None
    assert manifest.spent.restarts == {
        "the worker process ended during step": 1,
        "RuntimeError: a fault in the toy world": 1,
    }
    assert manifest.spent.rates()["environment workers replaced: the worker process ended during step"] == 1
    assert (manifest.spent + manifest.spent).restarts["RuntimeError: a fault in the toy world"] == 2
    assert "environment workers replaced: 1 (the worker process ended during step)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("1 / 0", "does not load: ZeroDivisionError: division by zero"),
        ("def", "does not load: SyntaxError: invalid syntax"),
        ("raise SystemExit(0)", "the environment 'wrong_world:World' does not load: it calls sys.exit$"),
        ("World = 1", "unknown environment 'wrong_world:World': the first argument must be callable"),
    ],
)
def test_world_whose_module_is_wrong_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, why: str
) -> None:
    (tmp_path / "wrong_world.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wrong_world", raising=False)
    with pytest.raises(UsageError, match=why):
        world_builder(EnvSettings(name="wrong_world:World"))


@pytest.mark.parametrize(
    ("kind", "why"), [(ExitingWorld, "it calls sys.exit"), (StumblingWorld, "ZeroDivisionError: division by zero")]
)
def test_world_whose_own_code_fails_is_a_usage_error(kind: type[World], why: str) -> None:
    with pytest.raises(UsageError, match=f"odd_worlds:{kind.__name__} cannot be made: {why}$"):
        make_world(partial(kind))
