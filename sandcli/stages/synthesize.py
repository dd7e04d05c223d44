"""`sand synthesize`: one thought that weighs all candidates and ends in the expert's action. (Method, step 5.)

The thoughts go into thoughts.jsonl, and deliberations.jsonl (D_delib) is the expert trajectories with these
thoughts in place of the originals at flagged steps. The history that the base model is shown, h_t, tells actions
and observations, without the thoughts.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager

import msgspec

from sandcli.core.context import digest
from sandcli.core.run import Identity, Stage
from sandcli.core.stage import Do, Figures, Job, LeftOut, Unit
from sandcli.core.store import Records, read
from sandcli.engines.base import Engine, Model, Sampling
from sandcli.errors import ContextOverflow
from sandcli.files import write_atomic
from sandcli.method.ablations import Dilemma, dilemmas, passed_over, question, replacements, way
from sandcli.method.deliberation import attempt
from sandcli.method.expert_switch import switched
from sandcli.models import fingerprint
from sandcli.prompts import digest as text_digest
from sandcli.prompts import load
from sandcli.records import Rollout, Sample, Thought, Trajectory

_FAILING: tuple[Stage, ...] = ("sample", "rollout", "critique", "synthesize")
"""Stages whose failures leave a step as it was; its trajectory stays in D_delib, and so in later iterations."""

_RETRY_TEMPERATURE = 0.7
"""The first attempt is greedy, as in the paper; asking again the same way would give the same answer."""


class SynthesizeJob(Job[Dilemma, Thought]):
    """Units are (trajectory, flagged step)."""

    stage = "synthesize"
    record = Thought

    def identity(self) -> Identity:
        """The base model, the prompt, how often it may try, and the critiques."""
        settings, form = self.context.settings, way(self.context.settings.method)
        switch = {"method.switch": settings.method.switch} if settings.method.switch != "never" else {}
        proposed = {"sample.n": str(settings.sample.n)} if form.prompt == "propose" else {}
        return Identity(
            settings={
                "base": fingerprint(self.context.base().folder),
                "synthesize.max_tokens": str(settings.synthesize.max_tokens),
                "synthesize.attempts": str(settings.synthesize.attempts),
                "synthesize.form": settings.synthesize.form,
                "critique.shown_steps": str(settings.critique.shown_steps),
                "run.seed": str(settings.run.seed),
                f"prompt.{form.prompt}": text_digest(load(form.prompt)),
                **switch,
                **proposed,
                **self.context.context(),
            },
            inputs=self.context.inputs(*(self.run.needs(stage) for stage in form.needs)),
            scope={"limit": str(self.context.limit)},
        )

    def model(self) -> Model:
        """pi_base."""
        return self.context.base()

    def plan(self) -> Iterator[Unit[Dilemma]]:
        """Every step to deliberate."""
        for dilemma in dilemmas(self.run, self.context.settings.method):
            place = dilemma.place
            yield Unit((place.trajectory.id, place.step), _digest(dilemma), dilemma)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Do[Dilemma, Thought]]:
        """Load the base model."""
        async with self.context.engine(self.model()) as engine:

            async def do(unit: Unit[Dilemma], earlier: Thought | None) -> Thought | LeftOut:
                return await self._deliberate(engine, unit)

            yield do

    async def _deliberate(self, engine: Engine, unit: Unit[Dilemma]) -> Thought:
        dilemma, settings = unit.payload, self.context.settings
        asked = question(dilemma, settings, self.context.seed("options", *unit.key))
        rejected: list[str] = []
        tokens, thought = 0, ""
        try:
            while not thought and len(rejected) < settings.synthesize.attempts:
                sampling = self._sampling(unit, len(rejected))
                tried = await attempt(engine, asked, dilemma, sampling, settings.synthesize.form == "guided")
                tokens, thought = tokens + tried.tokens, tried.thought
                rejected += [tried.fault] if tried.fault else []
        except ContextOverflow:
            rejected.append("does not fit into the context")
        return Thought(
            id=dilemma.place.trajectory.id,
            step=dilemma.place.step,
            thought=thought,
            attempts=len(rejected) + bool(thought),
            rejected=rejected,
            tokens=tokens,
            candidate=dilemma.chosen,
        )

    def _sampling(self, unit: Unit[Dilemma], attempts: int) -> Sampling:
        seed = self.context.seed("synthesize", *unit.key, attempts)
        temperature = _RETRY_TEMPERATURE if attempts else 0.0
        return Sampling(1, temperature, self.context.settings.synthesize.max_tokens, seed, stop=("\n",))

    def whole(self) -> bool:
        """Whether D_delib is there too; it is made anew from the thoughts where somebody removed it."""
        return self.run.deliberations.exists()

    def completed(self, records: Records[Thought]) -> None:
        """Write D_delib: every trajectory that was looked at, switched where it was, deliberations in place."""
        replaced = replacements(self.run, self.context.settings.method)
        lines = (
            msgspec.json.encode(deliberated(t, replaced.get(t.id), _records(t, records))) + b"\n"
            for t in self._looked_at(records)
        )
        write_atomic(self.run.deliberations, lines)

    def _looked_at(self, records: Records[Thought]) -> Iterator[Trajectory]:
        """Those with a step that was deliberated, those where no step asks for it, and those that machinery failed."""
        ids = {key[0] for key in records.ordered_keys()}
        ids |= {failure.unit[0] for stage in _FAILING for failure in self.run.failures(stage)}
        if "sample" in way(self.context.settings.method).needs:
            flags = [(sample.id, sample.deliberate) for sample in read(self.run.needs("sample"), Sample)]
            ids |= {name for name, _ in flags} - {name for name, flagged in flags if flagged}
        return (trajectory for trajectory in read(self.run.needs("collect"), Trajectory) if trajectory.id in ids)

    def figures(self, records: Iterable[Thought]) -> Figures:
        """How many steps got a deliberation, how many kept their original thought, and why."""
        figures = Figures(counts={"flagged": 0, "deliberated": 0, "kept_original": 0, "switched": 0})
        for record in records:
            figures.tokens += record.tokens
            figures.counts["flagged"] += 1
            figures.counts["switched"] += record.candidate > 0
            figures.counts["deliberated" if record.thought else "kept_original"] += 1
            for reason in record.rejected:
                name = f"rejected: {reason}"
                figures.counts[name] = figures.counts.get(name, 0) + 1
        if unjudged := passed_over(self.run, self.context.settings.method):
            figures.counts["flagged, a critique is missing"] = unjudged
        return figures


def _records(trajectory: Trajectory, records: Records[Thought]) -> list[Thought]:
    keys = [(trajectory.id, t) for t in range(len(trajectory.steps))]
    return [records.get(key) for key in keys if key in records]


def deliberated(trajectory: Trajectory, rollout: Rollout | None, records: Iterable[Thought]) -> Trajectory:
    """The trajectory with its deliberations, e~; a step without one stays as it was."""
    followed = switched(trajectory, rollout) if rollout else trajectory
    thoughts = {record.step: record.thought for record in records if record.thought and _fits(record, rollout)}
    steps = [
        msgspec.structs.replace(step, thought=thoughts[t], deliberated=True) if t in thoughts else step
        for t, step in enumerate(followed.steps)
    ]
    return msgspec.structs.replace(followed, steps=steps)


def _fits(record: Thought, rollout: Rollout | None) -> bool:
    """Whether a thought decides for what is done at its step; one that was kept though stale may not."""
    if rollout is None or record.step < rollout.step:
        return record.candidate == 0
    return (record.step, record.candidate) == (rollout.step, rollout.candidate)


def _digest(dilemma: Dilemma) -> str:
    place = dilemma.place
    weighed = [(option.action, option.critique) for option in dilemma.options]
    return digest(place.trajectory.instruction, place.prefix, dilemma.action, weighed)
