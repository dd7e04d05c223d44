"""A hundred thousand units: memory stays flat and scheduling costs next to nothing."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sandcli.records import Step, Task, Trajectory
from tests.helpers import environment, make_run

pytestmark = pytest.mark.slow

UNITS = 100_000
STEPS = 10

WORK = r"""
import json, re, sys, time
from pathlib import Path
from tests.helpers import perform
started = time.process_time()
summary = perform("sample", Path(sys.argv[1]))
# getrusage would count the process that started this one, too.
peak = int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
print(json.dumps([summary.message, time.process_time() - started, peak]))
"""


def test_hundred_thousand_units_take_little_memory_and_time(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", sample__n=1)
    with (root / "expert.jsonl").open("wb") as file:
        for number in range(UNITS // STEPS):
            file.write(msgspec.json.encode(expert(number)) + b"\n")
    ran = subprocess.run(
        [sys.executable, "-c", WORK, str(root)], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    message, cpu_seconds, peak = json.loads(ran.stdout)
    assert message.endswith(f"{UNITS} records")
    assert peak < 500 * 1024, f"{peak / 1024:.0f} MB"
    assert cpu_seconds / UNITS < 0.001


def expert(number: int) -> Trajectory:
    steps = [
        Step(thought="It may be there.", action=f"go to room {t}", observation="A room with a lamp. " * 20, score=0.1)
        for t in range(STEPS)
    ]
    return Trajectory(
        id=f"fetch_{number:06}",
        env="toyworld",
        task=Task(name="fetch", variation=number),
        instruction="You are in the hall. Fetch the lamp.",
        steps=steps,
        reward=1.0,
        success=True,
        source="gold",
    )
