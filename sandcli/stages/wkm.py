"""`sand wkm`: the world-knowledge model, trained on what the policy wrote. (WKM, a baseline.)"""

from collections.abc import Sequence
from pathlib import Path

from sandcli.core.run import D_WKM
from sandcli.engines.base import Model
from sandcli.messages import Message
from sandcli.method.world_knowledge import knowledge_preamble
from sandcli.stages.training import TrainingStage
from sandcli.training_settings import TrainingSettings


class WkmStage(TrainingStage):
    """From the base model, on conversations of task and state knowledge."""

    name = "wkm"
    tables = ("run", "wkm")
    prompts = ("know",)

    @property
    def aims(self) -> TrainingSettings:
        """[wkm]."""
        return self.settings.wkm

    @property
    def preamble(self) -> Sequence[Message]:
        """What it is told to do."""
        return knowledge_preamble(self.context.prompts)

    def start(self) -> Model:
        """pi_base."""
        return self.context.base_model()

    def data(self) -> Path:
        """The conversations."""
        return self.run.artifact("knowledge").require_derived(D_WKM)

    def fix_empty(self) -> str:
        """Write knowledge again."""
        return f"the policy wrote no task knowledge: {self.run.artifact('knowledge').command} --force"
