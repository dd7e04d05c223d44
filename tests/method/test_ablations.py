"""Which steps are deliberated, among which actions: the whole method, and the ablations of the paper's Table 3."""

from collections.abc import Iterator

from sandcli.method.ablations import after_switches, every_step, judged, unjudged
from sandcli.method.deliberation import FlaggedStep, Option
from sandcli.method.inconsistency import ExpertStep, sample_record
from sandcli.records import Critique, Draw, Key, Sample
from tests.method.made_up import DETOUR, rollout, trajectory


class Written(list[Critique]):
    """Critiques in memory."""

    def having(self, keys: list[Key]) -> list[Critique]:
        return [critique for critique in self if critique.key in keys]


def flagged(t: int, *sampled: str) -> Iterator[tuple[Sample, ExpertStep]]:
    at = ExpertStep(trajectory(), t)
    draws = [Draw(thought="", action=action, tokens=1) for action in sampled]
    yield sample_record(at, draws, len(draws)), at


def critique(t: int, candidate: int, action: str) -> Critique:
    return Critique(id="a", step=t, candidate=candidate, action=action, reward=0.5, critique=f"{action}!", tokens=1)


def test_judged_step_holds_a_critique_of_every_candidate() -> None:
    critiques = Written([critique(1, 0, "look"), critique(1, 1, "take lamp"), critique(2, 0, "take lamp")])
    (step,) = judged(flagged(1, "take lamp", "look"), critiques)
    assert step.options == [Option("look", "look!"), Option("take lamp", "take lamp!")]
    assert step.action == "look"


def test_step_is_not_judged_while_a_critique_is_missing() -> None:
    assert list(judged(flagged(1, "take lamp"), Written([critique(1, 0, "look")]))) == []


def test_step_is_not_judged_by_critiques_of_other_actions() -> None:
    critiques = Written([critique(1, 0, "look"), critique(1, 1, "wait")])
    assert list(judged(flagged(1, "take lamp"), critiques)) == []


def test_unjudged_step_holds_actions_alone() -> None:
    (step,) = unjudged(flagged(1, "take lamp", "look", "wait"))
    assert step.options == [Option("look"), Option("take lamp"), Option("wait")]


def test_without_sampling_every_step_is_deliberated() -> None:
    steps = list(every_step([trajectory()]))
    assert [(step.at.t, step.options) for step in steps] == [(t, [Option(action)]) for t, action in enumerate(DETOUR)]


def test_switch_chooses_its_candidate_and_ends_the_deliberation_there() -> None:
    steps = [FlaggedStep(ExpertStep(trajectory(), t), [Option(DETOUR[t]), Option("take lamp")]) for t in range(3)]
    after = list(after_switches(steps, {"a": rollout(1.0, 1, "take lamp")}))
    assert [(step.at.t, step.action) for step in after] == [(0, DETOUR[0]), (1, "take lamp")]
    assert list(after_switches(steps, {})) == steps
