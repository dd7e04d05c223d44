"""ALFWorld's data folder is found, or the message says where it is."""

from pathlib import Path

import pytest

from sandcli.envs.alfworld.files import FILE, FOLDER, index
from sandcli.errors import PrerequisiteError


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
