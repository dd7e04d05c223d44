"""`sand train`: the next policy, pi_k fine-tuned on D_delib. (Algorithm 1.)

Deliberated and plain steps are mixed: this teaches the agent when to deliberate. A baseline trains on its own data.
"""

from collections.abc import Sequence
from pathlib import Path

from sandcli.core.run import LEARNING, trains_planner
from sandcli.engines.base import Model
from sandcli.messages import Message
from sandcli.stages.training import TrainingStage
from sandcli.training_settings import TrainingSettings


class TrainStage(TrainingStage):
    """From this iteration's policy or planner, on the data of the method."""

    name = "train"
    tables = ("run", "train")

    @property
    def prompts(self) -> tuple[str, ...]:  # type: ignore[override]
        """The preamble of the policy, or the question to the planner."""
        return ("plan",) if trains_planner(self.context.settings) else ("preamble",)

    @property
    def preamble(self) -> Sequence[Message]:
        """A planner's question, up to its last message, stands where the policy has its preamble."""
        return self.context.planner_question("")[:-1] if trains_planner(self.context.settings) else super().preamble

    @property
    def aims(self) -> TrainingSettings:
        """[train]."""
        return self.settings.train

    def start(self) -> Model:
        """pi_k, pi_base, or the planner."""
        if LEARNING[self.context.settings.method.name].from_base:
            return self.context.base_model()
        return self.context.planner_model() if trains_planner(self.context.settings) else self.context.policy_model()

    def data(self) -> Path:
        """D_delib, or the data of a baseline. The identity holds its hash, which stands for the method."""
        return self.run.training_data(self.context.settings.method.name)

    def fix_empty(self) -> str:
        """Make the data again; there may be none if the policy never succeeded."""
        method = self.context.settings.method.name
        source = self.run.artifact(LEARNING[method].source)
        if method == "knowagent":
            return (
                "no episode earned the full reward with an action path in every turn: play more "
                f"({source.command} --n N), or start from a better model"
            )
        if method == "mpo-sft":
            return f"no episode earned a reward: play more ({source.command} --n N), or start from a better policy"
        return f"make it again: {source.command} --force"
