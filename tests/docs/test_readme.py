"""The commands in the README and the documentation run as they stand, on the toy world with a tiny model."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.helpers import REPO, sand, write_rules

PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
TEXTS = {path.name: path.read_text() for path in PAGES}
BLOCKS = re.compile(r"^```\n(.*?)^```", re.DOTALL | re.MULTILINE)

ELSEWHERE = ("games", "alf1", "alfworld", "--preset", "seed1", "SAND_ENGINE_URLS")
"""Commands with these words need games, servers or other runs; tests in tests/real do the like."""


def commands(page: str) -> list[str]:
    """The `sand` commands in a page's code blocks."""
    lines = [line.partition("#")[0].strip() for block in BLOCKS.findall(TEXTS[page]) for line in block.splitlines()]
    return [line for line in lines if line.startswith("sand ") and not any(word in line for word in ELSEWHERE)]


def test_readme_is_short() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 150


def test_world_of_the_docs_is_loaded_as_a_plug_in(tmp_path: Path) -> None:
    program = re.search(r"^```python\n(.*?)^```", TEXTS["worlds.md"], re.DOTALL | re.MULTILINE)
    assert program is not None
    (tmp_path / "counting.py").write_text(program[1])
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
def test_sand_commands_of_the_readme_work(tiny: Path, tmp_path: Path) -> None:
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
    named = commands("README.md")
    assert len(named) >= 15
    for command in named:
        words = shlex.split(command.replace("find-plant_3", "fetch_0"))[1:]
        done = sand(*words, cwd=tmp_path, extra=environment)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", TEXTS)
def test_options_of_the_docs_exist(page: str) -> None:
    reference = (REPO / "docs" / "reference" / "cli.md").read_text()
    for command in re.findall(r"\bsand ((?:[a-z]+)(?: [a-z]+)?[^\n`]*)", "\n".join(BLOCKS.findall(TEXTS[page]))):
        words = command.partition("#")[0].split()
        sections = [f"## sand {' '.join(words[:2])}\n", f"## sand {words[0]}\n"]
        section = next((s for s in sections if s in reference), None)
        assert section, command
        body = reference.partition(section)[2].partition("\n## ")[0]
        for option in (word for word in words if word.startswith("--")):
            assert f"`{option}`" in body, command


@pytest.mark.parametrize("page", TEXTS)
def test_make_targets_of_the_docs_exist(page: str) -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z]+(?:-[a-z]+)*)", TEXTS[page], re.MULTILINE))
    targets = subprocess.run(["make", "help"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert named <= {line.partition(":")[0] for line in targets.splitlines()}


@pytest.mark.parametrize("page", TEXTS)
def test_files_that_the_docs_link_to_exist(page: str) -> None:
    folder = next(path for path in PAGES if path.name == page).parent
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", TEXTS[page]):
        assert (folder / target).exists(), target


@pytest.mark.parametrize("page", TEXTS)
def test_modules_that_the_docs_name_exist(page: str) -> None:
    for name in re.findall(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+\.py)`", TEXTS[page]):
        assert any((root / name).exists() for root in (REPO, REPO / "sandcli")), name
