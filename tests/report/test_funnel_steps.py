"""The funnel as it is read from a run's artifacts."""

from pathlib import Path

import pytest

from sandcli.core.manifest import Identity, Manifest
from sandcli.core.run import D_DELIB, Run
from sandcli.records import Failure
from sandcli.report.funnel import Funnel
from sandcli.report.funnel_steps import read_funnel
from tests.method.made_up import rollout
from tests.report.made_run import (
    FLAGGED,
    branch,
    expert,
    make_complete,
    replace,
    sample,
    thought,
    trained,
    write,
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_complete(tmp_path)


def read(run: Run) -> Funnel:
    found = read_funnel(run, "none")
    assert found is not None
    return found


def kept(found: Funnel) -> dict[str, int]:
    return {one.name: one.kept for one in found.filters}


def lost(found: Funnel, name: str) -> object:
    return next(one.lost for one in found.filters if one.name == name)


def test_every_filter_is_counted(run: Run) -> None:
    found = read(run)
    assert kept(found) == {
        "expert steps": 10,
        "sampled": 10,
        "inconsistent": 4,
        "rolled out": 4,
        "critiqued": 4,
        "deliberated": 3,
        "in D_delib": 3,
    }
    assert lost(found, "inconsistent") == {"every sample is the expert's action": 6}
    assert lost(found, "deliberated") == {"repeats itself": 1}  # the last attempt counts
    assert not found.notes


def test_consistent_steps_without_samples_have_their_own_reasons(run: Run) -> None:
    unread = [sample("b", t, samples=[], drawn=2, unparsable=2) for t in (0, 2)]
    replace(run, "sample", *(sample("a", t) for t in range(5)), *unread, sample("b", 3, samples=[], drawn=0))
    found = read(run)
    assert lost(found, "sampled") == {"not sampled": 2}
    assert lost(found, "inconsistent") == {
        "every sample is the expert's action": 3,
        "no sample can be read": 2,
        "the history is too long": 1,
    }


def test_failures_are_told_from_what_was_never_done(run: Run) -> None:
    replace(run, "rollout", *(branch(*FLAGGED[at], candidate) for at in (0, 1) for candidate in range(2 - at)))
    run.artifact("rollout").note("json").parent.mkdir()
    run.artifact("rollout").set_failures([Failure(unit=["b", 1, 0], reason="replay_diverged", detail="", attempts=3)])
    assert lost(read(run), "rolled out") == {"failed: replay_diverged": 1, "not rolled out": 2}


def test_a_rollout_of_another_action_does_not_count(run: Run) -> None:
    others = [branch(*step, candidate) for step in FLAGGED[1:] for candidate in (0, 1)]
    replace(run, "rollout", branch("a", 1, 0), rollout(1.0, 1, "sing"), *others)
    assert kept(read(run))["rolled out"] == 3


def test_deliberations_that_do_not_reach_the_training_data(run: Run) -> None:
    write(run.root / D_DELIB, trained("a", t1="Thought ('a', 1).", t2="Of an earlier iteration."))
    found = read(run)
    assert kept(found)["in D_delib"] == 1
    assert lost(found, "in D_delib") == {"its trajectory is left out": 1, "the expert was switched": 1}
    assert found.notes == ["D_delib has 1 more deliberated steps, of earlier iterations or of rollouts."]


def test_records_of_steps_that_an_earlier_filter_lost_are_told(run: Run) -> None:
    replace(run, "sample", *(sample("a", t) for t in range(5)))
    found = read(run)
    assert kept(found)["deliberated"] == 2
    assert [one.outside for one in found.filters if one.name == "deliberated"] == [1]


@pytest.mark.parametrize("harm", ["missing", "damaged"])
@pytest.mark.parametrize(
    ("file", "left_out"),
    [
        ("samples.jsonl", ["sampled", "inconsistent", "rolled out", "critiqued"]),
        ("rollouts.jsonl", ["rolled out"]),
        ("critiques.jsonl", ["critiqued"]),
        ("thoughts.jsonl", ["deliberated", "in D_delib"]),
        ("deliberations.jsonl", ["in D_delib"]),
    ],
)
def test_a_missing_or_damaged_artifact_leaves_out_its_filters(
    run: Run, file: str, left_out: list[str], harm: str
) -> None:
    whole = kept(read(run))
    path = run.root / file
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20])
    found = read(run)
    assert kept(found) == {name: count for name, count in whole.items() if name not in left_out}
    (note,) = found.notes
    assert note.startswith(f"Left out: {', '.join(left_out)} ({path}")


def test_ablations_have_fewer_filters(run: Run) -> None:
    for path in (run.artifact("rollout").path, run.artifact("critique").path):
        path.unlink()
    found = read_funnel(run, "critique")
    assert found is not None and not found.notes
    assert list(kept(found)) == ["expert steps", "sampled", "inconsistent", "deliberated", "in D_delib"]
    run.artifact("sample").path.unlink()
    replace(run, "synthesize", thought("a", 0, "Thought."), thought("a", 1, "", "lists no alternatives"))
    write(run.root / D_DELIB, trained("a", t0="Thought."))
    found = read_funnel(run, "sampling")
    assert found is not None and not found.notes
    assert kept(found) == {"expert steps": 10, "deliberated": 1, "in D_delib": 1}
    assert lost(found, "deliberated") == {"no deliberation was asked for": 8, "lists no alternatives": 1}


def test_control_without_deliberations_has_no_funnel(run: Run) -> None:
    assert read_funnel(run, "none") is not None
    assert read_funnel(run, "deliberations") is None


def test_reasons_from_files_cannot_control_a_terminal(run: Run) -> None:
    replace(run, "synthesize", thought("a", 1, "", "\x1b[2J"))
    assert "\\x1b[2J" in next(one.lost for one in read(run).filters if one.name == "deliberated")


def test_expert_steps_alone_are_no_funnel(tmp_path: Path) -> None:
    assert read_funnel(Run(tmp_path), "none") is None
    replace(Run(tmp_path), "collect", expert("a"))
    assert read_funnel(Run(tmp_path), "none") is None


def test_training_on_other_or_less_data_is_told(run: Run) -> None:
    identity = Identity(settings={"data": "other", "limit": "1"}, inputs={}, scope={})
    made = Manifest(stage="train", identity=identity, counts={"too_long": 2})
    run.artifact("train").note("json").parent.mkdir()
    run.artifact("train").write_manifest(made)
    assert [note.partition(" trained ")[2].partition(" ")[0] for note in read(run).notes] == ["on", "on", ""]
    assert "left out or cut 2 trajectories" in read(run).notes[2]
