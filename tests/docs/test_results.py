"""The tables in docs/results.md can be computed again from the runs that are kept, without their models."""

import tarfile
from pathlib import Path

import pytest

from tests.helpers import REPO, sand

KEPT = sorted((REPO / "experiments" / "results").glob("*.tar.xz"))


@pytest.mark.slow
@pytest.mark.parametrize("archive", KEPT, ids=lambda path: path.name)
def test_tables_are_those_of_the_kept_runs(archive: Path, tmp_path: Path) -> None:
    name = archive.name.removesuffix(".tar.xz")
    with tarfile.open(archive) as kept:
        kept.extractall(tmp_path, filter="data")
    told = sand("report", tmp_path / name, "--format", "markdown")
    assert told.returncode == 0, told.stderr
    page = (REPO / "docs" / "results.md").read_text()
    section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| smollm2-135m-instruct |")]
    assert len(rows) > 3
    assert [row for row in rows if row not in told.stdout.splitlines()] == []


def test_what_is_kept_is_small() -> None:
    assert sum(path.stat().st_size for path in KEPT) < 20e6
