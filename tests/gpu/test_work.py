"""An experiment in slices: how each ends, and that all together make the same as one go."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.gpu.work import MORE, Slice, Times, times
from sandcli.cli import main
from sandcli.errors import Exit
from sandcli.interrupts import stop
from tests.helpers import REPO, environment, lines, sand, watched, write_rules

INTERRUPTED = "collect", "sft", "rollout"

RUN_SLICE = "import sys; from experiments.gpu.work import Slice, Times; "


def ended(program: str) -> int:
    """The code of a slice whose command is this Python program."""
    code = f"{RUN_SLICE} sys.exit(Slice([sys.executable, '-c', {program!r}], Times(600, 600, 600)).run())"
    return subprocess.run([sys.executable, "-c", code], cwd=REPO, timeout=600).returncode


class Child:
    """Stands in for a command that ends with a code after so many signals. `ctrl_c`: the user interrupts it at once."""

    pid = 1

    def __init__(self, code: int, signals: int, ctrl_c: bool = False) -> None:
        self._code = code
        self._signals = signals
        self._ctrl_c = ctrl_c
        self.handlers: dict[int, Callable[[int, None], None]] = {}
        self.heard: list[int] = []

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, timeout: float = 0.0) -> int:
        if self._ctrl_c:
            self._ctrl_c = False
            self.handlers[signal.SIGINT](signal.SIGINT, None)
        if len(self.heard) < self._signals:
            raise subprocess.TimeoutExpired("sand", timeout)
        return self._code


def slice_of(child: Child, monkeypatch: pytest.MonkeyPatch) -> int:
    """The code of a slice with no time left."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: child)
    monkeypatch.setattr(os, "killpg", lambda _, number: child.heard.append(number))
    monkeypatch.setattr(signal, "signal", child.handlers.__setitem__)
    return Slice(["sand"], Times(0, 0, 0)).run()


@pytest.mark.parametrize("code", [0, 1, 3, 70])
def test_code_of_the_command_is_kept(code: int) -> None:
    assert ended(f"raise SystemExit({code})") == code


def test_interrupted_command_has_more_to_do() -> None:
    assert ended("raise SystemExit(130)") == MORE


def test_command_is_asked_to_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(130, 1)
    assert slice_of(child, monkeypatch) == MORE
    assert child.heard == [signal.SIGINT]


def test_deaf_command_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(-9, 3)
    assert slice_of(child, monkeypatch) == MORE
    assert child.heard == [signal.SIGINT, signal.SIGINT, signal.SIGKILL]


@pytest.mark.parametrize(("code", "signals"), [(130, 1), (130, 2), (-9, 3)])
def test_users_interrupt_is_no_reason_for_another_slice(
    code: int, signals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert slice_of(Child(code, signals, ctrl_c=True), monkeypatch) == Exit.INTERRUPTED


@pytest.mark.parametrize("code", [0, 1, 3])
def test_interrupted_command_that_ends_by_itself_keeps_its_code(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(code, 1, ctrl_c=True)
    assert slice_of(child, monkeypatch) == code
    assert child.heard == [signal.SIGINT]


def test_command_that_was_killed_by_others_has_failed() -> None:
    assert ended("import os; os.kill(os.getpid(), 9)") == 1


def test_grace_is_part_of_the_slice() -> None:
    assert times(9, 120) == (420, 510, 540)
    assert times(1, 120) == (0, 45, 60)


PLAN = """
limit = 3
tasks = 2
[settings]
env = {{ name = "tests.toyworld:ToyWorld", tasks = ["fetch"], simplifications = "none" }}
model.base = "{tiny}"
engine = {{ kind = "scripted", script = "{rules}" }}
collect.thoughts = "none"
prompts.set = "compact"
run.workers = 1
sft.epochs = 2
train.epochs = 1
[arms.sft]
eval.models = ["sft"]
[arms.sand]
"""


@pytest.fixture
def plan(tiny: Path, tmp_path: Path) -> Path:
    """Two arms on the toy world."""
    rules = write_rules(tmp_path / "rules.json")
    (tmp_path / "plan.toml").write_text(PLAN.format(tiny=tiny, rules=rules))
    return tmp_path / "plan.toml"


def finished(folder: Path) -> dict[str, bytes]:
    """The artifacts of all runs."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.jsonl")) if made(path)}


def made(path: Path) -> bool:
    return path.parent.name != "logs" and (path.parent / "sand.toml").exists()


def interrupting_main() -> None:
    """`sand`; the first unit of some stages interrupts the process that started this one, once, and waits for it."""

    def see(line: str) -> None:
        stage = line.split()[0]
        mark = Path(os.environ["MARKS"]) / stage
        if stage in INTERRUPTED and not mark.exists():
            mark.touch()
            os.kill(os.getppid(), signal.SIGINT)
            while not stop.get()():
                time.sleep(0.001)

    watched(see)
    main()


def one_slice(plan: Path, run: Path, marks: Path) -> int:
    """The code of a slice that is interrupted in the first stage of `INTERRUPTED` that was not before."""
    command = [sys.executable, "-c", "from tests.gpu.test_work import interrupting_main as main; main()"]
    command += ["experiment", str(plan), "--run", str(run)]
    code = f"{RUN_SLICE} sys.exit(Slice({command!r}, Times(500, 500, 500)).run())"
    return subprocess.run([sys.executable, "-c", code], cwd=REPO, env=environment(MARKS=str(marks))).returncode


@pytest.mark.slow
def test_slices_make_the_same_as_one_go(plan: Path, tmp_path: Path) -> None:
    cut, whole, marks = tmp_path / "cut", tmp_path / "whole", tmp_path / "marks"
    marks.mkdir()
    assert [one_slice(plan, cut, marks) for _ in range(4)] == [*[Exit.INTERRUPTED] * 3, Exit.DONE]
    done = sand("experiment", plan, "--run", whole, timeout=600)
    assert done.returncode == 0, done.stderr
    found, wanted = finished(cut), finished(whole)
    assert found.keys() == wanted.keys() and "sand/seed0/eval.jsonl" in wanted
    for name in wanted:
        if not name.endswith("eval.jsonl"):  # it holds times
            assert found[name] == wanted[name], name
    assert episodes(cut) == episodes(whole)


def episodes(folder: Path) -> list[dict[str, object]]:
    """What the agents did, without how long it took."""
    rows = lines(folder / "sand" / "seed0" / "eval.jsonl")
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_plan_that_is_missing_has_failed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.gpu.work", "none.toml", "--run", str(tmp_path)]
    done = subprocess.run(command, cwd=REPO, env=environment(), capture_output=True, text=True)
    assert done.returncode == 3 and "there is no plan none.toml" in done.stderr
