"""`sand critique`: the frozen base model judges each candidate from what its rollout led to. (Method, step 4.)"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, closing
from typing import NamedTuple

from sandcli.core.context import digest
from sandcli.core.run import Identity
from sandcli.core.stage import Do, Figures, Job, LeftOut, Unit
from sandcli.core.store import Records, read
from sandcli.engines.base import Completion, Model, Sampling
from sandcli.errors import ContextOverflow
from sandcli.messages import Message
from sandcli.method.texts import sentences, told
from sandcli.models import fingerprint
from sandcli.prompts import digest as text_digest
from sandcli.prompts import fill, load
from sandcli.records import Critique, Rollout, Trajectory
from sandcli.settings import CritiqueSettings
from sandcli.stages.sample import Place, refuse_unlike

_SENTENCES = 3


class Case(NamedTuple):
    """A rollout and the place it branched from."""

    place: Place
    rollout: Rollout


class CritiqueJob(Job[Case, Critique]):
    """Units are (trajectory, step, candidate)."""

    stage = "critique"
    record = Critique

    def identity(self) -> Identity:
        """The base model, the prompt, and the rollouts."""
        settings = self.context.settings.critique
        return Identity(
            settings={
                "base": fingerprint(self.context.base().folder),
                "critique.max_tokens": str(settings.max_tokens),
                "critique.shown_steps": str(settings.shown_steps),
                "critique.verdict": settings.verdict,
                "prompt.critique": text_digest(load("critique")),
                **self.context.context(),
            },
            inputs=self.context.inputs(self.run.needs("collect"), self.run.needs("rollout")),
            scope={"limit": str(self.context.limit)},
        )

    def model(self) -> Model:
        """pi_base."""
        return self.context.base()

    def plan(self) -> Iterator[Unit[Case]]:
        """Every rollout."""
        with closing(Records(self.run.needs("collect"), Trajectory)) as trajectories:
            for rollout in read(self.run.needs("rollout"), Rollout):
                if (rollout.id,) not in trajectories:
                    continue
                trajectory = trajectories.get((rollout.id,))
                if rollout.expert:
                    refuse_unlike(self.run, trajectory, rollout.step, rollout.action, "rollout")
                case = Case(Place(trajectory, rollout.step), rollout)
                yield Unit(rollout.key, _digest(case), case)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Do[Case, Critique]]:
        """Load the base model."""
        settings = self.context.settings.critique
        async with self.context.engine(self.model()) as engine:

            async def do(unit: Unit[Case], earlier: Critique | None) -> Critique | LeftOut:
                rollout = unit.payload.rollout
                sampling = Sampling(max_tokens=settings.max_tokens, stop=("\n",))
                messages = question(unit.payload, settings)
                try:
                    (completion,) = await engine.generate(messages, sampling)
                except ContextOverflow:  # the candidate is weighed without
                    completion = Completion("", 0, "stop")
                return Critique(
                    id=rollout.id,
                    step=rollout.step,
                    candidate=rollout.candidate,
                    action=rollout.action,
                    reward=rollout.reward,
                    critique=sentences(f"{messages[-1].content}{completion.text}", _SENTENCES)
                    if completion.text
                    else "",
                    tokens=completion.tokens,
                )

            yield do

    def figures(self, records: Iterable[Critique]) -> Figures:
        """Tokens written."""
        return Figures(tokens=sum(record.tokens for record in records))


def question(case: Case, settings: CritiqueSettings) -> list[Message]:
    """What the base model is asked about one candidate, with the words that it has to go on from."""
    place, rollout = case
    shown, verdict = settings.shown_steps, f" {_verdict(case)}, because" if settings.verdict == "reward" else ""
    asked = fill(
        "critique",
        instruction=place.trajectory.instruction,
        history=told(place.prefix, shown),
        action=rollout.action,
        observation=told(rollout.steps[:1], shown),
        rollout=told(rollout.steps[1:], shown),
        ending=_ending(place, rollout),
    )
    return [*asked, Message("assistant", f'With "{rollout.action}" I{verdict}')]


def _verdict(case: Case) -> str:
    """What the rewards say: progress, and as much as the expert's; an end before that; or neither."""
    place, rollout = case
    if _gained(place, rollout) and rollout.reward >= place.trajectory.reward:
        return "advanced the task"
    return "hindered the task" if rollout.end == "done" else "did not affect the task"


def _ending(place: Place, rollout: Rollout) -> str:
    if rollout.success:
        return "the task was completed."
    if rollout.end == "done":
        return f"the task failed (score {rollout.reward:.2f})."
    gained = "some progress was made" if _gained(place, rollout) else "no progress was made"
    return f"the task was not completed, and {gained} (score {rollout.reward:.2f})."


def _gained(place: Place, rollout: Rollout) -> bool:
    """Whether it came to a better score than there was before the candidate."""
    return rollout.reward > max((step.score for step in place.prefix), default=0.0)


def _digest(case: Case) -> str:
    rollout = case.rollout
    return digest(case.place.trajectory.instruction, case.place.prefix, rollout.action, rollout.steps, rollout.reward)
