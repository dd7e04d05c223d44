"""A run on a panel: whose tasks, limits, preamble and settings are played, and which panels are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from sandcli.core.panel import PanelContext, must_play_whole_panel, panel_of, playing
from sandcli.errors import UsageError
from sandcli.messages import Message, Said
from sandcli.panels.files import read_panel
from sandcli.panels.panel import fixed_values
from sandcli.records import Task
from tests.helpers import context, make_run
from tests.panels.made_up import TOY, edited, in_file, panel, task
from tests.toyworld import SYSTEM, ToyWorld

MADE = panel(splits={"seen": [task(6, step_limit=3), task(7)], "dev": [task(0)]})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", eval__panel=in_file(tmp_path / "p.json", MADE))


def test_run_without_a_panel_is_played_as_it_is(tmp_path: Path) -> None:
    own = context(make_run(tmp_path / "run"))
    assert playing(own) is own


def test_panel_decides_what_is_played(run: Path) -> None:
    played = playing(context(run, env__tasks=["riddle"], env__step_limit=2, agent__max_tokens=9, agent__max_invalid=1))
    assert played.world.tasks("dev") == [Task(name="fetch", variation=0)]
    assert [played.world.step_limit(own) for own in played.world.tasks("seen")] == [3, 8]
    assert played.preamble == [Message("system", "You live in a house.")]
    assert played.settings.agent.max_tokens == 64
    assert played.settings.agent.max_invalid == 5  # the default, as for every setting that the panel does not name
    assert played.world.name == "toyworld" and played.world.versions() == {"toyworld": "1"}


def test_knowledge_of_actions_is_added_to_the_panels_preamble_and_never_part_of_a_panel(run: Path) -> None:
    (run / "rules.md").write_text("start -> look")
    own = context(run, agent__knowledge="rules.md")
    assert playing(own).preamble == [Message("system", "You live in a house.\n\nstart -> look")]
    assert panel_of(own, ["seen"], None).preamble == [Said(role="system", content="You live in a house.")]


def test_split_that_the_panel_lacks_is_refused(run: Path) -> None:
    with pytest.raises(UsageError, match="has no split 'unseen'") as caught:
        playing(context(run)).world.tasks("unseen")
    assert "seen,dev" in caught.value.fix


def test_relative_panel_starts_at_the_run_directory(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert isinstance(playing(context(run, eval__panel="../p.json")), PanelContext)


def test_differences_of_a_run_are_named(run: Path) -> None:
    own = context(run)
    played = playing(own)
    assert isinstance(played, PanelContext)
    assert played.unlike(own) == [
        "env.simplifications 'none' -> 'eto'",
        "agent.max_tokens 512 -> 64",
        "its own preamble",
    ]
    assert played.unlike(played) == []
    unreadable = context(run, agent__preamble="nowhere.json", agent__max_tokens=64, env__simplifications="eto")
    assert played.unlike(unreadable) == []


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"world": "scienceworld"}, f"the panel is of the world 'scienceworld', not of '{TOY}'"),
        ({"versions": {"toyworld": "2"}}, "toyworld is 2 in the panel and 1 here"),
        ({"splits": {"seen": [task(6, content="stone")]}}, "1 of 1 tasks have other content here"),
        ({"splits": {"seen": [task(99)]}}, "1 of 1 tasks are not here"),
    ],
)
def test_panel_that_does_not_fit_is_refused(run: Path, tmp_path: Path, fields: dict[str, Any], what: str) -> None:
    path = in_file(tmp_path / "other.json", panel(**fields))
    with pytest.raises(UsageError, match=what) as caught:
        playing(context(run, eval__panel=path))
    assert caught.value.what.startswith(f"the panel {path} cannot be played here: ")
    assert caught.value.fix == f"sand panel check {path} --run {run} lists all differences"


def test_changed_world_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    playing(context(run))
    monkeypatch.setattr(ToyWorld, "content", lambda self, task: "stone")
    with pytest.raises(UsageError, match="3 of 3 tasks have other content here; the first: fetch_6"):
        playing(context(run))


def test_damaged_panel_is_refused(run: Path, tmp_path: Path) -> None:
    edited(tmp_path / "p.json", settings={})
    with pytest.raises(UsageError, match="was changed"):
        playing(context(run))


def test_panel_that_contradicts_the_run_is_refused(run: Path, tmp_path: Path) -> None:
    path = in_file(tmp_path / "strict.json", panel(settings={"agent.thought": "required"}))
    with pytest.raises(UsageError, match=r"agent\.thought is required"):
        playing(context(run, eval__panel=path, eval__deliberation=["never"]))


def test_part_of_a_panel_is_refused(run: Path) -> None:
    must_play_whole_panel(context(run))
    must_play_whole_panel(context(run, limit=1, eval__panel=""))
    with pytest.raises(UsageError, match="--limit 1 would play only a part of the panel") as caught:
        must_play_whole_panel(context(run, limit=1))
    assert "sand panel make --limit 1" in caught.value.fix


# Making one


def test_panel_holds_what_a_run_plays(tmp_path: Path) -> None:
    (tmp_path / "preamble.json").write_text(json.dumps([{"role": "user", "content": "Go."}]))
    own = context(
        make_run(tmp_path / "run", env__tasks="fetch,carry", env__step_limit=5, agent__max_tokens=99),
        agent__preamble=str(tmp_path / "preamble.json"),
    )
    made = panel_of(own, ["train", "unseen"], 1)
    assert made.splits == {"train": [task(0, step_limit=5)], "unseen": [task(9, step_limit=5)]}
    assert (made.world, made.versions) == (TOY, {"toyworld": "1"})
    assert made.settings == fixed_values(own.settings) and made.settings["agent.max_tokens"] == 99
    assert made.preamble == [Said("user", "Go.")]
    assert panel_of(context(own.run.root), ["seen"], None).preamble == [Said("system", SYSTEM)]


def test_panel_of_a_run_on_a_panel_is_a_part_of_it(run: Path) -> None:
    assert panel_of(context(run), ["seen"], 1).splits == {"seen": [task(6, step_limit=3)]}
    assert panel_of(context(run), ["seen", "dev"], None).splits == MADE.splits


def test_made_panel_is_the_same_again(run: Path, tmp_path: Path) -> None:
    made = panel_of(context(run, eval__panel=""), ["seen", "unseen"], None)
    path = in_file(tmp_path / "made.json", made)
    assert read_panel(path).panel == made
    assert panel_of(context(run, eval__panel=path), ["seen", "unseen"], None) == made


def test_panel_without_a_task_is_refused(tmp_path: Path) -> None:
    own = context(make_run(tmp_path / "run", env__tasks="riddle"))
    with pytest.raises(UsageError, match="the split unseen of toyworld has no task"):
        panel_of(own, ["train", "unseen"], None)
