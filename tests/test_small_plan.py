"""The plans of `make experiment-small` and `make table2-small`, with scripted agents and a stand-in for training."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from sandcli.engines.base import Model
from sandcli.errors import Exit
from sandcli.experiments import Experiment
from sandcli.plans import Plan, flat, planned_runs, read_plan
from sandcli.report.build import build_report
from sandcli.report.seeds import seeded_agents
from tests.helpers import REPO, lines, write_rules
from tests.trainer import Trainer

pytestmark = pytest.mark.slow

SMALL = read_plan(REPO / "experiments" / "small.toml")
TOY = {
    "env.name": "tests.toyworld:ToyWorld",
    "env.tasks": ["fetch"],
    "env.step_limit": 8,
    "env.simplifications": "none",
    "engine.kind": "scripted",
    "run.workers": 2,
}


def on_the_toy_world(plan: Plan, folder: Path, model: Path) -> Path:
    """A copy of a plan with its arms, seeds and settings, but another world, engine and model, and few tasks."""
    rules = write_rules(folder / "rules.json")
    changed: dict[str, Any] = {**TOY, "engine.script": str(rules), "model.base": str(model)}
    settings = {**flat(plan.settings), **changed}
    text = [f"seeds = {plan.seeds}", "limit = 3", "tasks = 2"]
    text += [f"settings.{name} = {json.dumps(value)}" for name, value in settings.items()]
    for arm, tables in plan.arms.items():
        text += [f"[arms.{arm}]", *(f"{name} = {json.dumps(value)}" for name, value in flat(tables).items())]
    path = folder / "plan.toml"
    path.write_text("\n".join(text))
    return path


def test_every_method_of_table_2_is_made_and_reported(tmp_path: Path, words: Model, trainer: Trainer) -> None:
    plan = read_plan(REPO / "experiments" / "table2-small.toml")
    path, root = on_the_toy_world(plan, tmp_path, words.folder), tmp_path / "x"
    assert asyncio.run(Experiment(root, path, None, 0, {}).make()).exit is Exit.DONE
    assert {made.parent.parent.name for made in root.glob("*/seed0/eval.jsonl")} == set(plan.arms)
    labels = {row.name for row in build_report([root]).rows}
    assert {"base", "SFT", *plan.arms} - {"sft"} == labels


def test_every_arm_of_the_small_plan_is_made_and_reported(tmp_path: Path, words: Model, trainer: Trainer) -> None:
    path, root = on_the_toy_world(SMALL, tmp_path, words.folder), tmp_path / "x"
    copy = read_plan(path)
    assert (copy.arms, copy.seeds) == (SMALL.arms, SMALL.seeds) and len(copy.seeds) == 2
    assert asyncio.run(Experiment(root, path, None, None, {}).make()).exit is Exit.DONE

    runs = {run.folder: run for run in planned_runs(copy, copy.seeds)}
    assert {str(made.parent.relative_to(root)) for made in root.glob("*/*/eval.jsonl")} == set(runs)
    for folder in runs:
        modes = 3 if folder.startswith("sand/") else 1
        assert len(lines(root / folder / "eval.jsonl")) == 2 * 2 * modes  # two tasks of two splits

    made = build_report([root])
    assert made.roots == [root / folder for arm in copy.arms for folder in runs if runs[folder].arm == arm]
    trained = {agent.label: agent.seeds for agent in seeded_agents(made.rows)}
    assert set(trained.values()) == {(0, 1)}
    assert {"SFT", *copy.arms} - {"base", "sft"} <= set(trained)
