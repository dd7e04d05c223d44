"""The `sand` command as a user sees it: exit codes, errors with their fix, output at 80 columns, and a fast start."""

import json
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

import sandcli
from sandcli.bench.rollouts import Way
from sandcli.cli.tools import bench_rollout
from sandcli.core.run import ARTIFACTS
from sandcli.engines.base import Usage
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.models import locate
from tests.helpers import SAND, artifact, contents, environment, fault, make_run, perform, sand, wait_until

HEAVY = ("torch", "transformers", "numpy", "matplotlib", "textworld", "scienceworld", "py4j")

COMMANDS = (*ARTIFACTS, "run", "init", "report", "status", "show", "config", "doctor")

BARE = """
import typer
app = typer.Typer()
@app.command()
def first() -> None: ...
@app.command()
def second() -> None: ...
app()
"""
OURS = "from sandcli.cli import main; main()"

# Processor time is no reliable measure: under load, the same start takes half as long again.
COUNTING = """
import sys
calls, program = 0, sys.argv.pop(1)
def count(frame, event, argument):
    global calls
    calls += event in ("call", "c_call")
sys.setprofile(count)
try:
    exec(program)
finally:
    sys.setprofile(None)
    print(calls, file=sys.stderr)
"""


def error_of(ran: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """The error and its fix, which must be all of the output."""
    assert ran.stdout == ""
    match = re.fullmatch(r"error: (.*)\n  fix: (.*)\n", ran.stderr)
    assert match is not None, ran.stderr
    return match[1], match[2]


def calls_made(program: str) -> int:
    """How many functions a program calls for `--help`, imports included: the same number on any machine."""
    ran = subprocess.run(
        [sys.executable, "-c", COUNTING, program, "--help"],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    return int(ran.stderr)


def test_without_alfworld_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from sandcli.envs.alfworld.world import Alfworld

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError, match="ALFWorld needs alfworld") as caught:
        Alfworld().check_available()
    assert caught.value.fix == "make setup-alfworld"


def test_importing_the_commands_imports_nothing_heavy() -> None:
    code = "import sandcli.cli, sys; print(*(m for m in sys.modules if m.partition('.')[0] in sys.argv[1:]))"
    ran = subprocess.run([sys.executable, "-c", code, *HEAVY], env=environment(), capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.strip()) == (0, "")


@pytest.mark.slow
def test_planning_imports_nothing_heavy(tmp_path: Path) -> None:
    make_run(tmp_path / "run", env__name="scienceworld", env__tasks="paper", env__simplifications="eto")
    code = (
        "import sys; from sandcli.cli import app; app(sys.argv[1].split(), standalone_mode=False); "
        f"print(*(m for m in sys.modules if m.partition('.')[0] in {HEAVY}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, f"collect --run {tmp_path}/run --dry-run"],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, ""), ran.stderr
    assert "collect: missing; 0 units recorded," in ran.stderr


@pytest.mark.slow
def test_help_does_about_the_work_of_a_bare_typer_app() -> None:
    bare, ours = calls_made(BARE), calls_made(OURS)
    assert 100_000 < bare < ours <= 1.65 * bare  # each of our commands adds about a hundredth


def test_help_lists_every_command_and_the_exit_codes() -> None:
    ran = sand("--help")
    assert ran.returncode == 0
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", ran.stdout)
    assert "130 interrupted" in ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["no-such-command"], ["sample"], ["sample", "--run", "x", "--n", "many"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert sand(*arguments).returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "arguments", "what", "fix"),
    [
        ({"env__tasks": "boil,find-plants"}, ["collect"], "'find-plants'", "did you mean find-plant?"),
        ({}, ["eval", "--splits", "seen,dev"], "unknown split 'dev'", "use train, seen or unseen"),
        (
            {"env__name": "scienceworlds"},
            ["collect"],
            "'scienceworlds'",
            "use one of alfworld, scienceworld, or module:Class",
        ),
        ({"env__name": "tests.toyworld:None"}, ["collect"], "'tests.toyworld:None'", "use one of alfworld"),
        (
            {},
            ["collect", "--engine", "vlm"],
            "--engine: ",
            "one of auto, transformers, vllm, server, scripted; it means: auto chooses",
        ),
        ({}, ["collect", "--from", "none.json"], "none.json: No such file", "use the path of a JSON file"),
    ],
    ids=["task", "split", "environment", "class", "engine", "file"],
)
def test_an_unknown_name_is_a_usage_error(
    tmp_path: Path, settings: dict[str, str], arguments: list[str], what: str, fix: str
) -> None:
    defaults = {"env__name": "scienceworld", "env__tasks": "paper", "env__simplifications": "eto"}
    make_run(tmp_path / "run", **{**defaults, **settings})
    ran = sand(*arguments, "--run", tmp_path / "run")
    assert ran.returncode == 2
    found = error_of(ran)
    assert what in found[0]
    assert found[1].startswith(fix)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "missing", "fix"),
    [
        ("sample", "expert.jsonl", "collect"),
        ("train", "thoughts.jsonl", "synthesize"),
        ("report", "eval.jsonl", "eval"),
        ("show", "expert.jsonl", "collect"),
    ],
)
def test_a_stage_before_its_input_exits_with_3(tmp_path: Path, stage: str, missing: str, fix: str) -> None:
    root = make_run(tmp_path / "run")
    ran = sand(stage, *([root] if stage == "report" else ["--run", root]))
    assert ran.returncode == 3
    assert error_of(ran) == (f"{root}/{missing} is missing", f"sand {fix} --run {root}")


@pytest.mark.parametrize("command", ["collect", "sft", "status", "config"])
def test_without_a_run_directory_every_command_exits_with_3(tmp_path: Path, command: str) -> None:
    ran = sand(command, "--run", tmp_path / "none")
    assert ran.returncode == 3
    assert error_of(ran) == (f"there is no run directory {tmp_path}/none", f"sand init --run {tmp_path}/none")
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_an_iteration_by_hand(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", env__tasks="carry")
    following = {
        "collect": "sft",
        "sample": "rollout",
        "rollout": "critique",
        "critique": "synthesize",
        "synthesize": "train",
    }
    for stage, then in following.items():
        ran = sand(stage, "--run", root, "--limit", "2")
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout == ""
        assert ran.stderr.splitlines()[-1] == f"next: sand {then} --run {root}"
    ran = sand("eval", "--run", root, "--limit", "1", "--splits", "train", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["manifest"]["counts"]["units"] == 1
    (row,) = json.loads(sand("report", root, "--json").stdout)["table2"]["rows"]
    assert (row["agent"], row["paper"], row["cells"]["average"]) == ("SAND, iteration 1", False, None)


@pytest.mark.slow
def test_a_finished_stage_prints_one_line_and_exits_with_0(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    perform("collect", root)
    before = contents(root)
    ran = sand("collect", "--run", root)
    assert ran.returncode == 0
    assert f"{root}/expert.jsonl is complete: nothing to do\n" in ran.stderr
    assert contents(root) == before


@pytest.mark.slow
def test_a_stale_stage_says_what_changed_and_exits_with_3(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    perform("collect", root)
    perform("sample", root)
    ran = sand("sample", "--run", root, "--temperature", "0.5")
    assert ran.returncode == 3
    what, fix = error_of(ran)
    assert what == f"{root}/samples.jsonl was made from something else: sample.temperature: was 1.0, is 0.5"
    assert fix == "--force moves it aside and redoes it, --accept-stale keeps it as it is"


@pytest.mark.slow
def test_failed_units_exit_with_1_and_are_listed(tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    root = make_run(tmp_path / "run", env__simplifications=f"faults={faults}", run__retries=0, run__in_flight=1)
    for _ in range(3):
        fault(faults, "raise", "fetch_0 take lamp")
    ran = sand("collect", "--run", root, "--seed", "5")
    assert ran.returncode == 1, ran.stderr
    assert "1 units failed" in ran.stderr
    again = (
        f"next: sand collect --run {root} --seed 5 (tries them again; add --accept-failures to continue without them)"
    )
    assert again in ran.stderr.replace("\n", " ")
    assert "Traceback" not in ran.stderr
    items = json.loads(sand("status", "--run", root, "--json", extra={"SAND_RUN_SEED": "5"}).stdout)
    assert items[0]["failures"] == {"environment": 1}
    assert (items[0]["state"], items[0]["recorded"], items[0]["todo"]) == ("partial", 5, 1)
    assert sand("collect", "--run", root, "--seed", "5").returncode == 0


@pytest.mark.slow
def test_two_processes_cannot_run_the_same_stage(tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    root = make_run(tmp_path / "run", env__simplifications=f"faults={faults}")
    fault(faults, "hang", "fetch_0 take lamp")
    with subprocess.Popen(
        [*SAND, "collect", "--run", str(root)], env=environment(), stderr=subprocess.DEVNULL
    ) as first:
        try:
            wait_until(lambda: not list(faults.iterdir()), 30)
            ran = sand("collect", "--run", root)
            assert ran.returncode == 3
            what, fix = error_of(ran)
            assert what == f"sand collect --run {root} is running in another process (pid {first.pid})"
            assert fix == "wait for it to finish, or stop it, then run the command again"
            assert sand("status", "--run", root).returncode == 0
        finally:
            first.kill()
    assert sand("collect", "--run", root).returncode == 0


@pytest.mark.slow
def test_a_corrupt_artifact_exits_with_2_and_names_the_line(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    perform("collect", root)
    path = artifact(root, "collect").path
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([whole[0], whole[1][:40] + b"\n", *whole[2:]]))
    ran = sand("sample", "--run", root)
    assert ran.returncode == 2
    assert error_of(ran)[0].startswith(f"{path}:2: not a valid record: ")
    items = json.loads(sand("status", "--run", root, "--json").stdout)
    assert [item["state"] for item in items] == ["unclear", *["missing"] * 7]
    assert items[0]["note"].startswith(f"{path}:2: not a valid record: ")


def test_the_version() -> None:
    assert sand("--version").stdout == f"sand {sandcli.__version__}\n"


@pytest.mark.slow
@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_internal_error_exits_with_70_and_shows_a_traceback_only_with_debug(tmp_path: Path, debug: list[str]) -> None:
    program = "import sandcli.status; sandcli.status.status_of = lambda context: 1 + ''; main()"
    command = [sys.executable, "-c", f"from sandcli.cli import main; {program}", *debug, "status", "--run"]
    root = str(make_run(tmp_path / "run"))
    ran = subprocess.run([*command, root], env=environment(), capture_output=True, text=True)
    assert ("Traceback" in ran.stderr) == bool(debug)
    if not debug:
        what, fix = error_of(ran)
        assert (ran.returncode, fix) == (70, "sand --debug with the same command shows the traceback")
        assert what.startswith("internal error: TypeError: ")


def test_errors_do_not_control_the_terminal(tmp_path: Path) -> None:
    ran = sand("status", "--run", tmp_path / "[red]\x1b[2J")
    assert (ran.returncode, error_of(ran)[0]) == (3, f"there is no run directory {tmp_path}/[red]\\x1b[2J")


@pytest.mark.slow
@pytest.mark.parametrize("columns", ["80", "200"])
def test_settings_have_whole_names(tmp_path: Path, columns: str) -> None:
    ran = sand("config", "--run", make_run(tmp_path / "run"), extra={"COLUMNS": columns})
    names = {item["name"] for item in json.loads(sand("config", "--run", tmp_path / "run", "--json").stdout)}
    assert names <= set(ran.stdout.split())


def test_settings_are_shown_with_their_origin(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", sample__n=3)
    ran = sand("config", "--run", root, "--json", extra={"SAND_RUN_SEED": "7"})
    found = {item["name"]: item for item in json.loads(ran.stdout)}
    assert found["sample.n"]["value"] == 3
    assert re.fullmatch(rf"{root}/sand.toml:\d+", found["sample.n"]["origin"])
    assert (found["run.seed"]["value"], found["run.seed"]["origin"]) == (7, "SAND_RUN_SEED")


def test_a_dry_run_prints_the_real_command(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    ran = sand("eval", "--run", root, "--models", "base", "--limit", "2", "--dry-run")
    assert ran.stderr.endswith(f"next: sand eval --run {root} --models base --limit 2\n")


def test_without_tasks_there_is_nothing_to_collect(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no task to collect in toyworld with env\.tasks = \[\]"):
        perform("collect", make_run(tmp_path / "run", env__tasks=""))


def test_a_folder_without_a_model_type_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(PrerequisiteError, match="names no model_type"):
        locate(str(tmp_path / "model"))


@pytest.mark.slow
def test_the_rollout_benchmark_compares_four_variants(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    ran = sand("bench", "rollout", "--run", tmp_path / "run", "--episodes", "8", "--json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert list(found) == ["vs_sequential", "vs_lockstep", "vs_engine", "prefix_hit_rate"]
    assert min(found["vs_sequential"], found["vs_lockstep"], found["vs_engine"]) > 0


def test_rollout_benchmark_says_if_servers_do_not_tell_about_their_cache(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ways = [Way(name, 1.0, Usage(prompt=10, generated=5, batch=1.0, untold=10)) for name in "abcd"]
    monkeypatch.setattr("sandcli.bench.rollouts.chosen", lambda run, engine: nullcontext((None, None)))
    monkeypatch.setattr("sandcli.bench.rollouts.bench_rollouts", lambda *_: ways)
    bench_rollout()
    assert "prefix_hit_rate: unknown" in capsys.readouterr().out
