"""Which steps are deliberated, among which actions, and what the base model is asked about them.

The method weighs the sampled actions by their critiques. Its ablations (paper, Table 3) go without: `critique`
weighs the sampled actions as they are, `sampling` lets the base model think of the others, at every step.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Literal, NamedTuple

from sandcli.agent.turns import deliberation_opening, normalise, options_of
from sandcli.core.run import Run, Stage
from sandcli.core.store import Records, read
from sandcli.messages import Message
from sandcli.method.expert_switch import switches
from sandcli.method.texts import told
from sandcli.prompts import fill
from sandcli.records import Critique, Rollout, Trajectory
from sandcli.settings import MethodSettings, Settings
from sandcli.stages.sample import Place, flagged


class Option(NamedTuple):
    """An action that is weighed; `critique` is empty where there is none."""

    action: str
    critique: str = ""


class Dilemma(NamedTuple):
    """A step to deliberate.

    `options` are the candidates, the expert's first; the thought is to end in number `chosen`: the expert's, unless
    the expert was switched. Where the base model proposes the options itself, only the expert's is there.
    """

    place: Place
    options: list[Option]
    chosen: int = 0

    @property
    def action(self) -> str:
        """What the thought is to end in."""
        return self.options[self.chosen].action


class Way(NamedTuple):
    """One form of the method: the prompt, the stages that say what is deliberated, and what they say."""

    prompt: str
    needs: tuple[Stage, ...]
    found: Callable[[Run], Iterator[Dilemma]]


def way(method: MethodSettings) -> Way:
    """The form that the settings ask for."""
    chosen = WAYS[method.without]
    return chosen if method.switch == "never" else chosen._replace(needs=(*chosen.needs, "rollout"))


def dilemmas(run: Run, method: MethodSettings) -> Iterator[Dilemma]:
    """Every step to deliberate, in order. What follows a switch was not sampled: the next iteration looks at it."""
    form, replaced = way(method), replacements(run, method)
    for dilemma in form.found(run):
        rollout, step = replaced.get(dilemma.place.trajectory.id), dilemma.place.step
        if rollout is None or step < rollout.step:
            yield dilemma
        elif step == rollout.step:
            yield dilemma._replace(chosen=rollout.candidate)


def replacements(run: Run, method: MethodSettings) -> Mapping[str, Rollout]:
    """The rollouts that replace the rest of an expert trajectory, by trajectory."""
    if method.switch == "never":
        return {}
    trajectories = {trajectory.id: trajectory for trajectory in read(run.needs("collect"), Trajectory)}
    return switches(trajectories, read(run.needs("rollout"), Rollout), method.switch)


def passed_over(run: Run, method: MethodSettings) -> int:
    """Flagged steps that are not deliberated, since a candidate has no critique: of a limit, or of failures."""
    if method.without != "none":
        return 0
    return sum(1 for _ in flagged(run)) - sum(1 for _ in _judged(run))


def _judged(run: Run) -> Iterator[Dilemma]:
    """Flagged steps whose candidates all have a critique."""
    with closing(Records(run.needs("critique"), Critique)) as critiques:
        for sample, place in flagged(run):
            keys = [(sample.id, sample.step, number) for number in range(len(sample.candidates) + 1)]
            found = [critiques.get(key) for key in keys if key in critiques]
            if [normalise(critique.action) for critique in found] == [c.action for c in sample.candidates]:
                yield Dilemma(place, [Option(c.action, c.critique) for c in found])


def _sampled(run: Run) -> Iterator[Dilemma]:
    """Flagged steps, with nothing known of their candidates but the actions."""
    for sample, place in flagged(run):
        others = [Option(candidate.action) for candidate in sample.candidates[1:]]
        yield Dilemma(place, [Option(place.expert.action), *others])


def _every(run: Run) -> Iterator[Dilemma]:
    """Every step: without samples nothing tells where the agent is of two minds."""
    for trajectory in read(run.needs("collect"), Trajectory):
        for t, step in enumerate(trajectory.steps):
            yield Dilemma(Place(trajectory, t), [Option(step.action)])


WAYS: Mapping[Literal["none", "sampling", "critique"], Way] = {
    "none": Way("deliberate", ("collect", "sample", "critique"), _judged),
    "critique": Way("compare", ("collect", "sample"), _sampled),
    "sampling": Way("propose", ("collect",), _every),
}
"""The forms by what they go without."""


class Question(NamedTuple):
    """What the base model is asked, ending in the opening that it has to go on from, which lists `order`."""

    messages: list[Message]
    order: list[Option]


def question(dilemma: Dilemma, settings: Settings, seed: int) -> Question:
    """Ask for a deliberation.

    The candidates come in an order drawn from the seed: were the expert's always first, a reader could learn to
    take the first. Where the base model is to propose the options there is no order.
    """
    place, proposed = dilemma.place, settings.method.without == "sampling"
    order = [] if proposed else random.Random(seed).sample(dilemma.options, len(dilemma.options))
    asked = fill(
        way(settings.method).prompt,
        instruction=place.trajectory.instruction,
        history=told(place.prefix, settings.critique.shown_steps),
        candidates="\n".join(f"({n}) {_line(option)}" for n, option in enumerate(order, 1)),
        others=str(settings.sample.n),
        action=dilemma.action,
    )
    opening = deliberation_opening([option.action for option in order])
    first = f' With "{order[0].action}" I' if order else ""
    return Question([*asked, Message("assistant", opening + first)], order)


def options(dilemma: Dilemma, thought: str) -> list[str]:
    """The actions that a thought weighs: the candidates, or those that it proposes itself."""
    known = [option.action for option in dilemma.options]
    return known if len(known) > 1 else options_of(thought)


def _line(option: Option) -> str:
    return f"{option.action}: {option.critique}" if option.critique else option.action
