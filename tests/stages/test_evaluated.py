"""Evaluation on a panel: it is played whatever the run says, it is part of the result, and panels are never mixed."""

from pathlib import Path
from typing import Any

import pytest

from sandcli.core.stage import Options
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.panels.panel import Panel
from tests.helpers import POLICY, Rules, artifact, artifacts, lines, make_run, perform, state, turn, write_rules
from tests.panels.made_up import in_file, panel, task

SETTINGS = {"agent.max_tokens": 64, "agent.invalid_message": "Say it again.", "agent.max_invalid": 0}
MADE = panel(settings=SETTINGS, splits={"seen": [task(6, step_limit=2), task(7, step_limit=3)], "dev": [task(0)]})
WEIGHED = turn("My options: (1) look; (2) eat lamp. So I will look.", "look")
RULES: Rules = [
    {"when": "Say it again.", "replies": [WEIGHED]},
    {"when": POLICY, "replies": ["Who?"]},
]
"""An agent that says nothing at first, and then deliberates at every step."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_rules(tmp_path / "rules.json", RULES)
    return make_run(tmp_path / "run", eval__models="base", eval__splits="seen", env__step_limit=7)


def on(folder: Path, made: Panel = MADE, name: str = "p.json") -> dict[str, Any]:
    """The setting of a panel in a file."""
    return {"eval__panel": in_file(folder / name, made)}


def test_panel_is_played_whatever_the_run_says(run: Path, tmp_path: Path) -> None:
    perform("eval", run, **on(tmp_path), env__tasks=["riddle"], agent__max_invalid=1)
    episodes = lines(run / "eval.jsonl")
    assert [(e["task"]["variation"], len(e["steps"]), e["end"]) for e in episodes] == [
        (6, 2, "max_steps"),
        (7, 3, "max_steps"),
    ]
    said = {step["observation"] for e in episodes for step in e["steps"] if not step["action"]}
    assert said == {"Say it again."}


def test_result_does_not_depend_on_what_the_panel_fixes(run: Path, tmp_path: Path) -> None:
    perform("eval", run, **on(tmp_path))
    before, made = artifacts(run), artifact(run, "eval").manifest()
    other = on(tmp_path, name="same.json")
    unlike: dict[str, Any] = {
        "env__tasks": ["carry"],
        "env__step_limit": 1,
        "agent__max_tokens": 9,
        "agent__inline": True,
    }
    assert state("eval", run, **other, **unlike).kind == "done"
    perform("eval", run, **other, **unlike)
    assert artifacts(run) == before
    assert made is not None and made.identity.settings["panel"] == MADE.hash
    assert made.identity.scope["panel"] == str(tmp_path / "p.json")


@pytest.mark.parametrize("other", [panel(settings={**SETTINGS, "agent.max_tokens": 65}), None])
def test_other_panel_makes_the_result_stale(run: Path, tmp_path: Path, other: Panel | None) -> None:
    perform("eval", run, **on(tmp_path))
    setting = on(tmp_path, other, "other.json") if other else {}
    found = state("eval", run, **setting)
    assert found.kind == "stale"
    assert f"panel: was {MADE.hash}, is {other.hash if other else None}" in found.reasons


def test_episodes_of_two_panels_are_never_kept_together(run: Path, tmp_path: Path) -> None:
    perform("eval", run, **on(tmp_path))
    before = artifacts(run)
    for setting in (on(tmp_path, panel(), "other.json"), {}):
        for options in (Options(), Options(accept_stale=True), Options(dry_run=True)):
            with pytest.raises(UsageError, match=r"eval\.jsonl was played on another panel") as caught:
                perform("eval", run, options=options, **setting)
            assert caught.value.fix == (
                f"sand eval --run {run} --panel {tmp_path}/p.json continues it; --force moves it aside and redoes it"
            )
    assert artifacts(run) == before
    perform("eval", run, options=Options(force=True), **on(tmp_path, panel(), "other.json"))
    assert [episode["task"]["variation"] for episode in lines(run / "eval.jsonl")] == [6, 7]


def test_episodes_without_a_panel_continue_without_one(run: Path, tmp_path: Path) -> None:
    perform("eval", run, limit=1)
    with pytest.raises(UsageError, match="played on another panel") as caught:
        perform("eval", run, **on(tmp_path))
    assert caught.value.fix.startswith(f"sand eval --run {run} --panel '' continues it")
    assert state("eval", run, limit=1, eval__panel="").kind == "done"


def test_panel_whose_file_has_changed_is_not_advised(run: Path, tmp_path: Path) -> None:
    perform("eval", run, **on(tmp_path))
    with pytest.raises(UsageError, match="played on another panel") as caught:
        perform("eval", run, **on(tmp_path, panel()))
    assert f"--panel FILE (the panel {MADE.hash}, which was in {tmp_path}/p.json) continues it" in caught.value.fix


def test_more_splits_and_modes_of_a_panel_add_episodes(run: Path, tmp_path: Path) -> None:
    perform("eval", run, **on(tmp_path))
    before = lines(run / "eval.jsonl")
    perform("eval", run, **on(tmp_path), eval__splits=["dev"], eval__deliberation=["free", "never"])
    after = lines(run / "eval.jsonl")
    assert [episode for episode in after if episode["split"] == "seen"] == before
    assert [episode["deliberation"] for episode in after if episode["split"] == "dev"] == ["free", "never"]


def test_unlike_settings_are_said_once(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    perform("eval", run, **on(tmp_path))
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "overrides" in line]
    assert f"{tmp_path}/p.json overrides this run: " in said
    assert (
        "env.step_limit" not in said and "agent.max_tokens 512 -> 64; " in said and said.endswith("; its own preamble")
    )


def test_counterfactual_steps_are_taken_on_the_panel_of_the_episodes(run: Path, tmp_path: Path) -> None:
    perform("eval", run, **on(tmp_path))
    for setting, played in ((on(tmp_path, panel(), "other.json"), panel().hash), ({}, "no panel")):
        with pytest.raises(PrerequisiteError, match=f"played on the panel {MADE.hash}, not on .*{played}") as caught:
            perform("counterfactual", run, **setting)
        assert caught.value.fix == f"--panel {tmp_path}/p.json is the one that sand eval had"
    perform("counterfactual", run, **on(tmp_path))
    ends = {
        (e["task"]["variation"], e["step"], e["step"] + len(e["steps"])) for e in lines(run / "counterfactuals.jsonl")
    }
    assert ends == {(6, 1, 2), (7, 1, 3), (7, 2, 3)}


def test_counterfactual_names_the_evaluation_with_its_panel(run: Path, tmp_path: Path) -> None:
    perform("eval", run, **on(tmp_path))
    with pytest.raises(UsageError, match="no freely played episode") as caught:
        perform("counterfactual", run, **on(tmp_path), eval__splits=["dev"])
    assert f"--panel {tmp_path}/p.json --models base --splits dev" in caught.value.fix
