"""ALFWorld's data folder is found, or the message says where it is; a game is identified by its content."""

import json
from pathlib import Path
from typing import Any

import pytest

from sandcli.envs.alfworld.files import FILE, FOLDER, index
from sandcli.envs.alfworld.world import Alfworld
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.records import Task
from sandcli.settings import EnvSettings


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with one game, which nothing reads."""
    game = tmp_path / "data" / FOLDER / "train" / "pick_and_place_simple-Mug-None-Desk-308" / "trial_T1"
    game.mkdir(parents=True)
    (game / FILE).touch()
    return tmp_path / "data"


@pytest.mark.parametrize("below", ["..", FOLDER, f"{FOLDER}/train"])
def test_folder_above_or_below_the_data_is_refused_with_the_right_one(data: Path, below: str) -> None:
    with pytest.raises(PrerequisiteError, match="no ALFWorld games in") as caught:
        index(data / below)
    assert caught.value.fix == f"point env.games or $ALFWORLD_DATA to {data}, which has games in {FOLDER}"


def test_folder_far_from_any_data_is_refused_with_the_download(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="no ALFWorld games in") as caught:
        index(tmp_path)
    assert caught.value.fix == "alfworld-download"


GAME = "valid_seen/pick_and_place_simple-Mug-None-Desk-308/trial_T1"


def write_game(root: Path, game: str = GAME, **fields: Any) -> None:
    content = {
        "pddl_domain": "(define (domain alfred))",
        "grammar": "move {o} to {r}",
        "pddl_problem": "(define (problem p) (:domain alfred))",
        "solvable": True,
        "walkthrough": ["go to desk 1"],
    }
    path = root / FOLDER / game / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | fields, indent=len(fields)))


def content(root: Path, name: str = "pick_and_place_simple", game: str | None = GAME) -> str:
    return Alfworld(EnvSettings(games=str(root))).content(Task(name=name, game=game))


@pytest.mark.parametrize("changed", ["pddl_domain", "grammar", "pddl_problem"])
def test_content_of_a_game_is_what_is_played(tmp_path: Path, changed: str) -> None:
    write_game(tmp_path)
    before = content(tmp_path)
    write_game(tmp_path, walkthrough=[])
    assert content(tmp_path) == before
    write_game(tmp_path, **{changed: "(define (domain alfred) (:domain alfred))"})
    assert content(tmp_path) != before


@pytest.mark.parametrize(
    ("name", "game"),
    [
        ("pick_and_place_simple", "valid_seen/pick_and_place_simple-Mug-None-Desk-308/trial_T2"),
        ("pick_and_place_simple", "valid_seen/pick_and_place_simple-Pen-None-Desk-308/trial_T1"),
        ("pick_and_place_simple", f"../{FOLDER}/{GAME}"),
        ("look_at_obj_in_light", GAME),
        ("pick_and_place_simple", None),
    ],
)
def test_task_without_a_playable_game_has_no_content(tmp_path: Path, name: str, game: str | None) -> None:
    write_game(tmp_path)
    write_game(tmp_path, GAME.replace("Mug", "Pen"), solvable=False)
    with pytest.raises(UsageError, match="has no game"):
        content(tmp_path, name, game)


def test_versions_need_alfworld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_game(tmp_path)
    monkeypatch.setattr("sandcli.envs.alfworld.world.util.find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError, match="ALFWorld needs alfworld, which is not installed"):
        Alfworld(EnvSettings(games=str(tmp_path))).versions()
