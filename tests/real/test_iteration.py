"""The smallest iteration through the commands, on the real simulator with the real small model."""

import json
from pathlib import Path

import pytest

from tests.helpers import lines, sand

pytestmark = pytest.mark.real


@pytest.mark.usefixtures("smollm")
def test_iteration_through_the_commands(tmp_path: Path) -> None:
    run = tmp_path / "it1"
    settings = [
        "env.tasks=lifespan-longest-lived",
        "env.step_limit=3",
        "prompts.set=compact",
        "prompts.history_tokens=100",
        "agent.max_tokens=32",
        "critique.max_tokens=32",
        "synthesize.max_tokens=64",
        "synthesize.attempts=2",
        "sft.epochs=1",
        "train.epochs=1",
        "eval.splits=unseen",
        "eval.models=sft,model",
        "run.workers=1",
    ]
    done = [sand("init", "--run", run, *(part for setting in settings for part in ("--set", setting)))]
    stages = [
        "collect --limit 1",
        "sft",
        "sample --n 2",
        "rollout",
        "critique",
        "synthesize",
        "train",
        "eval --limit 1",
    ]
    for stage in stages:
        done.append(sand(*stage.split(), "--run", run, timeout=600))
        assert done[-1].returncode == 0, done[-1].stderr
    assert f"next: sand init --run {tmp_path / 'it2'} --from" in done[-1].stderr and "reward x100" in done[-1].stdout

    (expert,) = lines(run / "expert.jsonl")
    assert expert["reward"] == 1.0
    samples, rollouts = lines(run / "samples.jsonl"), lines(run / "rollouts.jsonl")
    flagged = [s for s in samples if s["deliberate"]]
    assert len(samples) == len(expert["steps"])
    assert len(rollouts) == sum(len(s["candidates"]) for s in flagged) == len(lines(run / "critiques.jsonl"))
    assert [r["reward"] for r in rollouts if r["expert"]] == [1.0] * len(flagged)
    assert len(lines(run / "thoughts.jsonl")) == len(flagged)
    assert len(lines(run / "deliberations.jsonl")) == 1
    assert {episode["model"] for episode in lines(run / "eval.jsonl")} == {"sft", "model"}
    loss = json.loads((run / "manifests" / "train.json").read_text())["loss"]
    assert loss and all(value > 0 for _, value in loss)

    again = sand("sample", "--run", run, "--n", "2")
    assert again.returncode == 0 and "nothing to do" in again.stderr
    following = sand("init", "--run", tmp_path / "it2", "--from", run)
    assert following.returncode == 0, following.stderr
    planned = sand("sample", "--run", tmp_path / "it2", "--dry-run", "--n", "2")
    assert f"{len(samples)} to do" in planned.stderr
    shown = sand("show", "--run", run, str(expert["id"]), "--tokens")
    assert "with loss" in shown.stdout
