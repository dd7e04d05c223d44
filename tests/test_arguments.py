"""What flags become."""

from pathlib import Path

import pytest

from sandcli.arguments import played


@pytest.mark.parametrize(
    ("panel", "setting"),
    [(None, None), ("", ""), ("scienceworld-dev", "scienceworld-dev"), ("p.json", "HERE/p.json")],
)
def test_panel_is_a_name_a_file_or_none(
    panel: str | None, setting: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.json").touch()
    found = played(panel, None, None, {})["eval.panel"]
    assert found == (setting and setting.replace("HERE", str(tmp_path)))
