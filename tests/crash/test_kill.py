"""Real processes, killed and interrupted at any moment: nothing recorded is lost or done twice."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandcli.config import Scalar
from sandcli.core.artifact import StageName
from sandcli.core.run import Run
from tests.helpers import WATCHED_SAND, artifact, artifacts, environment, fault, make_run, units

pytestmark = pytest.mark.slow

STAGES: tuple[StageName, ...] = ("collect", "explore", "sample", "rollout", "critique", "synthesize", "eval")
SHARES: dict[StageName, int] = {
    **{"collect": 3, "explore": 3, "sample": 3, "rollout": 4},
    **{"critique": 2, "synthesize": 2, "eval": 3},
}
PATIENCE = 300.0
PAUSE = "0.004"
"""Seconds between units and between steps, so that a signal can hit a stage in the middle."""


@contextmanager
def working(stage: StageName, root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A `sand` process at work, in its own process group, as a shell starts it."""
    command = [*WATCHED_SAND, stage, "--run", str(root)]
    watched = environment(WATCHED=str(log(root)), WATCHED_PAUSE=PAUSE)
    with said_file(root).open("wb") as said:
        process = subprocess.Popen(command, env=watched, stderr=said, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def log(root: Path) -> Path:
    return root.with_suffix(".begun")


def said_file(root: Path) -> Path:
    return root.with_suffix(".said")


def said(root: Path) -> str:
    return said_file(root).read_text()


def begun(root: Path) -> list[str]:
    """The units that were begun by all processes so far, in order."""
    return log(root).read_text().splitlines() if log(root).exists() else []


def recorded(stage: StageName, root: Path) -> bytes:
    """The complete lines of a stage, finished or not."""
    run = Run(root)
    for path in (run.artifact(stage).journal, run.artifact(stage).path):
        if path.exists():
            content = path.read_bytes()
            return content[: content.rfind(b"\n") + 1]
    return b""


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait until the condition holds or the process has ended."""
    deadline = time.monotonic() + PATIENCE
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def finish(stage: StageName, root: Path) -> None:
    """Run a stage to its end."""
    with working(stage, root) as process:
        code = process.wait(PATIENCE)
    assert code == 0, said(root)


def kill(stage: StageName, root: Path, target: float, delay: float) -> bool:
    """Kill a stage `delay` seconds after its journal has reached `target` bytes; whether it was still alive."""
    run = Run(root)
    with working(stage, root) as process:
        until(lambda: size(run.artifact(stage).journal) >= target or run.artifact(stage).path.exists(), process)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
        return process.wait() == -signal.SIGKILL


def torment(stage: StageName, root: Path, whole: int, share: int, moments: random.Random) -> int:
    """Kill a stage at ascending random sizes of its journal, then finish it; how often it was killed."""
    killed = 0
    kept = recorded(stage, root)
    for place in sorted(moments.uniform(-0.1, 1.0) for _ in range(share)):
        earlier = len(begun(root))
        killed += kill(stage, root, place * whole, moments.uniform(0.0, 0.02))
        assert not set(begun(root)[earlier:]) & set(units(stage, kept))
        if not artifact(root, stage).path.exists():
            assert recorded(stage, root).startswith(kept)
        kept = recorded(stage, root)
        names = units(stage, kept)
        assert len(names) == len(set(names))
    earlier = len(begun(root))
    finish(stage, root)
    assert not set(begun(root)[earlier:]) & set(units(stage, kept))
    assert set(units(stage, recorded(stage, root))) <= set(begun(root))
    return killed


def figures(root: Path) -> list[object]:
    """What the manifests say about the content."""
    made = [artifact(root, stage).manifest() for stage in STAGES]
    return [(m.identity, m.counts, m.figures, m.tokens, m.left_out, m.accepted) for m in made if m is not None]


def test_run_that_is_killed_20_times_gives_the_same_bytes(tmp_path: Path) -> None:
    settings: dict[str, Scalar] = {
        "sample__n": 3,
        "explore__n": 2,
        "run__workers": 2,
        "env__tasks": "fetch,riddle",
        "env__simplifications": f"pause={PAUSE}",
    }
    quiet = make_run(tmp_path / "quiet", **settings)
    for stage in STAGES:
        finish(stage, quiet)
    moments = random.Random(20)
    kills = 0
    for attempt in range(3):  # a stage that ends before its last kill leaves the rest of its share to the next attempt
        root = make_run(tmp_path / f"killed{attempt}", **settings)
        for stage, share in SHARES.items():
            kills += torment(stage, root, size(artifact(quiet, stage).path), min(share, 20 - kills), moments)
        assert artifacts(root) == artifacts(quiet)
        assert figures(root) == figures(quiet)
        assert list(root.glob("*.part")) == list(root.glob("*.tmp")) == []
        if kills == 20:
            break
    assert kills == 20


def interrupted(root: Path) -> tuple[Path, Path]:
    """A slow run of a few long episodes, and a quick one of the same content."""
    faults = root.parent / "faults"
    slow = f"pause=0.05,faults={faults}"
    slow_run = make_run(root, run__in_flight=2, run__workers=2, env__simplifications=slow)
    return slow_run, make_run(root.parent / "quick")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_finishes_what_is_in_progress(tmp_path: Path, number: signal.Signals) -> None:
    root, quick = interrupted(tmp_path / "run")
    with working("collect", root) as process:
        until(lambda: size(artifact(root, "collect").journal) > 0, process)
        os.killpg(process.pid, number)
        assert process.wait(PATIENCE) == 130
    kept = units("collect", recorded("collect", root))
    assert sorted(kept) == sorted(begun(root))
    assert 0 < len(kept) < 6
    assert "finishing what is in progress" in said(root)
    assert said(root).endswith(
        "error: collect was interrupted; finished work is kept\n  fix: run the same command again to resume\n"
    )
    finish("collect", root)
    finish("collect", quick)
    assert len(begun(root)) == len(set(begun(root))) == 6
    assert artifacts(root) == artifacts(quick)


def test_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    root, quick = interrupted(tmp_path / "run")
    fault(tmp_path / "faults", "hang", "fetch_1 take lamp")
    with working("collect", root) as process:
        until(lambda: size(artifact(root, "collect").journal) > 0 and not any((tmp_path / "faults").iterdir()), process)
        os.killpg(process.pid, signal.SIGINT)
        until(lambda: "finishing what is in progress" in said(root), process)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(5) == 130
    assert "Traceback" not in said(root)
    kept = units("collect", recorded("collect", root))
    assert kept
    finish("collect", root)
    finish("collect", quick)
    again = [unit for unit in set(begun(root)) if begun(root).count(unit) > 1]
    assert not set(again) & set(kept)
    assert artifacts(root) == artifacts(quick)


def test_interrupt_while_workers_start_ends_the_stage(tmp_path: Path) -> None:
    root, _ = interrupted(tmp_path / "run")
    with working("collect", root) as process:
        until(lambda: len(children(process.pid)) >= 2, process)  # a worker, and Python's own resource tracker
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 130, said(root)
    assert "Traceback" not in said(root)


def children(pid: int) -> list[str]:
    """The processes that a process has started."""
    found: list[str] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        found += listing.read_text().split()
    return found
