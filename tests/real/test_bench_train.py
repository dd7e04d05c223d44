"""`sand bench train`: a plain TRL script and `sand sft` train on the same tokens."""

import json
from pathlib import Path

import pytest

from tests.helpers import make_run, perform, sand

pytestmark = pytest.mark.real


def test_masks_equal_those_of_a_plain_script(tiny: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", model__base=str(tiny))
    perform("collect", run, limit=3)
    done = sand("bench", "train", "--run", run, "--steps", "3", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["masks_identical"] is True
    assert found["ours"] > 0 and found["plain"] > 0


def test_too_few_trajectories_are_reported(tiny: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", model__base=str(tiny))
    perform("collect", run, limit=2)
    done = sand("bench", "train", "--run", run, "--steps", "3")
    assert done.returncode == 2 and "3 steps need as many trajectories" in done.stderr
