"""A stand-in for the training of a model; the fixture `trainer` in conftest.py puts it in place."""

import shutil
from pathlib import Path

import pytest

from sandcli.stages.training import TrainingStage
from sandcli.training.checkpoints import COMPLETE
from sandcli.training.config import LoggedStep, Size, TrainingResult

STEP = LoggedStep(
    step=1, epoch=1.0, loss=0.5, learning_rate=1e-5, gradient_norm=1.0, tokens_a_second=10.0, memory_gib=1.0
)


class Trainer:
    """Stands in for the training of a model. While `stopped`, each training is interrupted after a checkpoint."""

    stopped = False

    def __init__(self) -> None:
        self.learned_from: list[Path] = []

    def put_in_place(self, patch: pytest.MonkeyPatch) -> None:
        """Replace all trainings."""
        patch.setattr(TrainingStage, "_fit", lambda stage, job, processes: self(stage))

    def __call__(self, stage: TrainingStage) -> TrainingResult:
        self.learned_from.append(stage.data())
        result = stage.artifact.journal / "result"
        result.mkdir(parents=True, exist_ok=True)
        (result / "model.safetensors").write_bytes(b"weights")
        shutil.copy(stage.start().folder / "config.json", result)
        checkpoint = stage.artifact.journal / "checkpoints" / "checkpoint-1"
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / COMPLETE).touch()
        return TrainingResult([STEP], 1, Size(1, 10, 5, 10, {}, 70, 35), not self.stopped)
