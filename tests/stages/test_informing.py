"""WKM at inference: state knowledge, the knowledge base, and the words that it adds to an agent's choice."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from sandcli.core.run import Run
from sandcli.engines.embedding import by_words
from sandcli.engines.scripted import ScriptedEngine
from sandcli.errors import Exit, PrerequisiteError, UsageError
from sandcli.method.world_knowledge import Entry
from sandcli.stages.informing import KnowledgeBase
from tests.core.runs import failing
from tests.helpers import POLICY, Rules, asked, make_run, perform, state, turn, write_rules

SEEKS, HAS = "I seek a lamp.", "I have it, in the hall."

KNOWING: Rules = [
    {"when": asked("lesson"), "replies": ["Find the lamp."]},
    {"when": "-> You are in the hall, lamp in hand.", "replies": [HAS]},
    {"when": asked("state"), "replies": [SEEKS]},
    {"when": "Last action: go to hall", "replies": [HAS]},
    {"when": "Last action:", "replies": [SEEKS]},
    {"when": asked("know"), "replies": ["Find the lamp."]},
]
"""Who writes knowledge: the policy, and the world-knowledge model."""

LOOKING: Rules = [
    {"when": "lamp in hand.", "replies": [turn("Done.", "drop lamp")]},
    {"when": "Observation: You take the lamp.", "replies": [turn("Back.", "go to hall")]},
    {"when": "Observation: This is the", "replies": [turn("I look.", "look")]},
    {"when": "I look.\nAction: take", "replies": [" lamp"]},
    {"when": "I look.\nAction:", "replies": [" look", " look", " look", " take it"]},
    {"when": "Observation: You are in the", "replies": [turn("I look.", "look")]},
    {"when": "the kitchen to the hall", "replies": [turn("There.", "go to kitchen")]},
    {"when": POLICY, "replies": [turn("There.", "go to garden")]},
]
"""An agent that would rather look than take what it came for: the chances are 3 to 1."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wkm")
    write_rules(folder / "rules.json", [*KNOWING, *LOOKING])
    root = make_run(folder / "run", method__name="wkm", retrieval__neighbours=3, env__step_limit=5, eval__models="base")
    for stage in ("collect", "explore", "knowledge"):
        perform(stage, root, limit=3)
    return root


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def played(root: Path, **settings: Any) -> set[tuple[str, ...]]:
    """The actions of every episode, but for the first."""
    assert perform("eval", root, eval__splits=["seen"], **settings).exit is Exit.DONE
    return {tuple(step.action for step in episode.steps[1:]) for episode in Run(root).episodes()}


def test_knowledge_outweighs_the_agents_own_word(run: Path) -> None:
    """Looking has 0.5 * 0.75 = 0.375, and taking 0.5 * 0.25 + 0.5 = 0.625."""
    assert played(run, retrieval__weight=0.5) == {("take lamp", "go to hall", "drop lamp")}
    for episode in Run(run).episodes():
        assert episode.steps[1].thought == "I look." and episode.success


def test_agent_keeps_its_word_if_that_is_more_probable(run: Path) -> None:
    """Looking has 0.7 * 0.75 = 0.525, and taking 0.7 * 0.25 + 0.3 = 0.475."""
    assert played(run, retrieval__weight=0.7) == {("look", "look", "look", "look")}


def test_without_weight_the_knowledge_base_is_not_asked(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandcli.stages.informing.KnowledgeBase", None)
    assert played(run, retrieval__weight=1) == {("look", "look", "look", "look")}


def test_opening_of_a_turn_is_not_said_twice(run: Path) -> None:
    rules: Rules = [
        {"when": ".\nAction: take", "replies": [" lamp"]},
        {"when": "Observation: You are in the", "replies": [" look"]},
        {"when": "the kitchen to the hall", "replies": [" go to kitchen"]},
        {"when": POLICY, "replies": [" go to garden"]},
    ]
    script = str(write_rules(run.parent / "rules.json", [*KNOWING, *rules]))
    settings: dict[str, Any] = {"eval__deliberation": ["never"], "env__step_limit": 2, "engine__script": script}
    assert played(run, retrieval__weight=0.4, **settings) == {("take lamp",)}
    assert not any(step.thought for episode in Run(run).episodes() for step in episode.steps)


def test_tokens_of_knowledge_count(run: Path, tmp_path: Path) -> None:
    """A state at every turn but the first."""
    shutil.copytree(run, tmp_path / "alone")
    played(tmp_path / "alone", retrieval__weight=1)
    played(run, retrieval__weight=0.7)
    for alone, told in zip(Run(tmp_path / "alone").episodes(), Run(run).episodes(), strict=True):
        assert told.tokens - alone.tokens == 4 * len(SEEKS.split())


def test_what_an_evaluation_depends_on(run: Path) -> None:
    settings: dict[str, Any] = {"eval__splits": ["seen"], "retrieval__weight": 0.5}
    played(run, retrieval__weight=0.5)
    assert state("eval", run, **settings).kind == "done"
    for other in ({"retrieval__weight": 0.6}, {"retrieval__neighbours": 4}, {"retrieval__weight": 1}):
        assert state("eval", run, **(settings | other)).kind == "stale", other


def test_unit_that_fails_is_played_again_from_its_beginning(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"eval__splits": ["seen"], "retrieval__weight": 0.5}
    with failing(monkeypatch, "Last action: go to hall"):
        assert perform("eval", run, **settings, run__retries=0).exit is Exit.FAILED_UNITS
    assert played(run, retrieval__weight=0.5) == {("take lamp", "go to hall", "drop lamp")}


def test_engine_without_probabilities_is_refused_before_anything_is_played(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = ScriptedEngine.generate

    async def generate(self: ScriptedEngine, messages: Any, sampling: Any) -> Any:
        if sampling.openings:
            raise PrerequisiteError("it does not tell", "")
        return await answer(self, messages, sampling)

    monkeypatch.setattr(ScriptedEngine, "generate", generate)
    with pytest.raises(PrerequisiteError, match="does not tell"):
        perform("eval", run, retrieval__weight=0.5)
    assert not (run / "eval.jsonl").exists()


@pytest.mark.parametrize("name", ["/nowhere/e5", "."])
def test_missing_embedding_model_is_one_line(run: Path, name: str) -> None:
    with pytest.raises(PrerequisiteError, match=r"^retrieval\.embedding: .* is not a model folder"):
        perform("eval", run, retrieval__weight=0.5, retrieval__embedding=name)


def test_weight_needs_a_world_knowledge_model(run: Path) -> None:
    with pytest.raises(UsageError, match=r"retrieval\.weight is 0\.7, which needs knowledge"):
        perform("eval", run, eval__planner="base")


def test_only_the_nearest_states_count() -> None:
    states = (("the door", "open"), ("the shelf", "take"), ("the door", "knock"))
    base = KnowledgeBase([Entry(state, "go", word) for state, word in states], by_words, 2)
    assert base.words == ["knock", "open", "take"]
    assert base.next_words("The door!", "go") == {"open": 0.5, "knock": 0.5}
    assert base.next_words("the shelf", "go") == {"take": 0.5, "open": 0.5}
    assert base.next_words("the shelf", "take") == {}
