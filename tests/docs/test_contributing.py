"""The stage of CONTRIBUTING.md, added to a copy of the package by following the text, runs on the toy world."""

import re
import shutil
import textwrap
from pathlib import Path

import pytest

from tests.helpers import REPO, lines, make_run, sand

pytestmark = pytest.mark.slow

TEXT = (REPO / "CONTRIBUTING.md").read_text()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package with the stage `count`."""
    root = tmp_path / "copy"
    unneeded = shutil.ignore_patterns("__pycache__")
    for name in ("sandcli", "prompts", "tests"):
        shutil.copytree(REPO / name, root / name, ignore=unneeded)
    _add_stage(root / "sandcli")
    return root


def _add_stage(package: Path) -> None:
    stage, record = map(textwrap.dedent, re.findall(r"^ *```python\n(.*?)^ *```$", TEXT, re.DOTALL | re.MULTILINE))
    (package / "stages" / "count.py").write_text(stage)
    (package / "records.py").open("a").write(f"\n\n{record}")
    _edit(package / "core" / "artifact.py", '    "critique",\n', '    "critique",\n    "count",\n')
    _insert(package / "core" / "run.py", '    "synthesize":', _quoted('"count": Written'))
    _insert(package / "core" / "run.py", "from sandcli.settings", "from sandcli.records import WordCount")
    _insert(package / "pipeline.py", "    Row(\n        SynthesizeStage", _quoted("Row(CountStage"))
    _insert(package / "pipeline.py", "from sandcli.stages.critique", "from sandcli.stages.count import CountStage")
    api = (package / "api" / "stages.py").read_text()
    verb = next(part for part in re.split(r"(?=^@Verb$)", api, flags=re.MULTILINE) if "def critique(" in part)
    added = verb.replace("def critique", "def count").replace('"critique"', '"count"')
    _edit(package / "api" / "stages.py", verb, verb + added)
    _insert(package / "cli" / "stages.py", '    ("synthesize", stages', '    ("count", stages.count),')


def _quoted(beginning: str) -> str:
    """The item of a table in the text that begins like this."""
    (found,) = re.findall(rf"`({re.escape(beginning)}[^`]*)`", TEXT)
    return f"    {found},"


def _insert(path: Path, before: str, line: str) -> None:
    _edit(path, before, f"{line}\n{before}")


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name}: {old}"
    path.write_text(text.replace(old, new))


def test_added_stage_runs(copy: Path, tmp_path: Path) -> None:
    run, found = make_run(tmp_path / "run"), {"PYTHONPATH": str(copy)}
    for stage in ("collect --limit 2", "sample", "rollout", "critique", "count"):
        done = sand(*stage.split(), "--run", run, cwd=copy, extra=found)
        assert done.returncode == 0, done.stderr
    counts, critiques = lines(run / "counts.jsonl"), lines(run / "critiques.jsonl")
    assert [count["words"] for count in counts] == [len(critique["critique"].split()) for critique in critiques]
    again = sand("count", "--run", run, cwd=copy, extra=found)
    assert "counts.jsonl is complete: nothing to do" in again.stderr
