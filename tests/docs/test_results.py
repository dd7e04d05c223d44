"""The tables in docs/results.md can be computed again from the runs that are kept, without their models."""

import tarfile
from pathlib import Path

import pytest

from tests.helpers import REPO, sand

KEPT = sorted((REPO / "experiments" / "results").glob("*.tar.xz"))


@pytest.mark.slow
def test_tables_are_those_of_the_kept_runs(tmp_path: Path) -> None:
    told: set[str] = set()
    for archive in KEPT:
        with tarfile.open(archive) as kept:
            kept.extractall(tmp_path, filter="data")
        made = sand("report", tmp_path / archive.name.removesuffix(".tar.xz"), "--format", "markdown")
        assert made.returncode == 0, made.stderr
        told |= set(made.stdout.splitlines())
    page = (REPO / "docs" / "results.md").read_text().splitlines()
    rows = [line for line in page if line.startswith("| smollm2-135m-instruct |")]
    assert len(rows) > 3
    assert [row for row in rows if row not in told] == []


def test_what_is_kept_is_small() -> None:
    assert 0 < sum(path.stat().st_size for path in KEPT) < 20e6
