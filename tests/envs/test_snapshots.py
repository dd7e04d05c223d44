"""A worker process branches from the nearest snapshot, replays nothing twice, and bounds its memory."""

from collections.abc import Sequence

import pytest

from sandcli.envs import snapshots
from sandcli.envs.base import Environment, Outcome, Reset
from sandcli.envs.snapshots import Snapshot, Snapshots
from sandcli.envs.worker_process import WorkerProcess
from sandcli.errors import MachineryError
from sandcli.records import Task

TASKS = [Task(name="count", variation=n) for n in range(20)]


class Tape:
    """A simulator whose episodes observe all their actions so far. It counts steps and knows its live episodes."""

    def __init__(self, forks: bool = True) -> None:
        self.steps = self.opened = 0
        self.live: set[TapeEpisode] = set()
        self.forks = forks

    def open(self, task: Task) -> Environment:
        self.opened += 1
        return TapeEpisode(self, [])

    def expert(self, task: Task, kind: str, seed: int) -> list[str]:
        return []

    def close(self) -> None:
        pass


class TapeEpisode:
    def __init__(self, tape: Tape, done: Sequence[str]) -> None:
        self.tape = tape
        self.done = list(done)
        self.reset = Reset("Act.", 0.0)
        tape.live.add(self)

    def step(self, action: str) -> Outcome:
        if action == "break":
            raise MachineryError("environment", "the tape tore")
        self.tape.steps += 1
        self.done.append(action)
        return Outcome(" ".join(self.done), 0.0, action == "end", True)

    def fork(self) -> Environment | None:
        return TapeEpisode(self.tape, self.done) if self.tape.forks else None

    def close(self) -> None:
        self.tape.live.remove(self)


def worker_on(tape: Tape) -> WorkerProcess:
    return WorkerProcess(lambda: pytest.fail("the simulator is running already"), tape)


def restored(worker: WorkerProcess, actions: list[str], task: Task = TASKS[0]) -> list[str]:
    """The observations of the prefix; checks that the episode continues from there."""
    slot, _, outcomes = worker.restore(task, actions)
    if not outcomes or not outcomes[-1].done:
        assert worker.step(slot, "on").observation == " ".join([*actions, "on"])
    return [outcome.observation for outcome in outcomes]


def test_branch_replays_only_the_steps_after_the_nearest_snapshot() -> None:
    tape = Tape()
    worker = worker_on(tape)
    assert restored(worker, ["a", "b", "c"]) == ["a", "a b", "a b c"]
    assert (tape.opened, tape.steps) == (1, 3 + 1)
    assert restored(worker, ["a", "b", "c"]) == ["a", "a b", "a b c"]
    assert (tape.opened, tape.steps) == (1, 4 + 1)
    assert restored(worker, ["a", "b", "c", "d"]) == ["a", "a b", "a b c", "a b c d"]
    assert (tape.opened, tape.steps) == (1, 5 + 1 + 1)
    assert restored(worker, ["a", "x"]) == ["a", "a x"]
    assert (tape.opened, tape.steps) == (2, 7 + 2 + 1)


def test_restore_stops_at_the_end_of_the_episode() -> None:
    worker = worker_on(Tape())
    assert restored(worker, ["a", "end", "b"]) == ["a", "a end"]
    assert restored(worker, ["a", "end", "b"]) == ["a", "a end"]


def test_world_without_forks_is_replayed_and_noted_once(capfd: pytest.CaptureFixture[str]) -> None:
    tape = Tape(forks=False)
    worker = worker_on(tape)
    for opening in (1, 2, 3):
        assert restored(worker, ["a", "b"]) == ["a", "a b"]
        assert tape.opened == opening
    assert capfd.readouterr().err.count("every prefix is replayed") == 1


def test_snapshots_drop_the_least_recently_used_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_MAX_SNAPSHOTS", 10)
    tape, kept = Tape(), Snapshots()
    for number in range(200):
        kept.add(TASKS[number % 13], Snapshot((str(number),), (), TapeEpisode(tape, [])))
        assert len(kept) == len(tape.live) <= 10
        assert kept.nearest(TASKS[number % 13], [str(number)]) is not None
    assert kept.nearest(TASKS[(199 - snapshots._MAX_TASKS) % 13], []) is None
    for number in range(40):
        kept.add(TASKS[0], Snapshot((f"only {number}",), (), TapeEpisode(tape, [])))
    assert len(kept) == len(tape.live) <= 10 and kept.nearest(TASKS[0], ["only 39"]) is not None


@pytest.mark.parametrize("forks", [True, False])
def test_worker_closes_released_and_failed_episodes(forks: bool) -> None:
    tape = Tape(forks)
    worker = worker_on(tape)
    slots = [worker.restore(TASKS[0], actions)[0] for actions in (["a"], ["a"], ["a", "b"], [])]
    with pytest.raises(MachineryError, match="the tape tore"):
        worker.restore(TASKS[0], ["a", "break"])
    snapshots = 3 * forks
    assert len(tape.live) == len(slots) + snapshots
    for slot in slots:
        worker.release(slot)
    assert len(tape.live) == snapshots
