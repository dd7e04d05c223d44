"""`sand sft`: the policy before iteration 1, pi_base fine-tuned on D_exp. (Input of Algorithm 1.)"""

from pathlib import Path

from sandcli.engines.base import Model
from sandcli.stages.inputs import COLLECT_MORE
from sandcli.stages.training import TrainingStage
from sandcli.training_settings import TrainingSettings


class SftStage(TrainingStage):
    """From the base model, on expert.jsonl."""

    name = "sft"
    tables = ("run", "sft")

    @property
    def aims(self) -> TrainingSettings:
        """[sft]."""
        return self.settings.sft

    def start(self) -> Model:
        """pi_base."""
        return self.context.base_model()

    def data(self) -> Path:
        """D_exp."""
        return self.run.artifact("collect").require()

    def fix_empty(self) -> str:
        """Collect more."""
        return COLLECT_MORE
