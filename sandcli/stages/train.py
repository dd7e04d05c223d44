"""`sand train`: the next policy, pi_k fine-tuned on D_delib. (Algorithm 1.)

Deliberated and plain steps are mixed: this teaches the agent when to deliberate.
"""

from pathlib import Path

from sandcli.core.run import D_DELIB
from sandcli.engines.base import Model
from sandcli.stages.training import TrainingStage
from sandcli.training_settings import TrainingSettings


class TrainStage(TrainingStage):
    """From this iteration's policy, on deliberations.jsonl."""

    name = "train"
    tables = ("run", "train")

    @property
    def aims(self) -> TrainingSettings:
        """[train]."""
        return self.settings.train

    def start(self) -> Model:
        """pi_k."""
        return self.context.policy_model()

    def data(self) -> Path:
        """D_delib."""
        return self.run.artifact("synthesize").require_derived(D_DELIB)

    def fix_empty(self) -> str:
        """Make the deliberations again."""
        return f"make it again: {self.run.artifact('synthesize').command} --force"
