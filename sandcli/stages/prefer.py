"""`sand prefer`: the next policy, or planner, by preference optimisation (DPO) on pairs. (For baselines.)"""

from pathlib import Path

from msgspec.structs import replace

from sandcli.core.run import trains_planner
from sandcli.core.stage import State
from sandcli.engines.base import Model
from sandcli.errors import UsageError
from sandcli.records import Pair
from sandcli.stages.training import TrainingStage
from sandcli.training.config import REFERENCE
from sandcli.training_settings import ComputeSettings, TrainingSettings


class PreferStage(TrainingStage):
    """From this iteration's policy or planner, which is also the reference that the new one is held to."""

    name = "prefer"
    tables = ("run", "prefer")
    record = Pair

    @property
    def aims(self) -> TrainingSettings:
        """[prefer]."""
        return self.settings.prefer

    @property
    def compute(self) -> ComputeSettings:
        """One pair at a time: its two conversations are padded already."""
        return replace(super().compute, device_batch=1)

    def start(self) -> Model:
        """pi_k, or the planner."""
        return self.context.planner_model() if trains_planner(self.context.settings) else self.context.policy_model()

    def binds(self) -> bool:
        """Also if the reference has answered: that may take long."""
        return super().binds() or (self.artifact.journal / REFERENCE).exists()

    def check(self, state: State) -> None:
        """Also raise `UsageError` for an adapter whose frozen weights would be spread over GPUs."""
        super().check(state)
        if self.compute.shard and self.aims.method != "full":
            raise UsageError(
                "sand prefer cannot spread the weights under an adapter over GPUs (trainer.shard)",
                "set trainer.shard to false, or prefer.method to full",
            )

    def data(self) -> Path:
        """The pairs."""
        return self.run.artifact("pairs").require()

    def fix_empty(self) -> str:
        """Explore more."""
        return (
            "everything compared earned the same: explore more often (explore.n, with a temperature), or collect other "
            "tasks"
        )
