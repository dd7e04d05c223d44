"""What a worker keeps: the nearest state is found, nothing is replayed twice, and memory has a bound."""

from collections.abc import Sequence

import pytest

from sandcli.envs import snapshots
from sandcli.envs.base import Environment, Outcome, Reset
from sandcli.envs.snapshots import Snapshot, Snapshots
from sandcli.envs.worker_process import Host
from sandcli.errors import MachineryError
from sandcli.records import Task

TASKS = [Task(name="count", variation=n) for n in range(20)]


class Tape:
    """A simulator and its environments: they record what was done to them, and count steps and forks."""

    def __init__(self, forks: bool = True) -> None:
        self.steps = self.openings = 0
        self.live: set[TapeEpisode] = set()
        self.forks = forks

    def open(self, task: Task) -> Environment:
        self.openings += 1
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


def host(tape: Tape) -> Host:
    return Host(lambda: pytest.fail("it runs already"), tape)


def restored(host: Host, actions: list[str], task: Task = TASKS[0]) -> list[str]:
    """What the outcomes say, and that the episode goes on from there."""
    slot, _, outcomes = host.restore(task, actions)
    if not outcomes or not outcomes[-1].done:
        assert host.step(slot, "on").observation == " ".join([*actions, "on"])
    return [outcome.observation for outcome in outcomes]


def test_a_branch_takes_only_the_steps_that_nobody_took() -> None:
    tape = Tape()
    one = host(tape)
    assert restored(one, ["a", "b", "c"]) == ["a", "a b", "a b c"]
    assert (tape.openings, tape.steps) == (1, 3 + 1)
    assert restored(one, ["a", "b", "c"]) == ["a", "a b", "a b c"]
    assert (tape.openings, tape.steps) == (1, 4 + 1)
    assert restored(one, ["a", "b", "c", "d"]) == ["a", "a b", "a b c", "a b c d"]
    assert (tape.openings, tape.steps) == (1, 5 + 1 + 1)
    assert restored(one, ["a", "x"]) == ["a", "a x"]
    assert (tape.openings, tape.steps) == (2, 7 + 2 + 1)


def test_a_restore_ends_where_the_episode_does() -> None:
    one = host(Tape())
    assert restored(one, ["a", "end", "b"]) == ["a", "a end"]
    assert restored(one, ["a", "end", "b"]) == ["a", "a end"]


def test_a_world_that_cannot_fork_is_replayed_and_says_so_once(capfd: pytest.CaptureFixture[str]) -> None:
    tape = Tape(forks=False)
    one = host(tape)
    for opening in (1, 2, 3):
        assert restored(one, ["a", "b"]) == ["a", "a b"]
        assert tape.openings == opening
    assert capfd.readouterr().err.count("every prefix is replayed") == 1


def test_the_tasks_of_longest_ago_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_SNAPSHOTS", 10)
    tape, kept = Tape(), Snapshots()
    for number in range(200):
        kept.keep(TASKS[number % 13], Snapshot((str(number),), (), TapeEpisode(tape, [])))
        assert len(kept) == len(tape.live) <= 10
        assert kept.nearest(TASKS[number % 13], [str(number)]) is not None
    assert kept.nearest(TASKS[(199 - snapshots._TASKS) % 13], []) is None
    for number in range(40):
        kept.keep(TASKS[0], Snapshot((f"only {number}",), (), TapeEpisode(tape, [])))
    assert len(kept) == len(tape.live) <= 10 and kept.nearest(TASKS[0], ["only 39"]) is not None


@pytest.mark.parametrize("forks", [True, False])
def test_worker_closes_released_and_failed_episodes(forks: bool) -> None:
    tape = Tape(forks)
    one = host(tape)
    slots = [one.restore(TASKS[0], actions)[0] for actions in (["a"], ["a"], ["a", "b"], [])]
    with pytest.raises(MachineryError, match="the tape tore"):
        one.restore(TASKS[0], ["a", "break"])
    snapshots = 3 * forks
    assert len(tape.live) == len(slots) + snapshots
    for slot in slots:
        one.release(slot)
    assert len(tape.live) == snapshots
