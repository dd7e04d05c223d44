"""`sand sample`: where is the agent of two minds? (Method, step 1 and Eq. 4.)

At every step t of every expert trajectory, N turns are drawn from pi_k(. | h_{t-1}); the step is flagged when
the drawn actions and the expert's are not all the same.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, closing
from typing import NamedTuple

from sandcli.agent.turns import conversation, normalise, parse
from sandcli.core.context import digest
from sandcli.core.run import Identity, Run, Stage
from sandcli.core.stage import Do, Figures, Job, LeftOut, Unit
from sandcli.core.store import Records, read
from sandcli.engines.base import Model, Sampling
from sandcli.errors import ContextOverflow, PrerequisiteError
from sandcli.models import fingerprint
from sandcli.prompts import digest as text_digest
from sandcli.records import Candidate, Draw, Sample, Step, Trajectory

STOP = ("\nObservation:",)
"""An agent that goes on to invent the world's answer is stopped there."""


class Place(NamedTuple):
    """A step of an expert trajectory."""

    trajectory: Trajectory
    step: int

    @property
    def prefix(self) -> list[Step]:
        """The steps before it; with the instruction they are h_{t-1}."""
        return self.trajectory.steps[: self.step]

    @property
    def expert(self) -> Step:
        """What the expert did there."""
        return self.trajectory.steps[self.step]


def refuse_unlike(run: Run, trajectory: Trajectory, step: int, action: str, stage: Stage) -> None:
    """Raise where a later artifact speaks of another expert trajectory than the one that is there now."""
    if step < len(trajectory.steps) and normalise(trajectory.steps[step].action) == normalise(action):
        return
    raise PrerequisiteError(
        f"{run.artifact(stage)} was made from other expert trajectories: {trajectory.id}, step {step}",
        f"sand {stage} --run {run.root} --force",
    )


def flagged(run: Run) -> Iterator[tuple[Sample, Place]]:
    """The inconsistent steps (Eq. 4), each of which must speak of the expert trajectory that is there now."""
    with closing(Records(run.needs("collect"), Trajectory)) as trajectories:
        for sample in read(run.needs("sample"), Sample):
            if sample.deliberate and (sample.id,) in trajectories:
                trajectory = trajectories.get((sample.id,))
                refuse_unlike(run, trajectory, sample.step, sample.expert_action, "sample")
                yield sample, Place(trajectory, sample.step)


class SampleJob(Job[Place, Sample]):
    """Units are (trajectory, step)."""

    stage = "sample"
    record = Sample

    @property
    def sequences(self) -> int:  # type: ignore[override]
        """N turns at once."""
        return self.context.settings.sample.n

    def identity(self) -> Identity:
        """The policy, how it is sampled, and D_exp."""
        settings = self.context.settings
        return Identity(
            settings={
                "policy": fingerprint(self.model().folder),
                "sample.temperature": str(settings.sample.temperature),
                "agent.max_tokens": str(settings.agent.max_tokens),
                "run.seed": str(settings.run.seed),
                "prompt.instruction": text_digest(self.context.world.system),
                **self.context.context(),
            },
            inputs=self.context.inputs(self.run.needs("collect")),
            scope={"n": str(settings.sample.n), "limit": str(self.context.limit)},
        )

    def model(self) -> Model:
        """pi_k."""
        return self.context.policy()

    def plan(self) -> Iterator[Unit[Place]]:
        """Every step of every expert trajectory."""
        for trajectory in read(self.run.needs("collect"), Trajectory):
            for t, step in enumerate(trajectory.steps):
                seen = digest(trajectory.instruction, trajectory.steps[:t], step.action)
                yield Unit((trajectory.id, t), seen, Place(trajectory, t))

    def satisfied(self, unit: Unit[Place], record: Sample) -> bool:
        """Enough turns were drawn, or none can be."""
        return record.drawn >= self.context.settings.sample.n or record.drawn == 0

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Do[Place, Sample]]:
        """Load the policy."""
        settings, system = self.context.settings, self.context.world.system
        async with self.context.engine(self.model()) as engine:

            async def do(unit: Unit[Place], earlier: Sample | None) -> Sample | LeftOut:
                place = unit.payload
                drawn = earlier.drawn if earlier else 0
                sampling = Sampling(
                    n=settings.sample.n - drawn,
                    temperature=settings.sample.temperature,
                    max_tokens=settings.agent.max_tokens,
                    seed=self.context.seed("sample", *unit.key) + drawn,
                    stop=STOP,
                )
                history = conversation(system, place.trajectory.instruction, place.prefix)
                try:
                    completions = await engine.generate(history, sampling)
                except ContextOverflow:
                    return gather(place, [], 0)
                turns = [(parse(c.text), c.tokens) for c in completions]
                draws = [Draw(thought=t.thought, action=t.action, tokens=n) for t, n in turns if t]
                return gather(place, [*(earlier.samples if earlier else []), *draws], settings.sample.n)

            yield do

    def figures(self, records: Iterable[Sample]) -> Figures:
        """Flagged steps, unparsable turns, and steps that do not fit the context."""
        figures = Figures(counts={"flagged": 0, "unparsable": 0, "context_overflow": 0})
        for record in records:
            figures.counts["flagged"] += record.deliberate
            figures.counts["unparsable"] += record.unparsable
            figures.counts["context_overflow"] += record.drawn == 0
            figures.tokens += sum(draw.tokens for draw in record.samples)
        return figures


def gather(place: Place, draws: list[Draw], drawn: int) -> Sample:
    """The record of a step: unique normalised actions with counts, the expert's first, flagged by Eq. 4.

    Algorithm 1 as printed skips a step when its action set is empty, which never happens; Eq. 4 skips it when
    the set, which includes the expert's action, has one member.
    """
    expert = normalise(place.expert.action)
    counts = Counter({expert: 0})
    counts.update(normalise(draw.action) for draw in draws)
    return Sample(
        id=place.trajectory.id,
        step=place.step,
        expert_action=place.expert.action,
        samples=draws,
        drawn=drawn,
        unparsable=drawn - len(draws),
        candidates=[Candidate(action=action, count=count) for action, count in counts.items()],
        deliberate=len(counts) > 1,
    )
