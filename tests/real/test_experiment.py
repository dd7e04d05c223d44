"""Experiments: iterations with `make experiment`, and all arms of a plan with two seeds.

On the toy world and on ScienceWorld, with scripted agents and a tiny model that is trained.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sandcli.core.run import Run
from tests.helpers import REPO, contents, environment, lines, sand, write_rules

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


PLAN = """
seeds = [0, 1]
limit = 3
tasks = 2

[settings]
env = { name = "tests.toyworld:ToyWorld", tasks = ["fetch"], simplifications = "none" }
engine.kind = "scripted"
collect.thoughts = "none"
prompts.set = "compact"
sft.epochs = 1
train.epochs = 1

[arms.base]
eval.models = ["base"]

[arms.sft]
eval.models = ["sft"]

[arms.sand]

[arms.without-critique]
method.without = "critique"

[arms.rft]
updates_of = "sand"
method.name = "rft"

[arms.more-sft]
updates_of = "sand"
method.without = "deliberations"
"""


@pytest.fixture(scope="module")
def plan(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    write_rules(folder / "rules.json")
    path = folder / "plan.toml"
    path.write_text(f'{PLAN}\n[settings.model]\nbase = "{tiny}"\n')
    return path


def experiment(plan: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`sand experiment`, with the rules beside the plan."""
    variables = {"SAND_ENGINE_SCRIPT": str(plan.parent / "rules.json")}
    return sand("experiment", plan, "--run", folder, *options, extra=variables, timeout=900)


@pytest.fixture(scope="module")
def made(plan: Path) -> Path:
    """The finished experiment."""
    ran = experiment(plan, plan.parent / "x")
    assert ran.returncode == 0, ran.stderr
    assert "next: sand report" in ran.stderr
    return plan.parent / "x"


def test_every_arm_has_a_run_for_each_seed(made: Path) -> None:
    arms = ("rft", "more-sft", "sand", "sft", "without-critique")
    expected = {"base/seed0", *(f"{arm}/seed{seed}" for arm in arms for seed in (0, 1))}
    assert {str(path.parent.relative_to(made)) for path in made.glob("*/*/eval.jsonl")} == expected
    assert {len(lines(path)) for path in made.glob("*/*/eval.jsonl")} == {4}


def test_arms_share_d_exp_and_the_sft_model_of_their_seed(made: Path) -> None:
    assert len({path.read_bytes() for path in made.rglob("expert.jsonl")}) == 1
    weights = {seed: list(made.glob(f"*/seed{seed}/sft/model.safetensors")) for seed in (0, 1)}
    assert [len(found) for found in weights.values()] == [5, 5]
    inodes = {seed: {path.stat().st_ino for path in found} for seed, found in weights.items()}
    assert [len(found) for found in inodes.values()] == [1, 1]
    assert not inodes[0] & inodes[1]


def test_controls_take_as_many_updates(made: Path) -> None:
    for seed in (0, 1):
        steps = {
            arm: Run(made / arm / f"seed{seed}").artifact("train").manifest() for arm in ("sand", "rft", "more-sft")
        }
        assert len({made.counts["steps"] for made in steps.values() if made is not None}) == 1


def test_finished_experiment_changes_nothing(made: Path, plan: Path) -> None:
    before = contents(made)
    assert experiment(plan, made).returncode == 0
    assert contents(made) == before


def test_lost_part_is_made_again_and_nothing_else(made: Path, plan: Path, tmp_path: Path) -> None:
    again = tmp_path / "x"
    shutil.copytree(made, again, symlinks=True)
    (again / "sand" / "seed1" / "rollouts.jsonl").unlink()
    before = contents(made)
    assert experiment(plan, again).returncode == 0
    after = contents(again)
    same = {name for name, content in before.items() if name.endswith(".jsonl") and "/logs/" not in name}
    assert {name for name in same if after[name] != before[name]} == set()


def test_changed_plan_is_refused(made: Path, plan: Path, tmp_path: Path) -> None:
    changed = tmp_path / "plan.toml"
    changed.write_text(plan.read_text().replace("train.epochs = 1", "train.epochs = 2"))
    ran = experiment(changed, made)
    assert ran.returncode == 2
    assert "has train.epochs = 1, the plan" in ran.stderr


def test_report_on_an_experiment_compares_arms_over_seeds(made: Path) -> None:
    ran = sand("report", made, "--json")
    assert ran.returncode == 0, ran.stderr
    rows = json.loads(ran.stdout)["seeds"]["rows"]
    assert {row["agent"] for row in rows} == {"SFT", "sand", "without-critique", "rft", "more-sft"}
    assert {row["cells"]["seeds"] for row in rows} == {2}


def test_dry_run_lists_what_is_done(made: Path, plan: Path) -> None:
    ran = experiment(plan, made, "--dry-run")
    assert f"{made}/sft/seed1: (collect) (sft) (eval)" in ran.stdout.splitlines()
