"""`sand run`: Algorithm 1 on the toy world, with scripted agents and tiny models that are trained."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sandcli
from sandcli.agent.conversation import training_messages
from sandcli.cli.app import app
from sandcli.config import resolve
from sandcli.core.context import model_fingerprint
from sandcli.core.run import Run
from sandcli.core.stage import Options
from sandcli.core.store import Records
from sandcli.engines.adapters import adapter_config
from sandcli.engines.base import Model
from sandcli.engines.scripted import ScriptedEngine
from sandcli.errors import Exit, MachineryError, PrerequisiteError, UsageError
from sandcli.new_run import start_run
from sandcli.perform import context_of, perform
from sandcli.pipeline import row
from sandcli.records import Trajectory
from sandcli.report.diagnostics import diagnostics_of
from sandcli.report.evaluations import read_run
from sandcli.report.rows import agent_rows
from sandcli.stages.train import TrainStage
from tests.helpers import artifacts, context, lines, make_run, sand, write_rules
from tests.stages.test_explore import WITH_PATHS
from tests.stages.test_knowledge import SURE
from tests.trainer import Trainer


def prepared(root: Path, tiny: Path, **settings: str | int) -> Path:
    return make_run(
        root, sample__n=2, model__base=str(tiny), sft__epochs=1, train__epochs=1, eval__splits="seen", **settings
    )


def row_names(root: Path) -> set[str]:
    """What a report calls the agents of a run."""
    return {row.name for row in agent_rows([read_run(root)])}


@pytest.mark.real
def test_two_iterations_follow_each_other_and_are_done_once(tmp_path: Path, tiny: Path) -> None:
    root = prepared(tmp_path / "it1", tiny)
    first = sandcli.iterate(root, iterations=1)
    assert [summary.stage for summary in first] == [
        *("collect", "sft", "sample", "rollout", "critique", "synthesize", "train", "eval")
    ]
    trained = (root / "model" / "model.safetensors").stat().st_mtime_ns
    both = sandcli.iterate(root, iterations=2)
    assert [summary.stage for summary in both[8:]] == ["sample", "rollout", "critique", "synthesize", "train", "eval"]
    assert (root / "model" / "model.safetensors").stat().st_mtime_ns == trained
    assert (tmp_path / "it2" / "expert.jsonl").read_bytes() == (root / "deliberations.jsonl").read_bytes()
    assert all(s.message.endswith("nothing to do") for s in sandcli.iterate(root, iterations=2))


@pytest.mark.slow
def test_until_stops_after_a_stage_and_the_rest_resumes(tmp_path: Path, words: Model, trainer: Trainer) -> None:
    root = prepared(tmp_path / "it1", words.folder)
    ran = CliRunner().invoke(app, ["run", "--run", str(root), "--iterations", "1", "--until", "rollout"])
    assert ran.exit_code == 0, ran.stderr
    assert ran.stderr.endswith(f"done as far as rollout\nnext: sand critique --run {root}\n")
    assert not (root / "critiques.jsonl").exists()
    ran = CliRunner().invoke(app, ["run", "--run", str(root), "--iterations", "1"])
    assert ran.exit_code == 0, ran.stderr
    assert ran.stderr.endswith(f"every stage is done\nnext: sand report {root}\n")
    whole = prepared(tmp_path / "whole", words.folder)
    sandcli.iterate(whole, iterations=1)
    assert artifacts(root) == artifacts(whole)


def test_ablation_goes_without_its_stages(tmp_path: Path, words: Model, trainer: Trainer) -> None:
    root = prepared(tmp_path / "it1", words.folder, method__without="critique")
    ran = CliRunner().invoke(app, ["run", "--run", str(root), "--iterations", "1"])
    assert ran.exit_code == 0, ran.stderr
    assert "rollout: skipped, since method.without is critique\n" in ran.stderr
    assert not (root / "rollouts.jsonl").exists() and (root / "eval.jsonl").exists()


@pytest.mark.slow
def test_rejection_sampling_trains_on_its_own_successes(tmp_path: Path, words: Model, trainer: Trainer) -> None:
    root = prepared(tmp_path / "it1", words.folder, method__name="rft", env__tasks="fetch,carry", explore__n=4)
    first = sandcli.iterate(root, iterations=1)
    assert [summary.stage for summary in first] == ["collect", "sft", "explore", "train", "eval"]
    expert, d_rft = lines(root / "expert.jsonl"), lines(root / "rft.jsonl")
    assert trainer.learned_from[-1] == root / "rft.jsonl"
    assert len(d_rft) > len(expert) and d_rft[: len(expert)] == expert
    both = sandcli.iterate(root, iterations=2)
    assert [summary.stage for summary in both[5:]] == ["explore", "train", "eval"]
    assert lines(tmp_path / "it2" / "expert.jsonl") == d_rft
    second = lines(tmp_path / "it2" / "rft.jsonl")
    assert second[: len(d_rft)] == d_rft and len({trajectory["id"] for trajectory in second}) == len(second)
    assert all(s.message.endswith("nothing to do") for s in sandcli.iterate(root, iterations=2))


@pytest.mark.slow
@pytest.mark.parametrize("source", ["explored", "rollouts"])
def test_eto_prefers_the_better_trajectory_and_keeps_d_exp(
    tmp_path: Path, words: Model, trainer: Trainer, source: str
) -> None:
    settings: dict[str, str | int] = {
        "method__name": "eto",
        "pairs__source": source,
        "explore__n": 4,
        "explore__temperature": 1,
    }
    root = prepared(tmp_path / "it1", words.folder, **settings)
    first = sandcli.iterate(root, iterations=1)
    compared = ["explore"] if source == "explored" else ["sample", "rollout"]
    assert [summary.stage for summary in first] == ["collect", "sft", *compared, "pairs", "prefer", "eval"]
    assert lines(root / "pairs.jsonl") and (root / "model").is_dir()
    both = sandcli.iterate(root, iterations=2)
    assert [summary.stage for summary in both[len(first) :]] == [*compared, "pairs", "prefer", "eval"]
    assert (tmp_path / "it2" / "expert.jsonl").read_bytes() == (root / "expert.jsonl").read_bytes()
    later = resolve(tmp_path / "it2", {}, {}).settings
    assert (later.prefer.beta, later.prefer.learning_rate, later.model.policy) == (0.5, 5e-7, "../it1/model")


@pytest.mark.slow
def test_mpo_improves_the_planner_and_keeps_the_policy(tmp_path: Path, words: Model, trainer: Trainer) -> None:
    root = prepared(tmp_path / "it1", words.folder, method__name="mpo", plan__n=4, explore__n=2)
    first = sandcli.iterate(root, iterations=1)
    made = ["plan", "explore", "pairs", "prefer", "eval"]
    assert [summary.stage for summary in first] == ["collect", "sft", *made]
    assert all(episode.plan is not None and episode.model == "policy" for episode in Run(root).episodes())
    sandcli.iterate(root, iterations=2)
    later = resolve(tmp_path / "it2", {}, {}).settings
    assert (later.model.planner, later.model.policy) == ("../it1/model", "../it1/sft")
    assert (tmp_path / "it2" / "model").exists()


@pytest.mark.parametrize("setting", ["model.policy", "model.planner", "eval.planner"])
def test_missing_model_shows_before_anything_is_done(tmp_path: Path, words: Model, setting: str) -> None:
    settings = {"method__name": "mpo", "engine__kind": "transformers", setting.replace(".", "__"): "../none"}
    root = prepared(tmp_path / "it1", words.folder, **settings)
    with pytest.raises(PrerequisiteError, match="none is not a model folder") as caught:
        sandcli.iterate(root, iterations=1)
    assert caught.value.fix == f"correct {setting}"
    assert not (root / "expert.jsonl").exists()


@pytest.mark.slow
def test_early_experience_reflects_on_one_step_and_trains_the_base_model(
    tmp_path: Path, words: Model, trainer: Trainer
) -> None:
    settings: dict[str, str | int] = {"method__name": "early-experience", "env__tasks": "fetch,carry"}
    root = prepared(tmp_path / "it1", words.folder, **settings)
    done = sandcli.iterate(root, iterations=1)
    assert [summary.stage for summary in done] == ["collect", "sample", "rollout", "synthesize", "train", "eval"]
    assert all(len(rollout.steps) == 1 for rollout in Run(root).rollouts())
    reflected = {made.id for made in Run(root).deliberations() if any(step.deliberated for step in made.steps)}
    experts = {made.id for made in Run(root).trajectories()}
    assert reflected and reflected <= experts
    assert {made.id for made in Run(root).deliberations()} == experts | {f"{name} (expert)" for name in reflected}
    assert done[3].manifest is not None and done[3].manifest.counts["deliberated"] > 0
    (diagnostics,) = diagnostics_of([read_run(root)])
    assert diagnostics.funnel is not None and not diagnostics.funnel.notes
    assert [one.name for one in diagnostics.funnel.filters][-3:] == ["rolled out", "deliberated", "in D_delib"]
    assert row_names(root) == {"EARLY-EXPERIENCE, iteration 1"}


@pytest.mark.slow
def test_mpo_goes_on_with_a_planner_that_was_fine_tuned_on_the_best_plans(
    tmp_path: Path, words: Model, trainer: Trainer
) -> None:
    root = prepared(tmp_path / "it1", words.folder, method__name="mpo-sft", plan__n=4, explore__n=2)
    done = sandcli.iterate(root, iterations=1)
    assert [summary.stage for summary in done] == ["collect", "sft", "plan", "explore", "train", "eval"]
    stage = TrainStage(context(root))
    (learned, *_) = list(Records(stage.data(), Trajectory))
    played = next(episode for episode in Run(root).explored() if episode.task == learned.task)
    assert training_messages(stage.preamble, learned)[:-1] == stage.context.planner_question(played.instruction)
    assert learned.steps[0].thought == "1. Go to the kitchen." and stage.start().folder == words.folder
    assert row_names(root) == {"MPO-SFT, iteration 1"}
    start_run(tmp_path / "it2", root, {"method.name": "mpo"})
    later = resolve(tmp_path / "it2", {}, {}).settings
    assert (later.model.planner, later.model.policy, later.eval.planner) == ("../it1/model", "../it1/sft", "model")
    assert [summary.stage for summary in sandcli.iterate(tmp_path / "it2", iterations=1)][-2:] == ["prefer", "eval"]


def test_wkm_trains_two_adapters_of_the_base_model(tmp_path: Path, words: Model, trainer: Trainer) -> None:
    write_rules(tmp_path / "rules.json", SURE)
    root = prepared(tmp_path / "it1", words.folder, method__name="wkm")
    first = sandcli.iterate(root, iterations=1)
    made = ["explore", "knowledge", "wkm", "train", "eval"]
    assert [summary.stage for summary in first] == ["collect", "sft", *made]
    for stage in ("wkm", "train"):
        identity = row(stage).stage(context(root)).identity()
        assert identity.settings["start"] == model_fingerprint(words.folder)
    assert all(each.plan and each.model == "model" for each in Run(root).episodes())
    assert all(summary.message.endswith("nothing to do") for summary in sandcli.iterate(root, iterations=1))
    again = sandcli.iterate(root, iterations=2)
    assert [summary.stage for summary in again[len(first) :]] == made
    later = resolve(tmp_path / "it2", {}, {}).settings
    assert (later.train.epochs, later.model.policy, later.eval.planner) == (1, "../it1/model", "wkm")


@pytest.mark.real
def test_knowagent_trains_an_adapter_of_the_base_model_on_its_shortest_successes(tmp_path: Path, tiny: Path) -> None:
    write_rules(tmp_path / "rules.json", WITH_PATHS)
    rules = tmp_path / "rules.md"
    rules.write_text("start -> take, look")
    settings = {"method__name": "knowagent", "env__tasks": "fetch,carry", "agent__knowledge": str(rules)}
    root = prepared(tmp_path / "it1", tiny, **settings)
    first = sandcli.iterate(root, iterations=1)
    assert [summary.stage for summary in first] == ["collect", "explore", "train", "eval"]
    assert first[2].manifest is not None
    assert first[2].manifest.counts["trajectories"] == len(lines(root / "knowagent.jsonl")) > 0
    both = sandcli.iterate(root, iterations=2)
    assert [summary.stage for summary in both[4:]] == ["explore", "train", "eval"]
    later = tmp_path / "it2"
    assert (later / "expert.jsonl").read_bytes() == (root / "expert.jsonl").read_bytes()
    for run in (root, later):  # the second round goes on with the adapter of the first
        assert adapter_config(run / "model").r == 8
        assert adapter_config(run / "model").base_model_name_or_path == str(tiny)
    assert resolve(later, {}, {}).settings.model.policy == "../it1/model"
    assert all(s.message.endswith("nothing to do") for s in sandcli.iterate(root, iterations=2))


def test_control_without_deliberations_trains_on_d_exp(tmp_path: Path, words: Model, trainer: Trainer) -> None:
    root = prepared(tmp_path / "it1", words.folder, method__without="deliberations")
    done = sandcli.iterate(root, iterations=1)
    assert [summary.stage for summary in done] == ["collect", "sft", "synthesize", "train", "eval"]
    assert (root / "deliberations.jsonl").read_bytes() == (root / "expert.jsonl").read_bytes()


@pytest.mark.slow
def test_dry_run_makes_nothing(tmp_path: Path) -> None:
    root = make_run(tmp_path / "it1")
    ran = sand("run", "--run", root, "--dry-run")
    assert ran.returncode == 0, ran.stderr
    assert "collect: missing; 0 units recorded, 6 to do" in ran.stderr
    assert f"sample: cannot be planned yet: {root}/expert.jsonl is missing" in ran.stderr
    assert sorted(path.name for path in root.iterdir()) == ["manifests", "sand.toml"]


def test_failed_units_end_the_pipeline(
    tmp_path: Path, words: Model, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: ScriptedEngine, messages: object, sampling: object) -> object:
        raise MachineryError("engine", "out of order")

    monkeypatch.setattr(ScriptedEngine, "generate", broken)
    summaries = sandcli.iterate(prepared(tmp_path / "it1", words.folder), iterations=1)
    assert [(s.stage, s.exit) for s in summaries[-2:]] == [("sft", Exit.DONE), ("sample", Exit.FAILED_UNITS)]


@pytest.mark.parametrize(
    ("mode", "url", "warns"),
    [(0o644, "http://u:hidden@a", True), (0o600, "http://u:hidden@a", False), (0o644, "http://a", False)],
)
def test_password_in_a_file_that_others_can_read_is_warned_of_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], mode: int, url: str, warns: bool
) -> None:
    root = make_run(tmp_path / "run")
    file = root / "sand.toml"
    file.write_text(file.read_text().replace("# urls = []", f'urls = ["{url}"]'))
    file.chmod(mode)
    for _ in range(2):
        assert context_of(Run(root), {}).settings.engine.urls == [url]
    said = capfd.readouterr().err
    assert said == (f"{file} holds a password, and other users may read it: chmod 600 {file}\n" if warns else "")


def test_unknown_stage_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the method sand has no stage 'rollouts'"):
        sandcli.iterate(make_run(tmp_path / "it1"), until="rollouts")
    for other in ("counterfactual", "explore"):  # no run includes it, or no run of this method
        with pytest.raises(UsageError, match=f"sand has no stage '{other}'"):
            sandcli.iterate(tmp_path / "it1", until=other)


@pytest.mark.slow
def test_stage_of_another_variant_can_be_skipped_by_scripts(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", model__policy="../it1/model")
    ran = sand("sft", "--run", root, "--if-needed")
    assert (ran.returncode, ran.stderr) == (0, "sft: skipped, since the run starts from the policy ../it1/model\n")
    assert sand("sft", "--run", root).returncode == 2


def test_run_that_starts_from_a_policy_makes_no_sft(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", model__policy="../it1/model", engine__kind="transformers")
    with pytest.raises(UsageError, match=r"starts from the policy \.\./it1/model"):
        asyncio.run(perform("sft", context(run), Options()))
    with pytest.raises(UsageError, match=r"starts from the policy \.\./it1/model"):
        asyncio.run(perform("eval", context(run, eval__models=["sft"]), Options()))
