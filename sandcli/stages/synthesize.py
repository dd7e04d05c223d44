"""`sand synthesize`: one thought that weighs all candidates and ends in the expert's action. (Method, step 5.)

The thoughts go into thoughts.jsonl, and deliberations.jsonl (D_delib) is the expert trajectories with these
thoughts in place of the originals at flagged steps. Only then: the history that the base model is shown carries
the thoughts of D_exp, h_t = (h_{t-1}, z_t, a_t, o_t).
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager

import msgspec

from sandcli.engines.base import Completion, Engine, Model, Sampling
from sandcli.errors import ContextOverflow
from sandcli.models import fingerprint
from sandcli.prompts import digest as text_digest
from sandcli.prompts import load
from sandcli.react import Message, is_deliberation, normalise, options_of
from sandcli.records import Rollout, Sample, Thought, Trajectory
from sandcli.run import Identity
from sandcli.stages.context import digest
from sandcli.stages.dilemmas import Dilemma, dilemmas, options, question, replacements, way
from sandcli.stages.job import Do, Figures, Job, LeftOut, Unit
from sandcli.stages.switching import switched
from sandcli.stages.writing import CONCLUSION, concluded, fault, judgement
from sandcli.store import Records, read, write_atomic

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
        settings, place = self.context.settings, unit.payload.place
        messages = question(unit.payload, settings, self.context.seed("options", *unit.key))
        opening = messages[-1].content
        guided = settings.synthesize.form == "guided"
        rejected: list[str] = []
        tokens, thought = 0, ""
        for attempt in range(settings.synthesize.attempts):
            seed = self.context.seed("synthesize", *unit.key, attempt)
            temperature = _RETRY_TEMPERATURE if attempt else 0.0
            sampling = Sampling(1, temperature, settings.synthesize.max_tokens, seed, stop=("\n",))
            try:
                if guided:
                    written = await write_guided(engine, messages, unit.payload, sampling)
                else:
                    written = await _write(engine, messages, sampling)
            except ContextOverflow as error:
                rejected.append(str(error))
                break
            tokens += written.tokens
            whole = f"{opening}{concluded(written.text)}"
            why = fault(written.text, written.finish, unit.payload.action, options(unit.payload, whole))
            if why is None and not is_deliberation(whole):
                why = "lists no alternatives"
            if why is None:
                thought = whole
                break
            rejected.append(why)
        return Thought(
            id=place.trajectory.id,
            step=place.step,
            thought=thought,
            attempts=len(rejected) + bool(thought),
            rejected=rejected,
            tokens=tokens,
            candidate=unit.payload.chosen,
        )

    def completed(self, records: Records[Thought]) -> None:
        """Write D_delib: every trajectory that was looked at, switched where it was, deliberations in place."""
        replaced = replacements(self.run, self.context.settings.method)
        lines = (
            msgspec.json.encode(deliberated(t, replaced.get(t.id), _thoughts(t, records))) + b"\n"
            for t in self._looked_at(records)
        )
        write_atomic(self.run.deliberations, lines)

    def _looked_at(self, records: Records[Thought]) -> Iterator[Trajectory]:
        sampled = "sample" in way(self.context.settings.method).needs
        ids = {sample.id for sample in read(self.run.needs("sample"), Sample)} if sampled else set()
        for trajectory in read(self.run.needs("collect"), Trajectory):
            if trajectory.id in ids or (trajectory.id, 0) in records:
                yield trajectory

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
        return figures


def _thoughts(trajectory: Trajectory, records: Records[Thought]) -> dict[int, str]:
    keys = [(trajectory.id, t) for t in range(len(trajectory.steps))]
    found = [records.get(key) for key in keys if key in records]
    return {record.step: record.thought for record in found if record.thought}


def deliberated(trajectory: Trajectory, rollout: Rollout | None, thoughts: dict[int, str]) -> Trajectory:
    """The trajectory with its deliberations, e~; a step without one stays as it was."""
    followed = switched(trajectory, rollout) if rollout else trajectory
    steps = [
        msgspec.structs.replace(step, thought=thoughts[t], deliberated=True) if t in thoughts else step
        for t, step in enumerate(followed.steps)
    ]
    return msgspec.structs.replace(followed, steps=steps)


async def _write(engine: Engine, messages: list[Message], sampling: Sampling) -> Completion:
    """What the base model writes after the opening. Where it stops without a conclusion it is asked to conclude."""
    first = await engine.generate(messages, sampling)
    if first[0].finish == "length" or CONCLUSION in first[0].text:
        return first[0]
    said = f"{first[0].text.rstrip()} {CONCLUSION}"
    (second,) = await engine.generate(_continued(messages, said), sampling)
    decided = second.text.rstrip().rstrip(".") + "." * (second.finish == "stop")
    return Completion(f"{said}{decided}", first[0].tokens + second.tokens, second.finish)


async def write_guided(engine: Engine, messages: list[Message], dilemma: Dilemma, sampling: Sampling) -> Completion:
    """The same, with one sentence asked for on every option first, which begins as its critique judged."""
    said, tokens = "", 0
    sentence = sampling._replace(stop=(*sampling.stop, ". "))
    critiques = {normalise(option.action): option.critique for option in dilemma.options}
    for number, action in enumerate(options_of(messages[-1].content)):
        said += (f' With "{action}" I' if number else "") + judgement(critiques.get(action, ""))
        (part,) = await engine.generate(_continued(messages, said), sentence)
        tokens += part.tokens
        said += f" {part.text.strip().rstrip('.')}."
    rest = await _write(engine, _continued(messages, said), sampling)
    return Completion(f"{said}{rest.text}", tokens + rest.tokens, rest.finish)


def _continued(messages: list[Message], said: str) -> list[Message]:
    return [*messages[:-1], Message("assistant", f"{messages[-1].content}{said}")]


def _digest(dilemma: Dilemma) -> str:
    place = dilemma.place
    weighed = [(option.action, option.critique) for option in dilemma.options]
    return digest(place.trajectory.instruction, place.prefix, dilemma.action, weighed)
