"""The published panel of ALFWorld: its games are made again with the same content, and other games are noticed."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

pytest.importorskip("alfworld", reason="ALFWorld is not installed: make setup-alfworld")

from sandcli.core.panel import differences_here
from sandcli.envs.alfworld.files import FILE, FOLDER
from sandcli.envs.alfworld.making import make_games
from sandcli.panels.files import read_panel
from sandcli.panels.panel import written
from tests.helpers import REPO, context, lines, make_run, perform, turn, write_rules
from tests.panels.made_up import in_file
from tests.published_panels import FOLDER as PUBLISHED_FOLDER
from tests.published_panels import PER_TYPE, alfworld

pytestmark = pytest.mark.real

PANEL = "alfworld-made"


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The games of the panel; making them takes half a minute on a free core."""
    root = tmp_path_factory.mktemp("games")
    assert len(list(make_games(root, PER_TYPE, seed=0))) == 3 * 6 * PER_TYPE
    return root


def test_published_panel_is_made_again(games: Path) -> None:
    assert (PUBLISHED_FOLDER / f"{PANEL}.json").read_bytes() == written(alfworld(games)[PANEL])


def test_games_of_the_experiment_begin_with_these(games: Path) -> None:
    named = read_panel(str(REPO / "experiments" / "alfworld-look-panel.json")).panel.splits["seen"]
    made = [task for task in alfworld(games)[PANEL].splits["seen"] if task.name == "look_at_obj_in_light"]
    assert len(made) == PER_TYPE
    assert {(task.game, task.content) for task in made} <= {(task.game, task.content) for task in named}


def test_other_games_are_noticed(games: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", env__name="alfworld", env__tasks="all", env__games=str(games))
    named = read_panel(PANEL)
    assert differences_here(named, context(run)) == []
    game = named.panel.splits["seen"][0].game or ""
    path = games / FOLDER / game / FILE
    whole = path.read_text()
    try:
        content = json.loads(whole)
        path.write_text(json.dumps(content | {"grammar": content["grammar"] + " "}))
        assert differences_here(named, context(run)) == [f"1 of 96 tasks have other content here; the first: {game}"]
        path.write_text(json.dumps(content | {"solvable": False}))
        assert differences_here(named, context(run)) == [
            f"1 of 96 tasks are not here; the first: {games / FOLDER} has no game {game}"
        ]
    finally:
        path.write_text(whole)


def test_games_of_a_panel_are_played(games: Path, tmp_path: Path) -> None:
    write_rules(tmp_path / "rules.json", [{"when": "", "replies": [turn("I look.", "look")]}])
    run = make_run(tmp_path / "run", env__name="alfworld", env__games=str(games), eval__models="base")
    panel = read_panel(PANEL).panel
    two = replace(panel, splits={"seen": [replace(task, step_limit=2) for task in panel.splits["seen"][:2]]})
    perform("eval", run, eval__panel=in_file(tmp_path / "two.json", two), eval__splits=["seen"], env__tasks=["all"])
    played = {episode["task"]["game"]: len(episode["steps"]) for episode in lines(run / "eval.jsonl")}
    assert played == {task.game: 2 for task in two.splits["seen"]}
