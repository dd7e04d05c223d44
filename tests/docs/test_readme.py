"""The commands in the README and the documentation run as they stand, on the toy world with a tiny model."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import REPO, environment, sand, write_rules

PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
TEXTS = {path.name: path.read_text() for path in PAGES}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

SPANS = re.compile(r"`(sand [a-z][^`]*)`")

NOT_RUN = {
    "make ": "another test looks for the target",
    "vllm serve ": "needs vLLM; tests/real starts such servers",
    "ray start ": "needs several machines; tests/core/cluster does the like with several nodes on one",
    "--cluster ": "needs the cluster above",
    "--nodes ": "needs several machines; tests/training/test_nodes.py does the like with network namespaces",
    "torchrun ": "needs several GPUs; tests/real does the like with two processes",
    "SAND_ENGINE_URLS=": "needs the servers above",
    "--nproc 8": "needs several GPUs",
    "sand games ": "needs ALFWorld; tests/real/test_alfworld.py does the like",
    "runs/alf1": "needs the games above",
    "--from sciworld_sft.json": "needs recorded data; tests/stages/test_collect.py and tests/real do this",
    "--from agent-eto/": "needs the model hub",
    "runs/eto": "needs a model from elsewhere and its preamble; tests/stages/test_preamble.py does the like",
    "panel check ": "tests/cli/test_panel.py does the like",
    "--panel ": "needs the panel's world; tests/cli/test_panel.py does the like",
    "experiments.gpu": "needs another machine; tests/gpu does the like",
    "pieces/unpack.py": "needs the pieces; tests/gpu does the like",
    "cd sand": "belongs to the line above",
    "experiments/small.toml": "takes hours; tests/test_small_plan.py makes all arms",
    "runs/small": "needs the experiment above",
    "find-135m": "takes hours; tests/docs/test_results.py makes the report",
    "runs/guided": "needs a run of the small experiment, two hours",
}
"""Commands with these words are not executed here, and why."""


def blocks(page: str, language: str = "") -> list[str]:
    """A page's code blocks in a language; blocks of shell commands name none."""
    return [text for name, text in FENCED.findall(TEXTS[page]) if name == language]


def commands(page: str) -> list[str]:
    """The commands in a page's code blocks, without comments."""
    lines = "\n".join(blocks(page)).replace("\\\n", " ").splitlines()
    return [line for line in (line.partition("#")[0].strip() for line in lines) if line]


def executed(page: str) -> list[str]:
    """The commands that are executed here."""
    return [command for command in commands(page) if not any(word in command for word in NOT_RUN)]


def test_commands_are_executed_or_listed() -> None:
    shown = [command for page in TEXTS for command in commands(page)]
    assert [command for page in TEXTS for command in executed(page) if not command.startswith("sand ")] == []
    assert [word for word in NOT_RUN if not any(word in command for command in shown)] == []


def test_readme_is_short() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 150


@pytest.mark.slow
def test_world_of_the_docs_is_loaded_as_a_plug_in(tmp_path: Path) -> None:
    (program,) = blocks("worlds.md", "python")
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


def toy_settings(tiny: Path, folder: Path) -> dict[str, str]:
    """The variables that turn a run of the documents into one on the toy world."""
    return {
        "SAND_ENV_NAME": "tests.toyworld:ToyWorld",
        "SAND_ENV_TASKS": "fetch",
        "SAND_ENV_SIMPLIFICATIONS": "none",
        "SAND_ENGINE_KIND": "scripted",
        "SAND_ENGINE_SCRIPT": str(write_rules(folder / "rules.json")),
        "SAND_MODEL_BASE": str(tiny),
        "SAND_COLLECT_THOUGHTS": "none",
        "SAND_PROMPTS_SET": "compact",
        "SAND_SFT_EPOCHS": "1",
        "SAND_TRAIN_EPOCHS": "1",
    }


def run_programs(page: str, folder: Path, variables: dict[str, str]) -> None:
    """Execute a page's Python blocks as the cells of one notebook."""
    cells = [cell.replace("find-plant_3", "fetch_0") for cell in blocks(page, "python")]
    assert cells
    notebook = [sys.executable, "-c", NOTEBOOK, *cells]
    done = subprocess.run(
        notebook, cwd=folder, env=environment(**variables), capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr


NOTEBOOK = """
import ast, asyncio, inspect, sys
names = {}
for cell in sys.argv[1:]:
    code = compile(cell, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = eval(code, names)
    if inspect.iscoroutine(running):
        asyncio.run(running)
"""


@pytest.mark.real
def test_commands_and_python_of_the_docs_work(tiny: Path, tmp_path: Path) -> None:
    variables = toy_settings(tiny, tmp_path)
    assert len(executed("README.md")) >= 15
    for command in (command for page in TEXTS for command in executed(page)):
        words = shlex.split(command.replace("find-plant_3", "fetch_0"))[1:]
        done = sand(*words, cwd=tmp_path, extra=variables)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    run_programs("README.md", tmp_path, variables)


@pytest.mark.real
def test_recorded_session_of_the_readme_is_what_happens(tiny: Path, tmp_path: Path) -> None:
    ((command, *recorded),) = (block.splitlines() for block in blocks("README.md", "text"))
    variables = toy_settings(tiny, tmp_path)
    assert sand("init", "--run", "runs/it1", cwd=tmp_path, extra=variables).returncode == 0
    done = sand(*shlex.split(command.removeprefix("$ sand ")), cwd=tmp_path, extra=variables)
    of_the_machine = "(engine|environment|processes that train): |training "
    left_out = re.compile(rf"{of_the_machine}|\w+: \d+/\d+, .* left$|$")  # progress, on a busy machine
    printed = [line for line in done.stderr.splitlines() if not left_out.match(line)]
    assert printed == recorded, done.stderr


@pytest.mark.real
def test_python_of_the_library_page_works(tiny: Path, tmp_path: Path) -> None:
    run_programs("library.md", tmp_path, toy_settings(tiny, tmp_path))


@pytest.mark.parametrize("page", TEXTS)
def test_options_of_the_docs_exist(page: str) -> None:
    reference = (REPO / "docs" / "reference" / "cli.md").read_text()
    prose = " ".join(FENCED.sub("", TEXTS[page]).split())
    written = "\n".join([*blocks(page), *SPANS.findall(prose)])
    for command in re.findall(r"\bsand ((?:[a-z]+)(?: [a-z]+)?[^\n`]*)", written):
        words = command.partition("#")[0].split()
        if words == ["count"]:
            continue  # the stage that CONTRIBUTING.md adds
        sections = [f"## sand {' '.join(words[:2])}\n", f"## sand {words[0]}\n"]
        section = next((s for s in sections if s in reference), None)
        assert section, command
        body = reference.partition(section)[2].partition("\n## ")[0]
        for option in (word for word in words if word.startswith("--")):
            assert f"`{option}`" in body, command


def make_targets(page: str) -> set[str]:
    """The targets of `make` that a page names."""
    return set(re.findall(r"(?:`|^)(?:[A-Z_]+=\S* )*make ([a-z]+(?:-[a-z]+)*)", TEXTS[page], re.MULTILINE))


@pytest.mark.parametrize("page", TEXTS)
def test_make_targets_of_the_docs_exist(page: str) -> None:
    targets = subprocess.run(["make", "help"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert make_targets(page) <= {line.partition(":")[0] for line in targets.splitlines()}


def test_docs_name_the_main_make_targets() -> None:
    assert {"demo", "demo-alfworld", "test", "iteration", "setup", "check"} <= set().union(*map(make_targets, TEXTS))


@pytest.mark.parametrize("page", TEXTS)
def test_files_that_the_docs_link_to_exist(page: str) -> None:
    folder = next(path for path in PAGES if path.name == page).parent
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", TEXTS[page]):
        assert (folder / target).exists(), target


@pytest.mark.parametrize("page", TEXTS)
def test_modules_that_the_docs_name_exist(page: str) -> None:
    for name in re.findall(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+\.py)`", TEXTS[page]):
        assert any((root / name).exists() for root in (REPO, REPO / "sandcli")), name
