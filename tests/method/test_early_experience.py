"""Early Experience: what is known of a candidate is what the world answered; the experts stay in the data."""

from msgspec.structs import replace

from sandcli.method.deliberation import Option
from sandcli.method.early_experience import mixed, observed, outcome
from sandcli.records import Key, Rollout, Trajectory
from tests.method.made_up import rollout, trajectory
from tests.method.test_ablations import flagged


class Executed(list[Rollout]):
    """Rollouts in memory."""

    def having(self, keys: list[Key]) -> list[Rollout]:
        return [one for one in self if one.key in keys]


def answered(candidate: int, action: str, observation: str, *after: str) -> Rollout:
    made = rollout(0.5, 1, action, *after, candidate=candidate)
    return replace(made, steps=[replace(made.steps[0], observation=observation), *made.steps[1:]])


def test_candidates_are_weighed_by_their_own_observations_alone() -> None:
    executed = Executed([answered(0, "look", "A lamp.\nIt is\n dark.", "go"), answered(1, "take lamp", "Taken.", "go")])
    (step,) = observed(flagged(1, "take lamp", "look"), executed)
    assert step.options == [Option("look", "A lamp. It is dark."), Option("take lamp", "Taken.")]
    assert step.action == "look"


def test_step_is_not_weighed_while_a_candidate_was_not_executed() -> None:
    assert list(observed(flagged(1, "take lamp"), Executed([answered(0, "look", "")]))) == []
    others = Executed([answered(0, "look", ""), answered(1, "wait", "")])
    assert list(observed(flagged(1, "take lamp"), others)) == []


def test_outcome_says_if_the_episode_ended_with_the_action() -> None:
    assert outcome(answered(1, "focus", "You focus.")) == "You focus. The episode is over."
    assert outcome(replace(answered(1, "focus", "You focus."), end="max_steps")) == "You focus."
    assert outcome(answered(1, "focus", "You focus.", "look")) == "You focus."


def test_experts_of_reflected_trajectories_stay_in_the_data() -> None:
    experts = [replace(trajectory(), id=name) for name in ("a", "b")]
    first = replace(experts[0].steps[0], thought="My options: (1) look; (2) wait.", deliberated=True)
    reflected: list[Trajectory] = [replace(experts[0], steps=[first, *experts[0].steps[1:]]), experts[1]]
    assert list(mixed(experts, reflected)) == [*reflected, replace(experts[0], id="a (expert)")]
