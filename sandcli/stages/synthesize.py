"""`sand synthesize`: one thought that weighs all candidates and ends in the expert's action. (Eq. 6.)

The thoughts go into thoughts.jsonl, and D_delib is derived from them. The history that the base model is shown holds
actions and observations, no thoughts.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sandcli.core.artifact import StageName
from sandcli.core.run import D_DELIB
from sandcli.core.stage import Metrics, Stage, State, Unit
from sandcli.engines.base import Model, Sampling
from sandcli.errors import ContextOverflow
from sandcli.method.ablations import PROMPTS, Variant, after_switches, every_step, judged, unjudged, variant_of
from sandcli.method.d_delib import d_delib, undeliberated
from sandcli.method.deliberation import Asking, FlaggedStep, deliberation_prompt
from sandcli.method.early_experience import mixed, observed
from sandcli.method.writing import attempt
from sandcli.records import Thought, Trajectory, as_lines
from sandcli.stages.inputs import flagged_samples, replacements

_LOOKS: tuple[StageName, ...] = ("sample", "rollout", "critique", "synthesize")
"""Stages whose failed units leave a step as it was."""

_NEEDS: Mapping[Variant, tuple[StageName, ...]] = {
    "none": ("sample", "critique"),
    "critique": ("sample",),
    "outcomes": ("sample", "rollout"),
}
"""What the variants read besides D_exp."""

_RETRY_TEMPERATURE = 0.7
"""The first attempt is greedy (the paper does not say); asking again in the same way would give the same answer."""


class SynthesizeStage(Stage[FlaggedStep, Thought]):
    """Units are (trajectory, flagged step)."""

    name = "synthesize"
    tables = ("run", "method", "prompts", "synthesize", "engine")

    @property
    def _variant(self) -> Variant:
        return variant_of(self.settings.method.name, self.settings.method.without)

    @property
    def prompts(self) -> tuple[str, ...]:  # type: ignore[override]
        """The prompt of the variant, if it has one."""
        prompt = PROMPTS.get(self._variant)
        return (prompt,) if prompt else ()

    def reads(self) -> tuple[Path, ...]:
        """D_exp, and what the variant and the switch need."""
        switch: tuple[StageName, ...] = ("rollout",) if self.settings.method.switch != "never" else ()
        stages = ("collect", *_NEEDS.get(self._variant, ()), *switch)
        return tuple(self.run.artifact(stage).require() for stage in stages)

    def models(self) -> dict[str, Model]:
        """pi_base, if there is a question to ask."""
        return {"base": self.context.base()} if self.prompts else {}

    def depends_on(self) -> dict[str, str]:
        """Without sampling, how many alternatives the base model is asked for."""
        proposed = self._variant == "sampling"
        return {"sample.n": str(self.context.settings.sample.n)} if proposed else {}

    def units(self) -> Iterator[Unit[FlaggedStep]]:
        """Every step to deliberate."""
        for flagged in after_switches(self._flagged(), replacements(self.run, self.settings.method.switch)):
            at, weighed = flagged.at, [(option.action, option.note) for option in flagged.options]
            depends_on = (at.trajectory.instruction, at.prefix, flagged.action, weighed)
            yield Unit((at.trajectory.id, at.t), flagged, depends_on)

    def _flagged(self) -> Iterable[FlaggedStep]:
        match self._variant:
            case "sampling":
                return every_step(self.run.trajectories())
            case "critique":
                return unjudged(flagged_samples(self.run))
            case "deliberations":
                return ()
            case "outcomes":
                return observed(flagged_samples(self.run), self.run.rollouts())
        return judged(flagged_samples(self.run), self.run.critiques())

    def check(self, state: State) -> None:
        """Raise `UsageError` if the failed units of an earlier stage are unknown: D_delib depends on them."""
        for stage in _LOOKS:
            if stage != self.name:
                self.run.artifact(stage).failures()

    async def step(self, unit: Unit[FlaggedStep], earlier: Thought | None) -> Thought:
        """Ask the base model until a thought passes the checks, or the attempts are used up."""
        flagged, settings = unit.payload, self.settings.synthesize
        shown, others = self.settings.prompts.history_tokens, self.context.settings.sample.n
        asking = Asking(self.context.prompts, self.prompts[0], shown, others)
        question = deliberation_prompt(flagged, asking, self.seed("options", *unit.key))
        rejected: list[str] = []
        thought, tokens = "", 0
        try:
            while not thought and len(rejected) < settings.attempts:
                sampling = self._sampling(unit, len(rejected))
                tried = await attempt(self.engine, question, flagged, sampling, settings.form == "guided")
                tokens, thought = tokens + tried.tokens, tried.thought
                rejected += [tried.rejected] if tried.rejected else []
        except ContextOverflow:
            rejected.append("does not fit into the context")
        return Thought(
            id=flagged.at.trajectory.id,
            step=flagged.at.t,
            thought=thought,
            attempts=len(rejected) + bool(thought),
            rejected=rejected,
            tokens=tokens,
            candidate=flagged.chosen,
        )

    def _sampling(self, unit: Unit[FlaggedStep], attempts: int) -> Sampling:
        seed = self.seed("synthesize", *unit.key, attempts)
        temperature = _RETRY_TEMPERATURE if attempts else 0.0
        return Sampling(1, temperature, self.settings.synthesize.max_tokens, seed)

    def derive(self, records: Iterable[Thought]) -> dict[str, Iterable[bytes]]:
        """D_delib; with reflections (Early Experience), the experts' own trajectories as well."""
        return {D_DELIB: as_lines(self._d_delib(records))}

    def _d_delib(self, thoughts: Iterable[Thought]) -> Iterator[Trajectory]:
        run, variant = self.run, self._variant
        replaced = replacements(run, self.settings.method.switch)
        if variant == "deliberations":
            return undeliberated(run.trajectories(), replaced)
        samples = run.samples() if variant != "sampling" else ()
        failed = (str(failure.unit[0]) for stage in _LOOKS for failure in run.artifact(stage).failures())
        made = d_delib(run.trajectories(), thoughts, samples, failed, replaced)
        return mixed(run.trajectories(), made) if variant == "outcomes" else made

    def metrics(self, records: Iterable[Thought]) -> Metrics:
        """How many steps got a deliberation, how many kept their original thought, and why."""
        if self._variant == "deliberations":
            return Metrics(counts={"switched": len(replacements(self.run, self.settings.method.switch))})
        metrics = Metrics(counts={"flagged": 0, "deliberated": 0, "kept_original": 0, "switched": 0})
        for record in records:
            metrics.tokens += record.tokens
            metrics.counts["flagged"] += 1
            metrics.counts["switched"] += record.candidate > 0
            metrics.counts["deliberated" if record.thought else "kept_original"] += 1
            for reason in record.rejected:
                name = f"rejected: {reason}"
                metrics.counts[name] = metrics.counts.get(name, 0) + 1
        if missing := self._unknown():
            needed = "rollout" if self._variant == "outcomes" else "critique"
            metrics.counts[f"flagged, a {needed} is missing"] = missing
        return metrics

    def _unknown(self) -> int:
        """Flagged steps that are not deliberated: of a limit or failures, a candidate has no critique (or rollout)."""
        if self._variant not in ("none", "outcomes"):
            return 0
        return sum(1 for _ in flagged_samples(self.run)) - sum(1 for _ in self._flagged())
