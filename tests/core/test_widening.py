"""A larger N, more trajectories, tasks, splits or models only add units."""

from pathlib import Path
from typing import Any

import pytest

from sandcli.engines.scripted import ScriptedEngine
from sandcli.errors import Exit
from tests.core.runs import LIMIT, STAGES
from tests.helpers import artifact, artifacts, contents, lines, make_run, perform, state


@pytest.mark.slow
def test_larger_n_gives_the_bytes_of_a_fresh_run(run: Path, tmp_path: Path, begun: list[str]) -> None:
    fresh = make_run(tmp_path / "fresh", sample__n=5)
    perform("collect", fresh, limit=LIMIT)
    for stage in ("sample", "rollout", "critique"):
        perform(stage, fresh, limit=LIMIT)
        begun.clear()
        assert state(stage, run, limit=LIMIT, sample__n=5).kind == "wider"
        perform(stage, run, limit=LIMIT, sample__n=5)
        assert artifact(run, stage).path.read_bytes() == artifact(fresh, stage).path.read_bytes()
        assert state(stage, run, limit=LIMIT, sample__n=5).kind == "done"
    assert 0 < len(begun) < len(lines(artifact(run, "critique").path))


def test_larger_n_draws_only_what_is_missing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    generate = ScriptedEngine.generate

    async def counted(self: ScriptedEngine, messages: Any, sampling: Any) -> Any:
        drawn.append(sampling.n)
        return await generate(self, messages, sampling)

    monkeypatch.setattr(ScriptedEngine, "generate", counted)
    perform("sample", run, limit=LIMIT, sample__n=5)
    assert drawn == [3] * 12


def test_smaller_n_changes_nothing(run: Path) -> None:
    before = contents(run)
    assert perform("sample", run, limit=LIMIT, sample__n=1).message.endswith("nothing to do")
    assert contents(run) == before


@pytest.mark.slow
def test_more_trajectories_give_the_bytes_of_a_fresh_run(run: Path, tmp_path: Path, begun: list[str]) -> None:
    fresh = make_run(tmp_path / "fresh", sample__n=2)
    for stage in STAGES:
        perform(stage, fresh)
        done = len(lines(artifact(run, stage).path))
        begun.clear()
        perform(stage, run)
        assert len(begun) == len(lines(artifact(run, stage).path)) - done
        assert all(unit.startswith(f"{stage} ") for unit in begun)
    assert artifacts(run) == artifacts(fresh)


@pytest.mark.slow
def test_limit_can_be_raised_step_by_step(finished: Path, tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", sample__n=2)
    for limit in (2, 3):
        for stage in STAGES:
            assert perform(stage, root, limit=limit).exit is Exit.DONE
    assert artifacts(root) == artifacts(finished)


def test_limit_holds_for_a_stage_whose_input_is_larger(run: Path, tmp_path: Path, begun: list[str]) -> None:
    root = make_run(tmp_path / "wide", sample__n=2)
    perform("collect", root)
    perform("sample", root, limit=2)
    assert {line["id"] for line in lines(artifact(root, "sample").path)} == {"fetch_0", "fetch_1"}
    begun.clear()
    assert perform("sample", run, limit=2).message.endswith("nothing to do")
    assert begun == []


def test_more_tasks_and_splits_only_add_units(run: Path, begun: list[str]) -> None:
    eval_before = lines(artifact(run, "eval").path)
    perform("collect", run, env__tasks=["fetch", "carry"])
    assert sorted(begun) == [f'collect ["{name}"]' for name in ("carry_0", "carry_1", "carry_2", "carry_3")] + [
        f'collect ["{name}"]' for name in ("carry_4", "carry_5", "fetch_3", "fetch_4", "fetch_5")
    ]
    begun.clear()
    perform("eval", run, limit=LIMIT, eval__splits=["train", "seen", "unseen"])
    assert sorted(begun) == [f'eval ["train","fetch",{v},"model"]' for v in range(3)]
    assert [line for line in lines(artifact(run, "eval").path) if line["split"] != "train"] == eval_before


def test_splits_one_after_the_other_give_the_bytes_of_both_together(finished: Path, run: Path) -> None:
    artifact(run, "eval").set_aside()
    perform("eval", run, limit=LIMIT, eval__splits=["seen"])
    perform("eval", run, limit=LIMIT, eval__splits=["unseen"])
    assert state("eval", run, limit=LIMIT).kind == "done"
    perform("eval", run, limit=LIMIT)
    assert artifacts(run) == artifacts(finished)


def test_models_can_be_evaluated_one_after_the_other(run: Path, begun: list[str]) -> None:
    perform("eval", run, limit=1, eval__models=["base"])
    assert sorted(begun) == ['eval ["seen","fetch",6,"base"]', 'eval ["unseen","fetch",9,"base"]']
    assert state("eval", run, limit=1, eval__models=["model", "base"]).kind == "done"
