"""Estimates for dry runs come from earlier runs; unreadable entries are skipped."""

from pathlib import Path

import pytest

from sandcli.core.stage import Options
from sandcli.errors import Exit
from tests.core.damage import DAMAGE
from tests.core.runs import LIMIT
from tests.helpers import make_run, perform


@pytest.mark.slow
def test_damaged_history_stops_no_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    history = tmp_path / "cache" / "sand" / "history.jsonl"
    root = make_run(tmp_path / "run", sample__n=2)
    perform("collect", root, limit=LIMIT)
    for damage in DAMAGE:
        if not history.is_file():
            history.rmdir() if history.is_dir() else None
            perform("sample", root, limit=LIMIT, options=Options(force=True))
        damage(history)
        told = perform("sample", root, limit=LIMIT, options=Options(force=True, dry_run=True)).message
        assert told.startswith("sample: missing; 0 units recorded, 12 to do")
        assert perform("sample", root, limit=LIMIT, options=Options(force=True)).exit is Exit.DONE, damage
