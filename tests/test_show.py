"""`sand show` at 80 columns: whole ids, each observation once, and no text that controls the terminal."""

from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from sandcli.cli.output import print_data
from sandcli.core.context import Context
from sandcli.core.run import Run
from sandcli.records import Candidate, Record, Rollout, Sample, Step, Task, Thought, Trajectory
from sandcli.show import show_run
from tests.helpers import context, make_run, perform, sand

ID = "train/pick_and_place_simple-Mug-None-Desk-308/trial_T20190906_195547_338431_x"
ROOM = "This room is called the kitchen. In it, you see: a stove, a sink, a table, and on the table a lamp. " * 3
HOSTILE = "[red]look[/red] :lamp: [/] \x1b[2J\x1b]0;owned\x07"
HOSTILE_PRINTED = r"[red]look[/red] :lamp: [/] \x1b[2J\x1b]0;owned\x07"


def step(action: str, observation: str = ROOM, thought: str = "") -> Step:
    return Step(thought=thought, action=action, observation=observation, score=0.5)


def rollout(candidate: int, action: str, *steps: Step) -> Rollout:
    return Rollout(
        id=ID,
        step=1,
        candidate=candidate,
        action=action,
        thought="",
        expert=candidate == 0,
        count=1,
        steps=[step(action), *steps],
        reward=0.5,
        success=False,
        end="done",
        tokens=9,
    )


def write(path: Path, records: Iterable[Record]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A run with one trajectory of twelve steps, of which 0 to 3 and 7 are flagged."""
    monkeypatch.setenv("COLUMNS", "80")
    root = make_run(tmp_path / "run")
    trajectory = Trajectory(
        id=ID,
        env="toyworld",
        task=Task(name="fetch", variation=0),
        instruction=HOSTILE,
        steps=[step(HOSTILE), step("look", thought="I look."), *(step("wait", "Time passes.") for _ in range(10))],
        reward=1.0,
        success=True,
        source="gold",
    )
    write(root / "expert.jsonl", [trajectory])
    candidates = [Candidate(action="look", count=1), Candidate(action=HOSTILE, count=4)]
    sample = Sample(
        id=ID,
        step=0,
        expert_action="look",
        samples=[],
        drawn=5,
        unparsable=0,
        candidates=candidates,
        deliberate=True,
    )
    write(root / "samples.jsonl", [msgspec.structs.replace(sample, step=number) for number in (0, 1, 2, 3, 7)])
    write(root / "rollouts.jsonl", [rollout(0, "look", step("look")), rollout(1, HOSTILE, step("wait", HOSTILE))])
    write(root / "thoughts.jsonl", [Thought(id=ID, step=1, thought="", attempts=1, rejected=[HOSTILE], tokens=3)])
    return context(root)


def printed(capsys: pytest.CaptureFixture[str], run: Context, step: int | None = None, **options: bool) -> str:
    name = None if step is None and options.pop("overview", False) else ID
    print_data(show_run(run, name, step, tokens=False, **options))
    return capsys.readouterr().out


def test_the_list_has_whole_ids_and_compact_steps(run: Context, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, run, overview=True).splitlines()
    assert [line.rstrip() for line in lines] == [ID, "    12 steps; reward 1.00; flagged 0-3, 7"]


def test_a_repeated_observation_is_printed_once(run: Context, capsys: pytest.CaptureFixture[str]) -> None:
    once = printed(capsys, run, 1)
    assert ID in once.splitlines()
    assert (once.count("Observation: This room"), once.count("(the same as above)")) == (1, 3)
    full = printed(capsys, run, 1, full=True)
    assert "(the same as above)" not in full and full.count("Observation: This room") == 4


def test_a_short_observation_is_not_replaced(run: Context, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, run, 9).count("Observation: Time passes.") == 7


def test_an_empty_thought_is_not_printed(run: Context, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, run, 1)
    assert text.count("Thought:") == text.count("Thought: I look.") == 1


def test_turn_without_an_action_is_shown_as_it_was_said(run: Context, capsys: pytest.CaptureFixture[str]) -> None:
    said = Step(thought="Thought: I wonder.", action="", observation="Nothing happens.", score=0.5)
    write(run.run.root / "rollouts.jsonl", [rollout(0, "look", said)])
    text = printed(capsys, run, 1)
    assert text.count("Thought: I wonder.") == 1
    assert "Thought: Thought:" not in text and "Action: \n" not in text


@pytest.mark.parametrize("step", [None, 0, 1])
def test_text_from_outside_is_printed_literally(
    run: Context, capsys: pytest.CaptureFixture[str], step: int | None
) -> None:
    text = printed(capsys, run, step)
    assert HOSTILE_PRINTED.split()[-1] in text and "[red]look[/red]" in text and ":lamp:" in text
    assert "\x1b" not in text and "\x07" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_all_steps_are_shortened_unless_full(run: Context, capsys: pytest.CaptureFixture[str]) -> None:
    assert "[...]" in printed(capsys, run)
    assert "[...]" not in printed(capsys, run, full=True)


def test_the_command_prints_observations_in_full(run: Context) -> None:
    ran = sand("show", "--run", run.run.root, ID, "--step", "1", "--full", extra={"COLUMNS": "80"})
    assert ran.returncode == 0, ran.stderr
    assert "(the same as above)" not in ran.stdout


@pytest.mark.slow
def test_show_prints_everything_about_a_step(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    for stage in ("collect", "sample", "rollout", "critique", "synthesize"):
        perform(stage, root, limit=1)
    ran = sand("show", "--run", root, "fetch_0", "--step", "1")
    assert ran.returncode == 0, ran.stderr
    for part in ("take lamp", "You are in the kitchen.", "expert: take lamp", "Critique: With", "trained on"):
        assert part in ran.stdout
    assert "fetch_0" in sand("show", "--run", root).stdout
    unknown = sand("show", "--run", root, "fetch_00")
    assert (unknown.returncode, unknown.stderr.splitlines()[1].strip()) == (2, "fix: did you mean fetch_0?")
    assert sand("show", "--run", root, "fetch_0", "--step", "9").returncode == 2


def test_knowledge_of_a_trajectory_is_shown(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", method__name="wkm")
    for stage in ("collect", "explore", "knowledge"):
        perform(stage, root, limit=2)
    written = next(each for each in Run(root).knowledge() if each.step)
    shown = sand("show", "--run", root, written.id)
    assert shown.returncode == 0, shown.stderr
    assert f"state knowledge, step {written.step}" in shown.stdout and written.text in shown.stdout


def test_plans_and_pairs_of_a_trajectory_are_shown(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", method__name="mpo", plan__n=4, explore__n=2, model__policy="x")
    perform("collect", root, limit=3)
    for stage in ("plan", "explore", "pairs"):
        perform(stage, root)
    shown = sand("show", "--run", root, next(iter(Run(root).pairs())).id)
    assert shown.returncode == 0, shown.stderr
    assert "plan 0" in shown.stdout and "1. Go to the kitchen." in shown.stdout
    assert "pair: chosen (plan, reward" in shown.stdout and "pair: rejected (plan, reward" in shown.stdout
