"""WKM: the knowledge base, and the mixture over the first words of actions."""

import pytest

from sandcli.errors import UsageError
from sandcli.method.world_knowledge import Entry, entries, first_word, knowledge_preamble, known, mixed, shares
from sandcli.prompts import SETS, Prompts
from sandcli.records import Knowledge, Step, Task, Trajectory

STEPS = [Step(thought="", action=each, observation="", score=0) for each in ("Go to hall", "take lamp", "go to garden")]
EXPERT = Trajectory(
    id="a", env="toy", task=Task(name="a"), instruction="x", steps=STEPS, reward=1, success=True, source="gold"
)


def wrote(t: int, name: str = "a") -> Knowledge:
    return Knowledge(id=name, step=t, text=f"state {t}", tokens=1)


def test_knowledge_base_holds_how_experts_went_on_from_a_state() -> None:
    written = [wrote(0), wrote(1), wrote(2), wrote(9), wrote(1, "unknown")]
    assert list(entries([EXPERT], written)) == [Entry("state 1", "go", "take"), Entry("state 2", "take", "go")]


def test_words_count_in_states_that_were_reached_in_the_same_way() -> None:
    found = [Entry("", "go", "take"), Entry("", "go", "open"), Entry("", "take", "go"), Entry("", "go", "take")]
    assert shares(found, "go") == {"take": pytest.approx(2 / 3), "open": pytest.approx(1 / 3)}
    assert shares(found, "heat") == {}


@pytest.mark.parametrize(
    ("own", "weight", "chances"),
    [
        ({"go": 0.3, "take": 0.1}, 0.7, {"go": 0.525, "open": 0.225, "take": 0.25}),
        ({"go": 0.3, "take": 0.1}, 1.0, {"go": 0.75, "open": 0.0, "take": 0.25}),
        ({"go": 0.3, "take": 0.1}, 0.0, {"go": 0.0, "open": 0.75, "take": 0.25}),
        ({"go": 0.0, "take": 0.0}, 0.6, {"go": 0.0, "open": 0.3, "take": 0.1}),
    ],
)
def test_agent_counts_weight_and_knowledge_the_rest(
    own: dict[str, float], weight: float, chances: dict[str, float]
) -> None:
    """By hand: the agent's words have 0.75 and 0.25, the knowledge base's 0.25 and 0.75."""
    assert mixed(own, {"take": 0.25, "open": 0.75}, weight) == pytest.approx(chances)


@pytest.mark.parametrize(("action", "word"), [("Go  to hall.", "go"), ("`look`", "look"), ("", ""), ("'3'", "3")])
def test_first_word_is_compared_as_actions_are(action: str, word: str) -> None:
    assert first_word(action) == word


def test_knowledge_model_is_told_the_observation_and_the_action() -> None:
    step = Step(thought="Hm.", action="look", observation="A hall.", score=0.5)
    assert known("I am lost.", step).observation == "A hall.\nLast action: look"
    lost = known("I am lost.", Step(thought="Where?", action="", observation="What?", score=0))
    assert (lost.thought, lost.action, lost.observation) == ("I am lost.", "", "What?\nLast action: none")


@pytest.mark.parametrize("name", SETS)
def test_knowledge_model_is_asked_by_the_task_alone(name: str) -> None:
    assert [message.role for message in knowledge_preamble(Prompts(name))] == ["system"]


def test_question_that_is_more_than_the_task_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "know.md").write_text("# user\nTask: {instruction}\n")
    with pytest.raises(UsageError, match="does not end with the task alone"):
        knowledge_preamble(Prompts(str(folder)))
