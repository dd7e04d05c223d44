"""One finished run for all tests of the core, and a copy to work on."""

import shutil
from pathlib import Path

import pytest

from tests.core.runs import LIMIT, STAGES
from tests.helpers import make_run, perform, watched


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every stage done on three trajectories; read only."""
    root = make_run(tmp_path_factory.mktemp("finished") / "run", sample__n=2)
    for stage in STAGES:
        perform(stage, root, limit=LIMIT)
    return root


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to work on."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The units that were begun, as `STAGE UNIT`."""
    units: list[str] = []
    watched(units.append, monkeypatch.setattr)
    return units
