"""`sand panel` as a user sees it: made, checked, played."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sandcli.cli import app
from sandcli.errors import UsageError
from sandcli.panels.files import read_panel
from tests.helpers import lines, make_run, sand
from tests.panels.made_up import in_file, panel, task


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", eval__models="base")


@pytest.mark.slow
def test_panel_is_made_checked_and_played(run: Path, tmp_path: Path) -> None:
    made = sand("panel", "make", "p.json", "--run", "run", "--limit", "2", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    found = read_panel(str(tmp_path / "p.json")).panel
    assert f"hash: {found.hash}\n" in made.stdout
    assert "seen: 2 tasks of 1 type, step limit 8\n" in made.stdout
    *_, command = made.stderr.strip().rpartition("next: sand ")
    checked = sand("panel", "check", "p.json", "--run", "run", cwd=tmp_path)
    assert checked.returncode == 0 and checked.stdout == f"{made.stdout}this machine can play it\n"
    played = sand(*command.split(), cwd=tmp_path)
    assert played.returncode == 0, played.stderr
    assert f"Table 2: average reward x100 (panel p, {found.hash})" in played.stdout
    assert len(lines(run / "eval.jsonl")) == 4


def test_splits_of_a_panel_are_chosen_and_named_in_the_next_command(run: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "p.json")
    made = CliRunner().invoke(app, ["panel", "make", file, "--run", str(run), "--splits", "train, seen"])
    assert made.exit_code == 0 and made.stderr.endswith(
        f"next: sand eval --run {run} --panel {file} --splits train,seen\n"
    )
    assert list(read_panel(file).panel.splits) == ["train", "seen"]


def test_every_difference_is_a_line_and_the_exit_code_says_so(run: Path, tmp_path: Path) -> None:
    other = panel(
        versions={"toyworld": "2"}, splits={"seen": [task(6, content="stone", step_limit=9), task(7), task(30)]}
    )
    arguments = ["panel", "check", in_file(tmp_path / "p.json", other), "--run", str(run)]
    checked = CliRunner().invoke(app, arguments)
    assert checked.exit_code == 3
    assert "seen: 3 tasks of 1 type, step limits 8 to 9\n" in checked.stdout
    differ = [line.removeprefix("differs: ") for line in checked.stdout.splitlines() if line.startswith("differs: ")]
    assert len(differ) == 3 and checked.stdout.endswith("this machine cannot play it\n")
    as_json = CliRunner().invoke(app, [*arguments, "--json"])
    assert as_json.exit_code == 3
    assert json.loads(as_json.stdout) == {"hash": other.hash, "world": other.world, "differences": differ}


def test_panel_of_another_world_is_one_difference(run: Path) -> None:
    checked = CliRunner().invoke(app, ["panel", "check", "scienceworld-dev", "--run", str(run)])
    assert checked.exit_code == 3
    assert "differs: the panel is of the world 'scienceworld', not of 'tests.toyworld:ToyWorld'\n" in checked.stdout


def test_published_panel_is_checked_without_a_run() -> None:
    checked = CliRunner().invoke(app, ["panel", "check", "scienceworld-dev"])
    assert checked.exit_code == 0
    assert "dev: 42 tasks of 7 types, step limits 10 to 15\n" in checked.stdout


def test_panel_chooses_no_code_to_run(tmp_path: Path) -> None:
    path = in_file(tmp_path / "p.json", panel(world="os:abort"))
    with pytest.raises(UsageError, match="of the world 'os:abort'") as caught:
        CliRunner().invoke(app, ["panel", "check", path], catch_exceptions=False)
    assert "--run" in caught.value.fix


def test_limit_on_a_panel_is_refused(run: Path, tmp_path: Path) -> None:
    path = in_file(tmp_path / "p.json", panel())
    for stage in ("eval", "counterfactual"):
        with pytest.raises(UsageError, match="--limit 1 would play only a part of the panel"):
            CliRunner().invoke(
                app, [stage, "--run", str(run), "--panel", path, "--limit", "1", "--dry-run"], catch_exceptions=False
            )
