"""A short torture: some cases of every kind. `make torture` runs for as long as you like."""

import subprocess
import sys

import pytest

from tests.helpers import REPO, environment

CASES = 260
"""About 20 of each kind; most kills of real processes are in tests/crash."""


def torture(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.torture", *arguments]
    return subprocess.run(command, cwd=REPO, env=environment(), capture_output=True, text=True)


@pytest.mark.slow
def test_short_torture_finds_no_fault() -> None:
    ran = torture("--short", "--cases", str(CASES), "--minutes", "30")
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.slow
def test_power_cut_does_not_lose_what_force_moved_aside() -> None:
    ran = torture("--case", *(f"power/force/{point}" for point in range(15, 50, 5)))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "| all | | | 7 | 7 | 0 |" in ran.stdout


@pytest.mark.slow
def test_killed_model_server_costs_no_record() -> None:
    ran = torture("--case", "process/server/2")
    assert ran.returncode == 0, ran.stdout + ran.stderr
