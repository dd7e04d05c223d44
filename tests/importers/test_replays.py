"""How a recording and its replay differ, and which rows are accepted."""

import pytest

from sandcli.agent.turns import Turn
from sandcli.envs.base import Outcome, Reset
from sandcli.envs.pool import Restored
from sandcli.importers.conversations import RecordedTrajectory
from sandcli.importers.replays import Kind, difference, differences, rejected, strictly_rejected
from sandcli.records import Step, Task, Trajectory

WORLD = "scienceworld"
DESK = "\ta desk. On the desk is: a drawer, a tin cup (containing red paint), a tin cup (containing blue paint)."
OTHER_DESK = "\ta desk. On the desk is: a tin cup (containing blue paint), a drawer, a tin cup (containing red paint)."
OPEN = "\ta oven, which is off. The oven door is open. In the oven is: nothing.\n\ta sink"
CLOSED = "\ta oven, which is off. The oven door is closed. \n\ta sink"


@pytest.mark.parametrize(
    ("observed", "recorded", "kind"),
    [
        ("You go.", "You  go.\n", None),
        ("On the desk 1, you see a egg 2.", "On the desk 1, you see an egg 2.", None),
        (f"A room.\n\ta cup\n{DESK}", f"A room.\n{DESK}\n\ta cup", Kind.ORDER),
        (DESK, OTHER_DESK, Kind.ORDER),
        ("You see a egg 2, and a pot 1.", "You see a pot 1, and a egg 2.", Kind.ORDER),
        (OPEN, CLOSED, Kind.CONTAINERS),
        (OPEN, OPEN.replace("nothing", "a cup"), Kind.OTHER),
        ("The cupboard is already open.", "The cupboard is now open.", Kind.CONTAINERS),
        ("A room.\n\ta adult bee\n\ta cup", "A room.\n\ta cup", Kind.CHANCE),
        (f"{OPEN}\n\ta adult bee", CLOSED, Kind.CHANCE),
        ("The hive. In the hive is: nothing.", "The hive. In the hive is: a adult bee.", Kind.CHANCE),
        ("It measures 24 degrees celsius", "It measures 22 degrees celsius", Kind.CHANCE),
        ("A room.\n\ta cup", "A room.\n\ta pot", Kind.OTHER),
        ("A jug (containing nothing)", "A jug (containing water)", Kind.OTHER),
        ("You move the cup.", "No known action matches that input.", Kind.OTHER),
    ],
)
def test_difference_has_a_kind(observed: str, recorded: str, kind: Kind | None) -> None:
    assert difference(WORLD, observed, recorded) is kind
    assert difference(WORLD, recorded, observed) is kind


def test_only_scienceworld_has_chance() -> None:
    assert difference("alfworld", "You see a apple 1.", "You see nothing.") is Kind.OTHER


def row(observations: list[str], turns: int = 3, reward: float | None = None) -> RecordedTrajectory:
    done = [Turn("", f"do {number}") for number in range(turns)]
    return RecordedTrajectory("a", "a", "Your task is to boil water.", done, observations, reward)


def replay(*scores: float, observed: str = "Fine.", valid: bool = True) -> Restored:
    outcomes = [Outcome("Fine.", score, score == 1.0, True) for score in scores[:-1]]
    return Restored(Reset("Your task is to boil water.", 0.0), [*outcomes, Outcome(observed, scores[-1], False, valid)])


FINE = ["Fine."] * 3


@pytest.mark.parametrize(
    ("recorded", "replayed", "why"),
    [
        (row(FINE), replay(0.1, 0.5, 1.0), ""),
        (row(["Odd.", "Strange.", "Other."]), replay(0.1, 0.5, 1.0), ""),
        (row(FINE[:2]), replay(0.1, 0.5, 0.8), "the recorded outcome is not reached: 0.80 of 1.00"),
        (row(FINE), replay(0.1, 0.5, 0.8), ""),  # it was recorded as unfinished
        (row(FINE), replay(0.1, 0.5, 0.8, observed="Odd."), "the recorded outcome is not reached"),
        (row(FINE, reward=0.8), replay(0.1, 0.5, 0.8), ""),
        (row(FINE, reward=0.9), replay(0.1, 0.5, 0.8), "the recorded outcome is not reached"),
        (row(FINE, reward=0.0), replay(0.1, 0.5, 0.8), "the recorded outcome is not reached"),
        (row(FINE, reward=100), replay(0.1, 0.5, 1.0), ""),
        (row(["Eh?"] * 3), replay(0.1, 0.5, 1.0, observed="Eh?", valid=False), ""),  # the same mistake
        (row(["Eh?"] * 3), replay(0.1, 0.5, 0.8, observed="Uh?", valid=False), "edited after the recording, or"),
        (row([DESK] * 3), replay(0, 0, 1.0, observed=OTHER_DESK, valid=False), "an action is not understood: step 2"),
        (row(FINE[:2]), replay(0.1, 0.5, 1.0, observed="Eh?", valid=False), "an action is not understood: step 2"),
        (row(FINE), replay(0.1, 0.5, 1.0, observed="Eh?", valid=False), "edited after the recording, or"),
    ],
)
def test_row_is_accepted_if_its_actions_are_understood_as_then_and_the_outcome_is_reached(
    recorded: RecordedTrajectory, replayed: Restored, why: str
) -> None:
    found = rejected(WORLD, recorded, replayed)
    assert found.startswith(why) if why else not found


@pytest.mark.parametrize(
    ("recorded", "observed", "why"),
    [
        (FINE, "Fine.", ""),
        (["Fine.", "Fine.", "a egg"], "an egg", ""),
        (["Fine.", "Odd.", "Fine."], "Fine.", "texts differ: 1 of 4; step 1 (do 1): recorded 'Odd.', observed 'Fine.'"),
    ],
)
def test_strict_row_is_accepted_if_all_texts_are_the_same(recorded: list[str], observed: str, why: str) -> None:
    found = strictly_rejected(lambda now, then: now == then, row(recorded), replay(0, 0, 0.2, observed=observed))
    assert found == why


def test_strict_row_is_rejected_if_the_episode_ends_early() -> None:
    why = strictly_rejected(lambda now, then: now == then, row(FINE[:2], turns=5), replay(0, 0.2))
    assert why == "the episode ends early: after step 2 of 5"


def test_differences_are_found_by_kind_with_the_first_of_each() -> None:
    texts = ["Fine.", DESK, "A bee.", "Fine."]
    made = Trajectory(
        id="a",
        env=WORLD,
        task=Task(name="boil", variation=0),
        instruction="Your task is to boil water above 10 degrees celsius.",
        steps=[Step(thought="", action=f"do {n}", observation=text, score=0.0) for n, text in enumerate(texts)],
        reward=1.0,
        success=True,
        source="",
    )
    found = differences(made, row(["Fine.", OTHER_DESK, "A dull thing.", "Odd."], turns=5))
    assert list(found) == [Kind.SENTENCE, Kind.ORDER, Kind.OTHER]
    assert found[Kind.ORDER].startswith("step 1 (do 1): ")
    assert found[Kind.OTHER].startswith("step 2 (do 2): recorded 'A dull thing.'")
