"""The cost model gives what can be worked out by hand."""

import subprocess
import sys
from runpy import run_path
from typing import Any

import pytest

from tests.helpers import REPO

MODEL = run_path(str(REPO / "docs" / "cost_model.py"))
FAST = {"crews": 1, "cores": 1, "rate": 1e9, "half": 0.0, "batch": 8, "turn": 0.0, "step": 0.0, "unit": 0.0}


def machine(**changed: float) -> Any:
    return MODEL["Machine"](**{**FAST, **changed})


def units(number: int, turns: int = 10, sequences: int = 1, tokens: int = 10, acts: bool = True) -> list[Any]:
    return [MODEL["Unit"](turns, sequences, tokens, acts)] * number


@pytest.mark.parametrize(
    ("machine", "units", "seconds"),
    [
        (machine(rate=100.0, half=1.0), units(1), 2.0),  # one sequence: 100 tokens at half of the rate
        (machine(rate=100.0), units(4), 4.0),  # four share the whole rate
        (machine(rate=100.0), units(4, turns=1, sequences=5), 2.0),
        (machine(rate=100.0, crews=2), units(4), 2.0),
        (machine(turn=0.01), units(4), 0.4),  # one thread: 40 turns
        (machine(step=0.01, cores=2), units(4), 0.2),
        (machine(step=0.01), units(4, acts=False), 0.0),
        (machine(unit=0.01, crews=8), units(40), 0.4),  # one driver for all crews
    ],
)
def test_seconds_are_those_of_what_limits(machine: Any, units: list[Any], seconds: float) -> None:
    assert machine.seconds(units) == pytest.approx(seconds, abs=1e-3)


def test_more_gpus_take_less_time_and_more_gpu_hours() -> None:
    told = {}
    for gpus in (1, 8):
        command = [sys.executable, "docs/cost_model.py", "--trajectories", "20", "--gpus", str(gpus)]
        out = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout
        last = out.splitlines()[-1].split()
        told[gpus] = float(last[2]), float(last[7])
    assert told[8][0] < told[1][0] and told[8][1] > told[1][1]
