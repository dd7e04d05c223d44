"""The README's commands are executed as they stand, on the toy world with the scripted engine and a tiny model."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.helpers import REPO, sand, write_rules

README = (REPO / "README.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
COMMANDS = [line.partition("#")[0].strip() for block in BLOCKS for line in block.splitlines()]


PROGRAM = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_world_of_the_readme_is_loaded_as_a_plug_in(tmp_path: Path) -> None:
    (program,) = PROGRAM
    (tmp_path / "counting.py").write_text(program)
    package = tmp_path / "counting-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[sandcli.envs]\ncounting = counting:Counting\n")
    found = {"PYTHONPATH": f"{tmp_path}:{REPO}"}
    assert sand("init", "--run", tmp_path / "run", "--set", "env.name=counting", extra=found).returncode == 0
    done = sand("collect", "--run", tmp_path / "run", "--thoughts", "none", extra=found)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "run" / "expert.jsonl").read_text().splitlines()) == 4


@pytest.mark.real
def test_every_sand_command_of_the_readme_works(tiny: Path, tmp_path: Path) -> None:
    environment = {
        "SAND_ENV_NAME": "tests.toyworld:ToyWorld",
        "SAND_ENV_TASKS": "fetch",
        "SAND_ENV_SIMPLIFICATIONS": "none",
        "SAND_ENGINE_KIND": "scripted",
        "SAND_ENGINE_SCRIPT": str(write_rules(tmp_path / "rules.json")),
        "SAND_MODEL_BASE": str(tiny),
        "SAND_COLLECT_THOUGHTS": "none",
        "SAND_SFT_EPOCHS": "1",
        "SAND_TRAIN_EPOCHS": "1",
    }
    commands = [command for command in COMMANDS if command.startswith("sand ")]
    assert len(commands) >= 15
    for command in commands:
        words = shlex.split(command.replace("find-plant_3", "fetch_0"))[1:]
        if "alfworld" in command or words[0] == "games" or "alf1" in command:
            continue  # tests/real/test_alfworld.py does these
        done = sand(*words, cwd=tmp_path, extra=environment)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_every_make_target_of_the_readme_exists() -> None:
    named = set(re.findall(r"(?<!games )\bmake ([a-z]+(?:-[a-z]+)*)", README))
    targets = subprocess.run(["make", "help"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert {"demo", "demo-alfworld", "test", "iteration", "setup", "check"} <= named
    assert named <= {line.partition(":")[0] for line in targets.splitlines()}
