"""`sand prefer`: the next policy by preference optimisation (DPO) on pairs. (A baseline; not in Algorithm 1.)"""

from pathlib import Path

from msgspec.structs import replace

from sandcli.engines.base import Model
from sandcli.records import Pair
from sandcli.stages.training import TrainingStage
from sandcli.training_settings import ComputeSettings, TrainingSettings


class PreferStage(TrainingStage):
    """From this iteration's policy, which is also the reference that the new one is held to."""

    name = "prefer"
    tables = ("run", "prefer")
    record, noun = Pair, "pairs"

    @property
    def aims(self) -> TrainingSettings:
        """[prefer]."""
        return self.settings.prefer

    @property
    def compute(self) -> ComputeSettings:
        """One pair at a time: its two conversations are padded already."""
        return replace(super().compute, device_batch=1)

    def start(self) -> Model:
        """pi_k."""
        return self.context.policy_model()

    def data(self) -> Path:
        """The pairs."""
        return self.run.artifact("pairs").require()

    def fix_empty(self) -> str:
        """Explore more."""
        return (
            "everything compared earned the same: explore more often (explore.n, with a temperature), or collect other "
            "tasks"
        )
