"""`sand train`: the next policy, pi_k fine-tuned on D_delib. (Algorithm 1.)

Deliberated and plain steps are mixed: this teaches the agent when to deliberate. A baseline trains on its own data.
"""

from pathlib import Path

from sandcli.core.run import LEARNING
from sandcli.engines.base import Model
from sandcli.stages.training import TrainingStage
from sandcli.training_settings import TrainingSettings


class TrainStage(TrainingStage):
    """From this iteration's policy, on the data of the method."""

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
        """D_delib, or the data of a baseline. The identity holds its hash, which stands for the method."""
        return self.run.training_data(self.context.settings.method.name)

    def fix_empty(self) -> str:
        """Make the data again; KnowAgent has none if the policy never succeeded."""
        method = self.context.settings.method.name
        source = self.run.artifact(LEARNING[method].source)
        if method == "knowagent":
            return (
                "no episode earned the full reward with an action path in every turn: play more "
                f"({source.command} --n N), or start from a better model"
            )
        return f"make it again: {source.command} --force"
