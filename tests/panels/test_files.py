"""Reading panels: published ones by name, files by path; everything that is wrong with a file is said in one line."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandcli.errors import UsageError
from sandcli.panels.files import PUBLISHED, read_panel, write_panel
from tests.panels.made_up import edited, in_file, panel, task

TWICE = [msgspec.to_builtins(task(6))] * 2
LIMITS = {"seen": [msgspec.to_builtins(task(6))], "unseen": [msgspec.to_builtins(task(6, step_limit=3))]}


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"world": "toyworld"}, "was changed: its hash is [0-9a-f]{12}, and the file says '[0-9a-f]{12}'"),
        ({"hash": ""}, "was changed: its hash is [0-9a-f]{12}, and the file says ''"),
        ({"world": 3}, r"is not a panel: Expected `str`, got `int` - at `\$.world`"),
        ({"note": "mine"}, "is not a panel: Object contains unknown field `note`"),
        ({"splits": {}}, "is not a panel: .*splits"),
        ({"splits": {"seen": []}}, "is not a panel: .*splits"),
        ({"splits": {"a,b": TWICE}}, "is not a panel: .*splits"),
        ({"splits": {"seen": TWICE}}, "has 'fetch_6' twice in seen"),
        ({"splits": LIMITS}, "has two step limits for 'fetch_6'"),
        ({"splits": {"seen": [{"name": "fetch", "variation": 6, "step_limit": 0}]}}, "is not a panel: .*>= 1"),
        ({"settings": {"engine.urls": "http://x"}}, "sets 'engine.urls', which no panel can"),
        ({"settings": {"env.name": "os:system"}}, "sets 'env.name', which no panel can"),
        ({"settings": {"agent.max_tokens": 0}}, "has a wrong setting: .*>= 1"),
        ({"settings": {"agent.max_tokens": True}}, "has a wrong setting: Expected `int`, got `bool`"),
        ({"settings": {"agent.invalid": "none"}}, "has a wrong setting: Invalid enum value"),
        ({"preamble": [{"role": "assistant", "content": "OK"}]}, "the roles in the panel .* do not alternate"),
        ({"hash": "a\nb"}, r"the file says 'a\\nb'"),
        ({"settings": {"a\nb": 1}}, r"sets 'a\\nb', which no panel can"),
        ({"splits": {"seen": [{"name": "a\nb", "variation": 1, "step_limit": 1}] * 2}}, r"has 'a\\nb_1' twice"),
        ({"preamble": "You live in a house."}, "is not a panel: .*preamble"),
    ],
)
def test_wrong_content_is_refused(tmp_path: Path, fields: dict[str, Any], what: str) -> None:
    path = edited(tmp_path / "p.json", **fields)
    with pytest.raises(UsageError, match=what) as caught:
        read_panel(path)
    assert path in caught.value.what and "\n" not in caught.value.what


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", r"p\.json:1: not JSON"),
        (b'{\n "hash"', r"p\.json:2: not JSON"),
        (b"[]", "it holds no JSON object"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"null", "it holds no JSON object"),
    ],
)
def test_file_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "p.json").write_bytes(content)
    with pytest.raises(UsageError, match=what):
        read_panel(str(tmp_path / "p.json"))


def test_hash_may_be_corrected_by_hand(tmp_path: Path) -> None:
    path = edited(tmp_path / "p.json", settings={})
    with pytest.raises(UsageError) as caught:
        read_panel(path)
    right = panel(settings={}).hash
    assert f"write {right} into it" in caught.value.fix
    assert read_panel(edited(tmp_path / "p.json", settings={}, hash=right)).panel.settings == {}


@pytest.mark.parametrize("name", ["", "nowhere.json", ".", "scienceworld-shor"])
def test_unknown_panel_is_refused_and_the_published_ones_are_listed(name: str) -> None:
    with pytest.raises(UsageError, match="there is no panel") as caught:
        read_panel(name)
    assert all(published in caught.value.fix for published in PUBLISHED)


def test_published_name_wins_over_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    in_file(Path("scienceworld-dev"), panel())
    assert read_panel("scienceworld-dev").panel.world == "scienceworld"
    assert read_panel("./scienceworld-dev").panel == panel()


def test_panel_is_never_written_over_a_file_or_under_a_published_name(tmp_path: Path) -> None:
    write_panel(tmp_path / "deep" / "p.json", panel())
    before = (tmp_path / "deep" / "p.json").read_bytes()
    with pytest.raises(UsageError, match="already a file"):
        write_panel(tmp_path / "deep" / "p.json", panel(settings={}))
    assert (tmp_path / "deep" / "p.json").read_bytes() == before
    with pytest.raises(UsageError, match="deep is a folder") as caught:
        write_panel(tmp_path / "deep", panel())
    assert caught.value.fix == f"name a file, such as {tmp_path}/deep/panel.json"
    with pytest.raises(UsageError, match="name of a published panel"):
        write_panel(Path("scienceworld-dev"), panel())
    assert json.loads(before)["hash"] == panel().hash
