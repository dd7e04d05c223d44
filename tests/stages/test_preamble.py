"""The preamble: what the agent reads before its task, from recorded data or a file, in every stage."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sandcli.agent.preamble import read_preamble, written
from sandcli.core.artifact import StageName
from sandcli.core.stage import Options
from sandcli.engines.base import Completion, Model, Sampling
from sandcli.engines.scripted import ScriptedEngine
from sandcli.errors import ContextOverflow, Exit, PrerequisiteError, UsageError
from sandcli.messages import Message
from sandcli.new_run import start_run
from tests.helpers import built, contents, context, make_run, perform, sand, state
from tests.stages.test_collect import TASK, Row, collect, row, write
from tests.toyworld import SYSTEM

RECORDED = [Message("user", "You live in a house."), Message("assistant", "OK")]
OTHER = [Message("user", "You live in a tent."), Message("assistant", "OK"), Message("user", "Your turn:")]
STAGES: tuple[StageName, ...] = ("explore", "sample", "rollout", "eval")

Prompts = list[list[Message]]


def tent(name: str) -> Row:
    """A row with another first message."""
    made = row(name)
    made["conversations"][0]["value"] = "You live in a tent."
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run with D_exp from data, and the preamble of the data."""
    root = make_run(tmp_path / "run", agent__preamble="data", eval__models="base", eval__splits="seen", sample__n=2)
    collect(root, write(tmp_path / "rows.json", row("fetch_0"), tent("fetch_2"), row("fetch_4")))
    return root


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> Prompts:
    """What the scripted engine is asked."""
    seen: Prompts = []
    generate = ScriptedEngine.generate

    async def noted(self: ScriptedEngine, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        seen.append(list(messages))
        return await generate(self, messages, sampling)

    monkeypatch.setattr(ScriptedEngine, "generate", noted)
    return seen


def test_preamble_of_most_of_the_data_is_stored_and_told(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_preamble(root / "preamble.json") == RECORDED
    capsys.readouterr()
    collect(root, tmp_path / "rows.json", force=True)
    told = "2 messages, the most common one: 2 of 3 trajectories have it"
    assert told in " ".join(capsys.readouterr().err.split())
    assert perform("collect", root).message.endswith("is complete: nothing to do")
    assert state("collect", root).kind == "done"


def test_agent_reads_the_preamble_of_the_data_in_every_stage(root: Path, words: Model, prompts: Prompts) -> None:
    for stage in STAGES:
        prompts.clear()
        assert perform(stage, root, limit=1).exit is Exit.DONE
        assert prompts
        for prompt in prompts:
            assert prompt[:2] == RECORDED and prompt[2].content.startswith("Bring the lamp")
            assert SYSTEM not in str(prompt)
    training: Any = built("sft", root, model__base=str(words.folder))
    assert training._job().config.preamble == RECORDED


def test_agent_reads_the_preamble_of_a_file_in_the_run(root: Path, prompts: Prompts) -> None:
    (root / "own.json").write_bytes(written(OTHER))
    perform("sample", root, limit=1, agent__preamble="own.json")
    assert prompts[0] == [*OTHER[:2], Message("user", f"Your turn:\n\n{TASK.format(0)}")]


def test_agent_reads_the_worlds_instruction_by_default(tmp_path: Path, prompts: Prompts) -> None:
    root = make_run(tmp_path / "run", sample__n=1)
    collect(root, write(tmp_path / "rows.json", row()))
    perform("sample", root)
    assert prompts[0] == [Message("system", SYSTEM), Message("user", TASK.format(0))]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_other_preamble_makes_a_stage_stale(root: Path, stage: StageName) -> None:
    for name in STAGES:
        perform(name, root, limit=1)
    (root / "own.json").write_bytes(written(RECORDED))
    assert state(stage, root, limit=1, agent__preamble="own.json").kind == "done"  # the content counts, not the name
    (root / "own.json").write_bytes(written(OTHER))
    (reason,) = state(stage, root, limit=1, agent__preamble="own.json").reasons
    assert reason.startswith("prompt.preamble: was ")


def test_data_without_a_preamble_leave_none(tmp_path: Path) -> None:
    bare = row()
    bare["conversations"] = bare["conversations"][2:]
    root = make_run(tmp_path / "run", agent__preamble="data")
    collect(root, write(tmp_path / "rows.json", bare))
    assert not (root / "preamble.json").exists()
    with pytest.raises(
        UsageError, match=r"expert.jsonl comes without a preamble, and agent.preamble is data"
    ) as caught:
        perform("sample", root)
    assert "set agent.preamble to world or to a JSON file" in caught.value.fix


def test_preamble_of_the_data_needs_the_data(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", agent__preamble="data", eval__models="base")
    with pytest.raises(PrerequisiteError, match=r"expert.jsonl is missing") as caught:
        perform("eval", root)
    assert caught.value.fix == f"sand collect --run {root}"


def test_collecting_says_at_once_that_there_will_be_no_preamble(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", agent__preamble="data")
    with pytest.raises(UsageError, match=r"agent.preamble is data, and the world's own expert brings none"):
        perform("collect", root)
    with pytest.raises(UsageError, match=r"the preamble .*own.json cannot be read"):
        perform("collect", root, agent__preamble="own.json")
    assert not (root / "expert.jsonl.part").exists()


def test_edited_preamble_is_noticed_and_accepted_as_an_edited_artifact_is(root: Path, tmp_path: Path) -> None:
    (root / "preamble.json").write_bytes(written(OTHER))
    with pytest.raises(PrerequisiteError, match=r"preamble.json was changed after `sand collect` finished"):
        perform("sample", root)
    perform("collect", root)
    assert context(root).preamble == OTHER
    collect(root, tmp_path / "rows.json")
    assert context(root).preamble == OTHER


def test_redoing_collect_moves_the_preamble_aside(root: Path, tmp_path: Path) -> None:
    bare = row()
    bare["conversations"] = bare["conversations"][2:]
    collect(root, write(tmp_path / "bare.json", bare), force=True)
    assert not (root / "preamble.json").exists()
    (aside,) = (root / "aside").glob("collect-*/preamble.json")
    assert read_preamble(aside) == RECORDED


def test_next_iteration_keeps_the_preamble(root: Path, tmp_path: Path, prompts: Prompts) -> None:
    for stage in ("sample", "rollout", "critique", "synthesize"):
        perform(stage, root)
    (root / "model").mkdir()
    (root / "data").mkdir()  # the name of a setting's value
    start_run(tmp_path / "it2", root, {})
    prompts.clear()
    perform("sample", tmp_path / "it2", limit=1)
    assert prompts[0][:2] == RECORDED
    (root / "own.json").write_bytes(written(OTHER))
    toml = root / "sand.toml"
    toml.write_text(toml.read_text().replace('preamble = "data"', 'preamble = "own.json"'))
    start_run(tmp_path / "it3", root, {})
    shutil.rmtree(root / "data")
    assert context(tmp_path / "it3").preamble == OTHER


def overflowing(seen: list[list[Message]], longest: int) -> Callable[..., Any]:
    async def generate(self: ScriptedEngine, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        if len(messages) > longest:
            raise ContextOverflow(9, 8)
        return [Completion("Action: look", 3, "stop")] * sampling.n

    return generate


@pytest.mark.parametrize("stage", ["explore", "sample", "eval"])
def test_preamble_that_does_not_fit_is_no_result(root: Path, stage: StageName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedEngine, "generate", overflowing([], 2))
    with pytest.raises(UsageError, match=r"the preamble and the task of fetch_\d.* leave no room for a turn") as caught:
        perform(stage, root)
    assert "use a shorter preamble" in caught.value.fix
    monkeypatch.setattr(ScriptedEngine, "generate", overflowing([], 3))  # now later turns do not fit
    assert perform(stage, root).exit is Exit.DONE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "what"),
    [
        ([{"role": "user", "content": "a"}] * 2, "do not alternate: message 2 of 2 is the user's, not the assistant's"),
        ([{"from": "human", "value": "a"}], "is no preamble: Object contains unknown field `from`"),
        ("{", "not JSON"),
    ],
)
def test_wrong_preamble_is_refused_in_one_line_before_anything_is_done(root: Path, content: Any, what: str) -> None:
    (root / "own.json").write_text(content if isinstance(content, str) else json.dumps(content))
    before = contents(root)
    done = sand("eval", "--run", root, extra={"SAND_AGENT_PREAMBLE": "own.json"})
    assert done.returncode == Exit.USAGE and what in done.stderr and "Traceback" not in done.stderr
    assert contents(root) == before
    assert sand("status", "--run", root, extra={"SAND_AGENT_PREAMBLE": "own.json"}).returncode == 0


def test_forced_stage_with_a_wrong_preamble_loses_nothing(root: Path) -> None:
    perform("eval", root, limit=1)
    before = contents(root)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        perform("eval", root, 1, Options(force=True), agent__preamble="absent.json")
    assert contents(root) == before
