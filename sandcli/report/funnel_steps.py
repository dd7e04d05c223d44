"""Reads which steps of a run passed each filter of the method. Keys and reasons are kept in memory, no texts."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import NamedTuple

from sandcli.agent.turns import normalise
from sandcli.core.artifact import StageName
from sandcli.core.run import D_DELIB, Run
from sandcli.errors import SandError
from sandcli.method.ablations import Variant
from sandcli.models import fingerprint
from sandcli.records import Key
from sandcli.report.funnel import FLAGGED, Funnel, Passed, filtered
from sandcli.terminal import visible


def read_funnel(run: Run, variant: Variant) -> Funnel | None:
    """The funnel of a run; None if it makes no deliberations, or nothing from its expert trajectories yet.

    Filters whose artifact is missing or damaged are left out, and a note says so.
    """
    if variant == "deliberations":
        return None
    passed: list[Passed] = []
    left_out: dict[str, list[str]] = {}
    reader = _Reader(run)
    for name, read in reader.filters(variant).items():
        try:
            passed.append(read())
        except SandError as error:
            left_out.setdefault(visible(f"{error.what}: {error.fix}"), []).append(name)
    if len(passed) < 2:
        return None
    notes = [f"Left out: {', '.join(names)} ({why})." for why, names in left_out.items()]
    return Funnel(filtered(passed), [*notes, *reader.notes, *_training_notes(run)])


class _Samples(NamedTuple):
    """The candidates of every flagged step, and why the other sampled steps are not flagged."""

    flagged: dict[Key, list[str]]
    others: dict[Key, str]


class _Reader:
    """Reads the artifacts of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.notes: list[str] = []

    def filters(self, variant: Variant) -> dict[str, Callable[[], Passed]]:
        """How the filters of the method, or of an ablation, are read, in order."""
        sampling: dict[str, Callable[[], Passed]] = {"sampled": self._sampled, FLAGGED: self._flagged}
        execution = {"rolled out": partial(self._complete, "rollout", "rolled out")}
        critique = {"critiqued": partial(self._complete, "critique", "critiqued")}
        return {
            "expert steps": self._expert_steps,
            **(sampling if variant != "sampling" else {}),
            **(execution if variant in ("none", "outcomes") else {}),
            **(critique if variant == "none" else {}),
            "deliberated": self._deliberated,
            "in D_delib": self._in_d_delib,
        }

    def _expert_steps(self) -> Passed:
        steps: set[Key] = {(made.id, t) for made in self._run.trajectories() for t in range(len(made.steps))}
        return Passed("expert steps", steps, lambda _: "")

    @cached_property
    def _samples(self) -> _Samples:
        samples = _Samples({}, {})
        for sample in self._run.samples():
            if sample.deliberate:
                samples.flagged[sample.key] = [candidate.action for candidate in sample.candidates]
            elif sample.samples:
                samples.others[sample.key] = "every sample is the expert's action"
            else:
                samples.others[sample.key] = "no sample can be read" if sample.drawn else "the history is too long"
        return samples

    def _sampled(self) -> Passed:
        steps = self._samples.flagged.keys() | self._samples.others.keys()
        return Passed("sampled", steps, _reason(self._failed("sample"), "not sampled"))

    def _flagged(self) -> Passed:
        return Passed(FLAGGED, set(self._samples.flagged), _reason(self._samples.others, "not sampled"))

    def _complete(self, stage: StageName, name: str) -> Passed:
        """The flagged steps that have a record of every candidate."""
        flagged, found = self._samples.flagged, Counter[Key]()
        for record in self._run.artifact(stage).records():
            key, actions = (record.id, record.step), flagged.get((record.id, record.step), [])
            found[key] += actions[record.candidate : record.candidate + 1] == [normalise(record.action)]
        steps = {key for key, actions in flagged.items() if found[key] == len(actions)}
        return Passed(name, steps, _reason(self._failed(stage), f"not {name}"))

    def _deliberated(self) -> Passed:
        steps: set[Key] = set()
        why = self._failed("synthesize")
        for thought in self._run.thoughts():
            if thought.thought:
                steps.add(thought.key)
            elif thought.rejected:
                why[thought.key] = thought.rejected[-1]
        return Passed("deliberated", steps, _reason(why, "no deliberation was asked for"))

    def _in_d_delib(self) -> Passed:
        """The steps whose deliberation is in D_delib; a note counts the other deliberations there."""
        thoughts, steps, held, others = self._run.thoughts(), set[Key](), set[str](), 0
        for made in self._run.deliberations():
            held.add(made.id)
            for t, step in enumerate(made.steps):
                if not step.deliberated:
                    continue
                if any(thought.thought == step.thought for thought in thoughts.having([(made.id, t)])):
                    steps.add((made.id, t))
                else:
                    others += 1
        if others:
            self.notes.append(f"D_delib has {others:,} more deliberated steps, of earlier iterations or of rollouts.")
        return Passed("in D_delib", steps, lambda key: _not_in_d_delib(str(key[0]) in held))

    def _failed(self, stage: StageName) -> dict[Key, str]:
        """The steps with a unit that failed for technical reasons."""
        return {failure.key[:2]: f"failed: {failure.reason}" for failure in self._run.artifact(stage).failures()}


def _reason(known: dict[Key, str], otherwise: str) -> Callable[[Key], str]:
    return lambda key: visible(known.get(key, otherwise))


def _not_in_d_delib(held: bool) -> str:
    return "the expert was switched" if held else "its trajectory is left out"


def _training_notes(run: Run) -> Iterator[str]:
    """How the data of the training differ from D_delib as it is."""
    made, data = run.artifact("train").manifest(), run.artifact("synthesize").derived[D_DELIB]
    if made is None:
        return
    if data.exists() and made.identity.settings.get("data") != fingerprint(data):
        yield f"The model was trained on other data than {D_DELIB} holds now."
    if made.identity.limit is not None:
        yield f"The model was trained on the first {made.identity.limit} trajectories of D_delib only."
    if long := made.counts.get("too_long", 0):
        yield f"Training left out or cut {long} trajectories of D_delib that were too long."
