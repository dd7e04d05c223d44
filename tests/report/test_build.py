"""`sand report` on real runs: evaluated on the toy world with the scripted engine."""

import json
from pathlib import Path

import pytest

from sandcli.core.stage import Options, digest_of
from sandcli.errors import PrerequisiteError, SandError, UsageError
from sandcli.models import fingerprint
from sandcli.report.build import build_report, write_files
from sandcli.report.evaluations import read_run
from tests.helpers import accept_edit, artifact, contents, fault, lines, make_run, perform, sand


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    """A run with D_exp, and the base model, SFT and the iteration evaluated on three tasks a split."""
    root = make_run(tmp_path / "it_1")
    perform("collect", root)
    perform("eval", root, eval__models=["base", "sft", "model"])
    return root


def test_scores_match_the_episodes(evaluated: Path) -> None:
    found = read_run(evaluated)
    episodes = lines(evaluated / "eval.jsonl")
    assert (found.world, found.iteration, found.without, found.failed) == ("ToyWorld", 1, "none", 0)
    assert set(found.scores) == {"base", "sft", "model"}
    assert sum(len(kept) for kept in found.scores.values()) == len(episodes) == 18
    for episode in episodes:
        name = f"{episode['task']['name']}_{episode['task']['variation']}"
        (score,) = [s for s in found.scores[episode["model"]] if (s.split, s.task) == (episode["split"], name)]
        assert (score.reward, score.steps) == (episode["reward"], len(episode["steps"]))
        assert (score.tokens, score.deliberated) == (episode["tokens"], episode["deliberated"])
    assert found.trained_tasks == {f"fetch_{number}" for number in range(6)}
    assert found.settings["env.toyworld"] == "1"


def test_the_iteration_and_the_ablation_come_from_the_settings(tmp_path: Path) -> None:
    second = make_run(tmp_path / "it2", run__iteration=2)
    ablated = make_run(tmp_path / "no-critique", method__without="critique")
    for root in (second, ablated):
        perform("eval", root, limit=1)
    made = build_report([second, ablated, second / ".." / "it2"])
    assert [row.label for row in made.rows] == ["SAND, iteration 2", "without critique"]
    assert "table3" in [sheet.name for sheet in made.sheets]


@pytest.mark.slow
def test_the_terminal_shows_tables_and_warnings_go_to_stderr(evaluated: Path) -> None:
    ran = sand("report", evaluated, extra={"COLUMNS": "80"})
    assert ran.returncode == 0, ran.stderr
    assert max(map(len, ran.stdout.splitlines())) <= 80
    for part in ("Table 2", "ToyWorld", "SAND, iteration 1", "Success rate", "Table 4", "by difficulty"):
        assert part in ran.stdout
    assert "no Table 3" in ran.stderr and "warning: " not in ran.stderr
    path = evaluated / "expert.jsonl"
    path.write_text(path.read_text().replace('"name":"fetch","variation":1', '"name":"fetch","variation":7'))
    accept_edit("collect", evaluated)
    leaked = sand("report", evaluated)
    assert f"warning: {evaluated}: 1 of the 3 ToyWorld seen tasks are in its expert.jsonl" in leaked.stderr


@pytest.mark.slow
def test_json_and_the_other_formats(evaluated: Path) -> None:
    found = json.loads(sand("report", evaluated, "--json").stdout)
    assert {"table2", "table4", "success", "differences", "steps", "types", "difficulty"} < set(found)
    row = found["table2"]["rows"][0]
    assert (row["base model"], row["agent"]) == ("smollm2-135m-instruct", "base")
    seen = row["cells"]["ToyWorld seen"]
    assert 0 <= seen["low"] <= seen["mean"] <= seen["high"] <= 100
    for form, part in {"markdown": "| base model |", "latex": r"\toprule", "csv": "base model,agent,from,"}.items():
        ran = sand("report", evaluated, "--format", form)
        assert ran.returncode == 0 and part in ran.stdout
    assert sand("report", evaluated, "--format", "html").returncode == 2


@pytest.mark.slow
def test_the_same_report_writes_the_same_files(evaluated: Path, tmp_path: Path) -> None:
    ran = sand("report", evaluated, "--out", tmp_path / "deep" / "out")
    assert ran.returncode == 0, ran.stderr
    found = contents(tmp_path / "deep" / "out")
    tables = [f"{name}.{kind}" for name in ("table2", "table4", "types") for kind in ("md", "csv", "tex")]
    assert {*tables, "figure3.png", "figure3.svg", "figure4.png", "figure4.svg", "warnings.txt"} <= set(found)
    assert found["figure3.png"].startswith(b"\x89PNG") and b"ToyWorld seen" in found["figure3.svg"]
    assert b"SAND, iteration 1" in found["table2.tex"]
    write_files(build_report([evaluated]), tmp_path / "again")
    assert contents(tmp_path / "again") == found


@pytest.mark.slow
def test_eval_shows_the_report_of_its_run(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    ran = sand("eval", "--run", root, "--limit", "1")
    assert ran.returncode == 0, ran.stderr
    assert "Table 2" in ran.stdout and "SAND, iteration 1" in ran.stdout


@pytest.mark.slow
def test_the_printed_command_adds_the_missing_part(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    perform("eval", root)
    made = build_report([root])
    assert [figure.name for figure in made.figures] == ["figure3"]
    bands, ablations = made.missing
    assert "no Table 3" in ablations
    before, _, command = bands.partition(": sand ")
    assert "Figure 4 for smollm2-135m-instruct on ToyWorld" in before
    assert sand(*command.split()).returncode == 0
    made = build_report([root])
    assert [figure.name for figure in made.figures] == ["figure3", "figure4"]
    assert made.missing == [ablations]


def test_without_an_iteration_there_is_no_figure_4(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    perform("eval", root, eval__models=["base", "sft"])
    made = build_report([root])
    assert [figure.name for figure in made.figures] == ["figure3"]
    assert made.missing[0].endswith(f"sand eval --run {root} --models model")


def test_the_printed_command_keeps_the_limit(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    perform("eval", root, limit=2)
    assert build_report([root]).missing[0].endswith(f"sand eval --run {root} --limit 2 --models base")


def test_a_repeated_episode_is_an_error(evaluated: Path) -> None:
    artifact = evaluated / "eval.jsonl"
    whole = artifact.read_bytes()
    artifact.write_bytes(whole + whole.splitlines(keepends=True)[0])
    number = len(whole.splitlines()) + 1
    with pytest.raises(UsageError, match=rf"eval\.jsonl:{number}: .*the same unit is on line 1"):
        build_report([evaluated])
    artifact.write_bytes(whole)


@pytest.mark.slow
def test_a_folder_that_is_no_run_or_has_no_evaluation_is_an_error(evaluated: Path, tmp_path: Path) -> None:
    ran = sand("report", evaluated, tmp_path / "none")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr.startswith(f"error: {tmp_path}/none is not a run directory")
    (tmp_path / "notes").mkdir()
    with pytest.raises(PrerequisiteError, match="notes is not a run directory"):
        build_report([evaluated, tmp_path / "notes"])
    assert not list((tmp_path / "notes").iterdir())
    empty = make_run(tmp_path / "new")
    with pytest.raises(PrerequisiteError, match=r"new/eval\.jsonl is missing") as caught:
        build_report([evaluated, empty])
    assert caught.value.fix == f"sand eval --run {empty}"


@pytest.mark.slow
def test_failed_episodes_and_different_rules_cause_warnings(tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    sick = make_run(tmp_path / "sick", env__simplifications=f"faults={faults}", run__retries=0, run__in_flight=1)
    other = make_run(tmp_path / "other", env__simplifications="rules=2", run__iteration=2)
    perform("eval", other)
    first = next(episode for episode in lines(other / "eval.jsonl") if episode["task"]["variation"] == 6)
    for _ in range(3):
        fault(faults, "raise", f"fetch_6 {first['steps'][0]['action']}")
    perform("eval", sick, options=Options(accept_failures=True))
    perform("eval", sick, eval__models=["base"])  # does not touch the failed episode
    assert len(artifact(sick, "eval").failures()) == 1
    found = build_report([sick, other]).warnings
    assert any("1 episodes failed and are left out" in line and str(sick) in line for line in found)
    assert any("the version of toyworld differs: 1 in" in line for line in found)
    assert any("has 2 tasks" in line and "ToyWorld seen" in line for line in found)


def test_a_model_trained_again_after_its_evaluation_is_reported(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    perform("eval", root, eval__models=["sft", "model"])
    perform("eval", root, eval__models=["base"])  # the last evaluation does not hide the others
    assert not build_report([root]).warnings
    (root / "sand.toml").write_text((root / "sand.toml").read_text().replace('kind = "scripted"', 'kind = "auto"'))
    for name in ("sft", "model"):
        (root / name).mkdir()
    units = root / "manifests" / "eval.units.json"
    folders = {name: root / str(json.loads(name)[-1]) for name in artifact(root, "eval").digests()}
    made = {name: digest_of(fingerprint(folder)) for name, folder in folders.items() if folder.exists()}
    units.write_text(json.dumps(made))
    assert not build_report([root]).warnings
    (root / "model" / "model.safetensors").write_bytes(b"other weights")
    (line,) = build_report([root]).warnings
    assert "its model was trained again" in line
    assert line.endswith(f"sand eval --run {root} --models base,model,sft --force")


@pytest.mark.slow
def test_environment_variables_do_not_rename_rows(evaluated: Path) -> None:
    names = {"SAND_METHOD_WITHOUT": "sampling", "SAND_RUN_ITERATION": "7", "SAND_MODEL_BASE": "x/other"}
    assert sand("report", evaluated, extra=names).stdout == sand("report", evaluated).stdout


def test_an_ablation_is_recognised_by_its_deliberations_not_by_sand_toml(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    for stage in ("collect", "sample"):
        perform(stage, root)
    perform("synthesize", root, method__without="critique")
    perform("eval", root)
    assert [row.label for row in build_report([root]).rows] == ["without critique"]


def test_with_training_tasks_only_the_command_for_test_tasks_is_printed(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    perform("eval", root, limit=2, eval__splits=["train"])
    missing = build_report([root]).missing
    assert any(line.endswith(f"sand eval --run {root} --limit 2 --splits seen,unseen") for line in missing)


@pytest.mark.slow
def test_with_an_ablation_only_every_printed_command_adds_something(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", method__without="critique")
    perform("eval", root)
    assert [line.rpartition(": ")[2] for line in build_report([root]).missing] == [
        f"sand eval --run {root} --models base",
        "sand init --run NEW",
    ]
    perform("eval", root, eval__models=["base", "model"])
    assert [line.rpartition(": ")[2] for line in build_report([root]).missing] == ["sand init --run NEW"]


def test_the_html_page_cannot_replace_a_folder(evaluated: Path, tmp_path: Path) -> None:
    ran = sand("report", evaluated, "--html", tmp_path)
    assert ran.returncode == 2 and "is a directory" in ran.stderr
    assert not list(tmp_path.glob("*.tmp"))


def test_several_episodes_of_a_task_count_once(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    perform("eval", root, limit=2, eval__n=3, eval__temperature=0.7)
    made = build_report([root])
    episodes = lines(root / "eval.jsonl")
    assert len(episodes) == 12
    table, passes = (next(sheet for sheet in made.sheets if sheet.name == name) for name in ("table2", "passes"))
    seen = [episode["reward"] for episode in episodes if episode["split"] == "seen"]
    assert table.rows[0].cells[0].mean == pytest.approx(100 * sum(seen) / 6)  # type: ignore[union-attr]
    assert passes.rows[0].cells[:3] == ["ToyWorld seen", 2, 3]
    perform("eval", root, limit=2, options=Options(force=True))
    assert "passes" not in [sheet.name for sheet in build_report([root]).sheets]


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """An experiment with one arm and two seeds."""
    root = tmp_path / "x"
    (root / "sand").mkdir(parents=True)
    for seed in (0, 1):
        run = make_run(root / "sand" / f"seed{seed}", run__seed=seed)
        perform("eval", run, limit=1)
    (root / "plan.toml").write_text("seeds = [0, 1]\n[arms.sand]\n")
    return root


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("sand.toml", "sand.toml: not valid TOML"),
        ("eval.jsonl", "eval.jsonl:1: not a valid record"),
        ("manifests/eval.json", "eval.json is damaged"),
    ],
)
def test_damaged_run_of_an_experiment_is_left_out(experiment: Path, name: str, error: str) -> None:
    arm = experiment / "sand"
    assert build_report([experiment]).roots == build_report([arm]).roots == [arm / "seed0", arm / "seed1"]
    (arm / "seed1" / name).write_text("{\n")
    for folder in (experiment, arm):
        made = build_report([folder])
        assert made.roots == [arm / "seed0"]
        assert made.warnings[0].startswith(f"{arm}/seed1 is left out: {arm}/seed1/")
        assert error in made.warnings[0] and "; to fix it: " in made.warnings[0]
    with pytest.raises(SandError, match=error):
        build_report([experiment, arm / "seed1"])
    (arm / "seed0" / name).write_text("{\n")
    with pytest.raises(SandError, match=f"seed0/.*{error}"):
        build_report([experiment])


@pytest.mark.slow
def test_report_without_a_damaged_run_ends_with_0_and_a_warning(experiment: Path, tmp_path: Path) -> None:
    (experiment / "sand" / "seed1" / "expert.jsonl").write_text("{\n")
    ran = sand("report", experiment, "--html", tmp_path / "page.html")
    assert ran.returncode == 0, ran.stderr
    assert f"warning: {experiment}/sand/seed1 is left out: " in ran.stderr and "Table 2" in ran.stdout
    assert "is left out" in (tmp_path / "page.html").read_text(encoding="utf-8")
