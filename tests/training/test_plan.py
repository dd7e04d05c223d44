"""The plan of a training job: made from the tokenizer alone, so a dry run needs no weights."""

from pathlib import Path

import pytest

from sandcli.engines.base import Model
from sandcli.messages import Message
from sandcli.records import Step, Task, Trajectory
from sandcli.training.config import TrainingConfig
from sandcli.training.plan import TrainingPlan, plan_training
from sandcli.training_settings import ComputeSettings, TrainingSettings


def trajectory(name: str, steps: int) -> Trajectory:
    return Trajectory(
        id=name,
        env="toy",
        task=Task(name="toy", variation=0),
        instruction="find the lamp",
        steps=[Step(thought="", action="find", observation="lamp", score=0.0)] * steps,
        reward=1.0,
        success=True,
        source="test",
    )


def plan(words: Model, work: Path, lengths: list[int], aims: TrainingSettings) -> TrainingPlan:
    """The plan for trajectories of so many steps, by a model folder that holds no weights."""
    assert not list(words.folder.glob("*.safetensors"))
    config = TrainingConfig(
        words.folder, [Message("system", "you act")], aims, ComputeSettings(), 0, work, work / "log.jsonl"
    )
    return plan_training(config, [trajectory(f"t{number}", steps) for number, steps in enumerate(lengths)])


def test_plan_needs_no_weights(words: Model, tmp_path: Path) -> None:
    planned = plan(words, tmp_path / "work", [1, 2, 3], TrainingSettings(epochs=4, batch_size=2))
    lengths = [row.tokens for row in planned.rows]
    assert (planned.size.rows, planned.size.tokens) == (3, sum(lengths)) and planned.size.longest == max(
        lengths
    ) == lengths[2]
    assert 0 < planned.size.trained < planned.size.tokens
    assert planned.batches.steps == 8
    assert (planned.size.all_tokens, planned.size.all_trained) == (4 * planned.size.tokens, 4 * planned.size.trained)
    assert not (tmp_path / "work").exists()


def test_tokens_of_all_steps_are_counted_if_the_last_epoch_is_cut_short(words: Model, tmp_path: Path) -> None:
    planned = plan(words, tmp_path, [1, 2, 3], TrainingSettings(batch_size=2, max_steps=3))
    lengths = [row.tokens for row in planned.rows]
    rows = [row for row in planned.batches.order if row < 3]
    assert len(rows) == 5  # an epoch, and a batch of the next
    assert planned.size.all_tokens == sum(lengths[row] for row in rows) == sum(planned.batches.tokens)
    assert planned.size.trained < planned.size.all_trained < 2 * planned.size.trained


@pytest.mark.parametrize("steps", [[], [0]])
def test_plan_without_trajectories_has_no_steps(words: Model, tmp_path: Path, steps: list[int]) -> None:
    planned = plan(words, tmp_path, steps, TrainingSettings())
    assert planned.size.rows == planned.size.tokens == planned.batches.steps == 0


def test_plan_lists_trajectories_that_are_too_long(words: Model, tmp_path: Path) -> None:
    limit = plan(words, tmp_path, [1], TrainingSettings()).size.longest
    planned = plan(words, tmp_path, [1, 9], TrainingSettings(max_length=limit, epochs=1))
    assert planned.size.rows == planned.batches.steps == 1
    assert list(planned.size.too_long) == ["t1"]
