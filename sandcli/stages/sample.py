"""`sand sample`: at every step of every expert trajectory, sample N turns from the policy. (Algorithm 1; Eq. 4.)

At step t, N completions are drawn from pi_k(. | h_{t-1}). The step is flagged if the sampled actions and the expert's
are not all the same.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from sandcli.agent.conversation import STOP, conversation
from sandcli.agent.turns import parse
from sandcli.core.stage import Metrics, Stage, State, Unit
from sandcli.engines.base import Model, Sampling
from sandcli.errors import ContextOverflow
from sandcli.method.inconsistency import ExpertStep, sample_record
from sandcli.records import Draw, Sample, Trajectory
from sandcli.stages.inputs import COLLECT_MORE, must_hold, preamble_too_long


class SampleStage(Stage[ExpertStep, Sample]):
    """Units are (trajectory, step)."""

    name = "sample"
    tables = ("run", "sample", "agent", "engine")
    prompts = ("preamble",)

    def reads(self) -> tuple[Path, ...]:
        """D_exp."""
        return (self.run.artifact("collect").require(),)

    def models(self) -> dict[str, Model]:
        """pi_k."""
        return {"policy": self.context.policy()}

    def units(self) -> Iterator[Unit[ExpertStep]]:
        """Every step of every expert trajectory."""
        for trajectory in self.run.trajectories():
            for t, step in enumerate(trajectory.steps):
                depends_on = (trajectory.instruction, trajectory.steps[:t], step.action)
                yield Unit((trajectory.id, t), ExpertStep(trajectory, t), depends_on)

    def check(self, state: State) -> None:
        """Raise `UsageError` for an empty D_exp: every later stage would finish without doing anything."""
        must_hold(self.run.artifact("collect").require(), Trajectory, COLLECT_MORE)

    def satisfied(self, unit: Unit[ExpertStep], record: Sample) -> bool:
        """Enough turns were sampled, or none can be."""
        return record.drawn >= self.settings.sample.n or record.drawn == 0

    async def step(self, unit: Unit[ExpertStep], earlier: Sample | None) -> Sample:
        """Sample the turns that are missing."""
        at, n = unit.payload, self.settings.sample.n
        before = earlier.samples if earlier else []
        drawn = earlier.drawn if earlier else 0
        history = conversation(self.context.preamble, at.trajectory.instruction, at.prefix)
        seed = self.seed("sample", *unit.key) + drawn
        sampling = Sampling(n - drawn, self.settings.sample.temperature, self.settings.agent.max_tokens, seed, STOP)
        try:
            completions = await self.engine.generate(history, sampling)
        except ContextOverflow:
            if at.t == 0:
                raise preamble_too_long(at.trajectory.id) from None
            return sample_record(at, [], drawn=0)
        turns = [(parse(completion.text, self.settings.agent), completion.tokens) for completion in completions]
        draws = [Draw(thought=turn.thought, action=turn.action, tokens=tokens) for turn, tokens in turns if turn]
        return sample_record(at, [*before, *draws], drawn=n)

    @property
    def sequences(self) -> int:
        """N turns at once."""
        return self.settings.sample.n

    def metrics(self, records: Iterable[Sample]) -> Metrics:
        """Flagged steps, turns that could not be read, and steps that do not fit into the context."""
        metrics = Metrics(counts={"flagged": 0, "unparsable": 0, "context_overflow": 0})
        for record in records:
            metrics.counts["flagged"] += record.deliberate
            metrics.counts["unparsable"] += record.unparsable
            metrics.counts["context_overflow"] += record.drawn == 0
            metrics.tokens += sum(draw.tokens for draw in record.samples)
        return metrics
