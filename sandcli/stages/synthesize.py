"""`sand synthesize`: one thought that weighs all candidates and ends in the expert's action. (Method, step 5.)

The thoughts go into thoughts.jsonl, and deliberations.jsonl (D_delib) is the expert trajectories with these
thoughts in place of the originals at flagged steps. Only then: the history that the base model is shown carries
the thoughts of D_exp, h_t = (h_{t-1}, z_t, a_t, o_t).
"""

import random
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, closing
from typing import NamedTuple

import msgspec

from sandcli.engines.base import Completion, Engine, Model, Sampling
from sandcli.errors import ContextOverflow
from sandcli.models import fingerprint
from sandcli.prompts import digest as text_digest
from sandcli.prompts import fill, load
from sandcli.react import Message, deliberation_opening, normalise
from sandcli.records import Critique, Sample, Thought, Trajectory
from sandcli.run import Identity, Stage
from sandcli.stages.context import digest
from sandcli.stages.job import Do, Figures, Job, LeftOut, Unit
from sandcli.stages.sample import Place, flagged
from sandcli.stages.writing import CONCLUSION, concluded, fault, told
from sandcli.store import Records, read, write_atomic

_RETRY_TEMPERATURE = 0.7
"""The first attempt is greedy, as in the paper; asking again the same way would give the same answer."""


class Dilemma(NamedTuple):
    """A flagged step with the critiques of all its candidates, the expert's first."""

    place: Place
    critiques: list[Critique]


class SynthesizeJob(Job[Dilemma, Thought]):
    """Units are (trajectory, flagged step)."""

    stage = "synthesize"
    record = Thought

    def identity(self) -> Identity:
        """The base model, the prompt, how often it may try, and the critiques."""
        settings = self.context.settings
        names: tuple[Stage, ...] = ("collect", "sample", "critique")
        return Identity(
            settings={
                "base": fingerprint(self.context.base().folder),
                "synthesize.max_tokens": str(settings.synthesize.max_tokens),
                "synthesize.attempts": str(settings.synthesize.attempts),
                "critique.shown_steps": str(settings.critique.shown_steps),
                "run.seed": str(settings.run.seed),
                "prompt.deliberate": text_digest(load("deliberate")),
                **self.context.context(),
            },
            inputs=self.context.inputs(*(self.run.needs(name) for name in names)),
            scope={"limit": str(self.context.limit)},
        )

    def model(self) -> Model:
        """pi_base."""
        return self.context.base()

    def plan(self) -> Iterator[Unit[Dilemma]]:
        """Every flagged step whose candidates all have a critique."""
        with closing(Records(self.run.needs("critique"), Critique)) as critiques:
            for sample, place in flagged(self.run):
                judged = _judged(sample, critiques)
                if judged:
                    dilemma = Dilemma(place, judged)
                    yield Unit(sample.key, _digest(dilemma), dilemma)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Do[Dilemma, Thought]]:
        """Load the base model."""
        async with self.context.engine(self.model()) as engine:

            async def do(unit: Unit[Dilemma], earlier: Thought | None) -> Thought | LeftOut:
                return await self._deliberate(engine, unit)

            yield do

    async def _deliberate(self, engine: Engine, unit: Unit[Dilemma]) -> Thought:
        settings, place = self.context.settings, unit.payload.place
        messages = question(unit.payload, self.context.seed("options", *unit.key), settings.critique.shown_steps)
        actions = [critique.action for critique in unit.payload.critiques]
        rejected: list[str] = []
        tokens, thought = 0, ""
        for attempt in range(settings.synthesize.attempts):
            seed = self.context.seed("synthesize", *unit.key, attempt)
            temperature = _RETRY_TEMPERATURE if attempt else 0.0
            sampling = Sampling(1, temperature, settings.synthesize.max_tokens, seed, stop=("\n",))
            try:
                written = await _write(engine, messages, sampling)
            except ContextOverflow as error:
                rejected.append(str(error))
                break
            tokens += written.tokens
            why = fault(written.text, written.finish, place.expert.action, actions)
            if why is None:
                thought = f"{messages[-1].content}{concluded(written.text)}"
                break
            rejected.append(why)
        return Thought(
            id=place.trajectory.id,
            step=place.step,
            thought=thought,
            attempts=len(rejected) + bool(thought),
            rejected=rejected,
            tokens=tokens,
        )

    def completed(self, records: Records[Thought]) -> None:
        """Write D_delib: every trajectory that was sampled, deliberations in place."""
        sampled = {sample.id for sample in read(self.run.needs("sample"), Sample)}
        trajectories = (t for t in read(self.run.needs("collect"), Trajectory) if t.id in sampled)
        lines = (msgspec.json.encode(deliberated(t, _thoughts(t, records))) + b"\n" for t in trajectories)
        write_atomic(self.run.deliberations, lines)

    def figures(self, records: Iterable[Thought]) -> Figures:
        """How many steps got a deliberation, how many kept their original thought, and why."""
        figures = Figures(counts={"flagged": 0, "deliberated": 0, "kept_original": 0})
        for record in records:
            figures.tokens += record.tokens
            figures.counts["flagged"] += 1
            figures.counts["deliberated" if record.thought else "kept_original"] += 1
            for reason in record.rejected:
                name = f"rejected: {reason}"
                figures.counts[name] = figures.counts.get(name, 0) + 1
        return figures


def _thoughts(trajectory: Trajectory, records: Records[Thought]) -> dict[int, str]:
    keys = [(trajectory.id, t) for t in range(len(trajectory.steps))]
    found = [records.get(key) for key in keys if key in records]
    return {record.step: record.thought for record in found if record.thought}


def deliberated(trajectory: Trajectory, thoughts: dict[int, str]) -> Trajectory:
    """The trajectory with its deliberations, e~; a step without one stays as it was."""
    steps = [
        msgspec.structs.replace(step, thought=thoughts[t], deliberated=True) if t in thoughts else step
        for t, step in enumerate(trajectory.steps)
    ]
    return msgspec.structs.replace(trajectory, steps=steps)


def question(dilemma: Dilemma, seed: int, shown: int) -> list[Message]:
    """What the base model is asked, with the opening that it has to go on from.

    The candidates come in an order drawn from the seed: were the expert's always first, a reader could learn to
    take the first.
    """
    place = dilemma.place
    order = random.Random(seed).sample(dilemma.critiques, len(dilemma.critiques))
    asked = fill(
        "deliberate",
        instruction=place.trajectory.instruction,
        history=told(place.prefix, shown),
        candidates="\n".join(f"({n}) {c.action}: {c.critique}" for n, c in enumerate(order, 1)),
        action=place.expert.action,
    )
    opening = f'{deliberation_opening([c.action for c in order])} With "{order[0].action}" I'
    return [*asked, Message("assistant", opening)]


async def _write(engine: Engine, messages: list[Message], sampling: Sampling) -> Completion:
    """What the base model writes after the opening. Where it stops without a conclusion it is asked to conclude."""
    first = await engine.generate(messages, sampling)
    if first[0].finish == "length" or CONCLUSION in first[0].text:
        return first[0]
    said = f"{first[0].text.rstrip()} {CONCLUSION}"
    again = [*messages[:-1], Message("assistant", f"{messages[-1].content}{said}")]
    (second,) = await engine.generate(again, sampling)
    decided = second.text.rstrip().rstrip(".") + "." * (second.finish == "stop")
    return Completion(f"{said}{decided}", first[0].tokens + second.tokens, second.finish)


def _judged(sample: Sample, critiques: Records[Critique]) -> list[Critique]:
    """The critiques of a step's candidates; none where there is not one of each, and of nothing else."""
    keys = [(sample.id, sample.step, number) for number in range(len(sample.candidates) + 1)]
    found = [critiques.get(key) for key in keys if key in critiques]
    whole = [normalise(critique.action) for critique in found] == [c.action for c in sample.candidates]
    return found if whole else []


def _digest(dilemma: Dilemma) -> str:
    place = dilemma.place
    judged = [(c.action, c.critique) for c in dilemma.critiques]
    return digest(place.trajectory.instruction, place.prefix, place.expert.action, judged)
