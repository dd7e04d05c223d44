"""Recorded rows of ScienceWorld in the literature's form, with their preamble, from sft to evaluation."""

import json
import lzma
from pathlib import Path

import pytest

from tests.helpers import REPO
from tests.real.literature import follow_the_literature, shortened

pytestmark = pytest.mark.real

DATA = REPO.parent / "shared" / "data"


def test_scienceworld_rows_are_used_with_their_preamble_in_every_stage(tiny: Path, tmp_path: Path) -> None:
    older = DATA / "scienceworld-1.1.3-stock-eto-form.json.xz"
    if not older.exists():
        pytest.skip(f"the recorded trajectories are missing: {older}")
    rows = [row for row in json.loads(lzma.decompress(older.read_bytes())) if row["id"] == "22_52"]
    root = shortened(tiny, rows, tmp_path / "run")
    follow_the_literature(root)
