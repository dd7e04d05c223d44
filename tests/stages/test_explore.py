"""The explore stage: the policy on the training tasks, and D_rft."""

from pathlib import Path
from typing import Any

import pytest

from sandcli.core.run import Run
from sandcli.engines.base import Model
from sandcli.errors import Exit, UsageError
from tests.core.runs import edit, failing
from tests.helpers import POLICY, Rules, accept_edit, artifact, lines, make_run, perform, state, turn, write_rules

RULES: Rules = [
    {"when": "lamp in hand.", "replies": [turn("There.", "drop lamp")]},
    {"when": "Observation: You take the lamp.", "replies": [turn("Back.", "go to hall")]},
    {
        "when": POLICY,
        "replies": [turn("It is here.", "take lamp"), turn("I look.", "look"), turn("Yum.", "eat lamp"), "Where am I?"],
    },
]
"""A policy that finds the lamp on long ways and short ones, eats it, or says nothing of use."""

WITH_PATHS: Rules = [
    {**rule, "replies": [reply.replace("Thought: ", "Thought: ActionPath: start\n") for reply in rule["replies"]]}
    for rule in RULES
]
"""The same, with the action paths that KnowAgent learns from."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_rules(tmp_path / "rules.json", RULES)
    root = make_run(tmp_path / "run", env__tasks="carry", method__name="rft")
    perform("collect", root, limit=3)
    return root


def records(root: Path) -> list[tuple[int, int]]:
    """The variation and the number of every episode."""
    return [(line["task"]["variation"], line["draw"]) for line in lines(root / "explored.jsonl")]


def test_policy_plays_the_task_of_every_expert_trajectory(run: Path) -> None:
    made = perform("explore", run)
    assert made.exit is Exit.DONE
    assert records(run) == [(variation, draw) for variation in range(3) for draw in range(4)]
    for line in lines(run / "explored.jsonl"):
        assert (line["split"], line["model"], line["deliberation"]) == ("train", "policy", "free")
    assert [episode.draw for episode in Run(run).explored()] == [0, 1, 2, 3] * 3


def test_d_rft_holds_what_the_summary_counts(run: Path) -> None:
    made = perform("explore", run, explore__n=12)
    expert, d_rft = lines(run / "expert.jsonl"), lines(run / "rft.jsonl")
    assert d_rft[:3] == expert and len(d_rft) > 3
    new = d_rft[3:]
    assert all(own["success"] and own["source"].startswith("explored, draw ") for own in new)
    assert made.manifest is not None
    counts = made.manifest.counts
    assert counts["new_trajectories"] == len(new) < counts["successful"] < 36
    assert counts["tasks_with_new_trajectories"] == len({own["task"]["variation"] for own in new})


def test_knowagent_keeps_the_shortest_success_of_every_task(tmp_path: Path) -> None:
    write_rules(tmp_path / "rules.json", WITH_PATHS)
    (tmp_path / "rules.md").write_text("start -> take, look")
    root = make_run(
        tmp_path / "run", env__tasks="carry", method__name="knowagent", agent__knowledge=str(tmp_path / "rules.md")
    )
    perform("collect", root, limit=3)
    made = perform("explore", root, explore__n=12)
    data, played = lines(root / "knowagent.jsonl"), lines(root / "explored.jsonl")
    assert data and not (root / "rft.jsonl").exists()
    for own in data:
        lengths = [len(other["steps"]) for other in played if other["success"] and other["task"] == own["task"]]
        assert len(own["steps"]) == min(lengths) and own["success"]
        assert all(step["thought"].startswith("ActionPath: start\n") for step in own["steps"])
    assert made.manifest is not None
    assert made.manifest.counts["new_trajectories"] == len(data) == len({own["id"] for own in data})
    assert Run(root).next_d_exp("knowagent") == root / "expert.jsonl"


def test_knowagent_without_a_success_says_what_to_do(run: Path, words: Model) -> None:
    settings: dict[str, Any] = {"method__name": "knowagent", "model__base": str(words.folder)}
    settings |= {"model__policy": str(words.folder)}
    perform("explore", run, **settings)  # without action paths
    with pytest.raises(UsageError, match=r"knowagent\.jsonl holds no trajectory") as caught:
        perform("train", run, **settings)
    assert f"play more (sand explore --run {run} --n N)" in caught.value.fix


def test_two_trajectories_of_one_task_are_played_as_one(run: Path) -> None:
    path = run / "expert.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, first.replace('"carry_0"', '"carry_0b"'), *rest]) + "\n")
    accept_edit("collect", run)
    perform("explore", run)
    assert records(run) == [(variation, draw) for variation in range(3) for draw in range(4)]


@pytest.mark.slow
def test_more_episodes_and_trajectories_keep_those_that_there_are(run: Path) -> None:
    perform("explore", run, limit=2, explore__n=2)
    before = lines(run / "explored.jsonl")
    assert len(before) == 4
    assert state("explore", run, explore__n=3)[:3] == ("wider", 4, 5)
    perform("explore", run, explore__n=3)
    after = lines(run / "explored.jsonl")
    assert len(after) == 9 and all(line in after for line in before)
    assert state("explore", run, limit=1, explore__n=1).kind == "done"


def test_changed_d_exp_gives_another_d_rft_without_playing_again(run: Path) -> None:
    perform("explore", run, explore__n=12)
    played = (run / "explored.jsonl").read_bytes()
    edit(run / "expert.jsonl", 0, source="by hand")
    assert state("explore", run, explore__n=12).refresh
    perform("explore", run, explore__n=12)
    assert (run / "explored.jsonl").read_bytes() == played
    assert lines(run / "rft.jsonl")[0]["source"] == "by hand"


def test_failed_episode_is_no_record_and_is_tried_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"explore__n": 2, "run__retries": 0}
    with failing(monkeypatch, "(House 1.)"):
        made = perform("explore", run, **settings)
    assert made.exit is Exit.FAILED_UNITS
    assert [failure.unit for failure in made.failures] == [
        ["train", "carry", 1, "policy"],
        ["train", "carry", 1, "policy", 1],
    ]
    assert not (run / "explored.jsonl").exists() and not (run / "rft.jsonl").exists()
    perform("explore", run, **settings)
    assert len(records(run)) == 6


def test_empty_d_exp_is_refused(run: Path) -> None:
    (run / "expert.jsonl").write_text("")
    artifact(run, "collect").note("json").unlink()
    with pytest.raises(UsageError, match="holds no trajectory"):
        perform("explore", run)
