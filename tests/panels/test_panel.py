"""The hash of a panel depends on all of its content and on nothing else; its file has one task a line."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sandcli.fields import fields
from sandcli.messages import Said
from sandcli.panels.files import read_panel
from sandcli.panels.panel import fixed_settings, fixed_values, written
from sandcli.settings import Settings
from sandcli.tables import Effect
from tests.panels.made_up import in_file, panel, task


@pytest.mark.parametrize(
    "fields",
    [
        {"world": "scienceworld"},
        {"versions": {"toyworld": "2"}},
        {"settings": {"agent.max_tokens": 65}},
        {"settings": {}},
        {"preamble": []},
        {"preamble": [Said("user", "You live in a house.")]},
        {"splits": {"seen": [task(6), task(7)], "dev": [task(9)]}},
        {"splits": {"seen": [task(6), task(7)]}},
        {"splits": {"seen": [task(6), task(8)], "unseen": [task(9)]}},
        {"splits": {"seen": [task(6), task(7, step_limit=9)], "unseen": [task(9)]}},
        {"splits": {"seen": [task(6), task(7, content="stone")], "unseen": [task(9)]}},
    ],
)
def test_hash_covers_every_part(fields: dict[str, Any]) -> None:
    assert panel(**fields).hash != panel().hash


def test_hash_ignores_the_order_of_tasks_splits_and_settings() -> None:
    settings = {"agent.max_tokens": 64, "env.translate": False}
    one = panel(settings=settings)
    other = panel(settings=dict(reversed(settings.items())), splits={"unseen": [task(9)], "seen": [task(7), task(6)]})
    assert one.hash == other.hash and len(one.hash) == 12


def test_hash_ignores_formatting_and_the_name_of_the_file(tmp_path: Path) -> None:
    content = json.loads(written(panel()))
    (tmp_path / "other.json").write_text(json.dumps(dict(reversed(content.items())), indent=8), "utf-8-sig")
    assert read_panel(str(tmp_path / "other.json")).panel.hash == panel().hash


@pytest.mark.parametrize("text", ["Größe 家", "\ud800", 'a "quoted"\nline'])
def test_written_panel_is_read(tmp_path: Path, text: str) -> None:
    made = panel(preamble=[Said("system", text)], versions={"größe": "1"})
    named = read_panel(in_file(tmp_path / "p.json", made))
    assert named.panel == made and named.name == str(tmp_path / "p.json")


def test_file_has_one_task_a_line() -> None:
    lines = written(panel()).decode().splitlines()
    tasks = [line.strip().rstrip(",") for line in lines if "step_limit" in line]
    assert [json.loads(line)["variation"] for line in tasks] == [6, 7, 9]
    assert tasks[0] == '{"name": "fetch", "variation": 6, "step_limit": 8, "content": "wood"}'
    assert lines[1] == f'  "hash": "{panel().hash}",'


def test_panel_fixes_every_setting_of_play_that_changes_records() -> None:
    played = [field for field in fields() if field.table in ("env", "agent", "eval")]
    content = {field.name for field in played if field.effect is Effect.CONTENT}
    assert set(fixed_settings()) == content - {"env.name"} | {"env.simplifications"}
    assert {"agent.max_tokens", "agent.invalid", "env.step_limit", "env.translate"} < set(fixed_settings())
    assert not {"env.tasks", "env.games", "agent.preamble"} & set(fixed_settings())


def test_settings_of_a_panel_replace_those_of_a_run() -> None:
    values = fixed_values(Settings()) | {"agent.max_tokens": 7, "env.simplifications": "easy"}
    found = panel(settings=values).applied_to(Settings())
    assert fixed_values(found) == values
    assert (found.agent.preamble, found.env.tasks, found.sample) == ("world", ["paper"], Settings().sample)
    assert replace(found, agent=Settings().agent, env=Settings().env) == Settings()
    assert panel(settings={}).applied_to(found) == Settings()  # a panel fixes all of them, even those it does not name
