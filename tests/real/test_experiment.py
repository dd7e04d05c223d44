"""`make experiment`: SFT and two iterations on the toy world, with scripted agents and a tiny model that is trained."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import REPO, environment, lines, write_rules

pytestmark = pytest.mark.real

SETTINGS = (
    "env.name=tests.toyworld:ToyWorld env.tasks=fetch env.simplifications=none engine.kind=scripted "
    "collect.thoughts=none prompts.set=compact sft.epochs=1 train.epochs=1"
)


def make(tiny: Path, folder: Path, iterations: int) -> subprocess.CompletedProcess[str]:
    settings = [*SETTINGS.split(), f"model.base={tiny}", f"engine.script={folder / 'rules.json'}"]
    variables = {
        "RUN": folder / "x",
        "ITERATIONS": iterations,
        "SAND": f"{sys.executable} -m sandcli",
        "READY": "",
        "COLLECT": "--limit 3",
        "EVAL": "--limit 2",
        "INIT": " ".join(f"--set {setting}" for setting in settings),
    }
    command = ["make", "experiment", *(f"{name}={value}" for name, value in variables.items())]
    return subprocess.run(command, cwd=REPO, env=environment(), capture_output=True, text=True, timeout=500)


def test_second_iteration_continues_the_first(tiny: Path, tmp_path: Path) -> None:
    write_rules(tmp_path / "rules.json")
    first = make(tiny, tmp_path, 1)
    assert first.returncode == 0, first.stderr
    it1, it2 = tmp_path / "x" / "it1", tmp_path / "x" / "it2"
    made = (it1 / "model" / "model.safetensors").stat().st_mtime_ns
    second = make(tiny, tmp_path, 2)
    assert second.returncode == 0, second.stderr
    assert (it1 / "model" / "model.safetensors").stat().st_mtime_ns == made
    assert (it2 / "expert.jsonl").read_bytes() == (it1 / "deliberations.jsonl").read_bytes()
    assert [len(lines(run / "eval.jsonl")) for run in (it1, it2)] == [3 * 2 * 2, 2 * 2]

    _keeps_earlier_deliberations(it1, it2)


def _keeps_earlier_deliberations(it1: Path, it2: Path) -> None:
    """A step keeps its deliberation unless it gets a new one: D_exp <- D_delib."""
    fresh = {(t["id"], t["step"]) for t in lines(it2 / "thoughts.jsonl") if t["thought"]}
    pairs = zip(lines(it1 / "deliberations.jsonl"), lines(it2 / "deliberations.jsonl"), strict=True)
    steps = [
        ((old["id"], t), before, after)
        for old, new in pairs
        for t, (before, after) in enumerate(zip(old["steps"], new["steps"], strict=True))
    ]
    kept = [before == after for key, before, after in steps if key not in fresh]
    assert kept and all(kept)
    assert any(before["deliberated"] for _, before, _ in steps)
