"""`sand prefer`: the next policy, or planner, by preference optimisation (DPO) on pairs. (For baselines.)"""

from pathlib import Path

from msgspec.structs import replace

from sandcli.engines.base import Model
from sandcli.messages import Message
from sandcli.records import Pair
from sandcli.stages.training import TrainingStage
from sandcli.training_settings import ComputeSettings, TrainingSettings


class PreferStage(TrainingStage):
    """From this iteration's policy or planner, which is also the reference that the new one is held to."""

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
        """pi_k, or the planner."""
        return self.context.planner_model() if self._of_plans else self.context.policy_model()

    @property
    def preamble(self) -> list[Message]:
        """The agent's; what a planner is asked is complete."""
        return [] if self._of_plans else super().preamble

    @property
    def _of_plans(self) -> bool:
        return self.context.settings.pairs.source == "plans"

    def data(self) -> Path:
        """The pairs."""
        return self.run.artifact("pairs").require()

    def fix_empty(self) -> str:
        """Explore more."""
        return (
            "everything compared earned the same: explore more often (explore.n, with a temperature), or collect other "
            "tasks"
        )
