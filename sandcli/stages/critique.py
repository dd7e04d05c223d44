"""`sand critique`: the frozen base model criticises each candidate from what its rollout led to. (Eq. 5.)"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from sandcli.core.stage import Metrics, Stage, Unit
from sandcli.engines.base import Completion, Model, Sampling
from sandcli.errors import ContextOverflow
from sandcli.method.critique import Case, critique_prompt, critique_text
from sandcli.records import Critique
from sandcli.stages.inputs import rollout_cases


class CritiqueStage(Stage[Case, Critique]):
    """Units are (trajectory, step, candidate)."""

    name = "critique"
    tables = ("prompts", "critique", "engine")
    prompts = ("critique",)

    def reads(self) -> tuple[Path, ...]:
        """D_exp and the rollouts."""
        return self.run.artifact("collect").require(), self.run.artifact("rollout").require()

    def models(self) -> dict[str, Model]:
        """pi_base."""
        return {"base": self.context.base()}

    def units(self) -> Iterator[Unit[Case]]:
        """Every rollout."""
        for case in rollout_cases(self.run):
            trajectory, rollout = case.at.trajectory, case.rollout
            seen = (trajectory.instruction, case.at.prefix, trajectory.reward)
            led_to = (rollout.steps, rollout.reward, rollout.success, rollout.end)
            yield Unit(rollout.key, case, (*seen, rollout.action, *led_to))

    async def step(self, unit: Unit[Case], earlier: Critique | None) -> Critique:
        """Ask the base model, at temperature 0."""
        rollout, settings = unit.payload.rollout, self.settings
        shown, by_reward = settings.prompts.history_tokens, settings.critique.verdict == "reward"
        prompt = critique_prompt(unit.payload, self.context.prompts, shown, by_reward)
        sampling = Sampling(max_tokens=settings.critique.max_tokens)
        try:
            (completion,) = await self.engine.generate(prompt, sampling)
        except ContextOverflow:  # the candidate is weighed without a critique
            completion = Completion("", 0, "stop")
        return Critique(
            id=rollout.id,
            step=rollout.step,
            candidate=rollout.candidate,
            action=rollout.action,
            reward=rollout.reward,
            critique=critique_text(prompt, completion.text),
            tokens=completion.tokens,
        )

    def metrics(self, records: Iterable[Critique]) -> Metrics:
        """Tokens written."""
        return Metrics(tokens=sum(record.tokens for record in records))
