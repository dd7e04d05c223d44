"""The package as a library: plain Python, a caller's event loop, and a real Jupyter kernel."""

import asyncio
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import sandcli
from sandcli.core.store import Records
from sandcli.errors import Exit, PrerequisiteError, UsageError
from sandcli.install import install_command
from sandcli.records import Critique, Rollout, Sample, Thought, Trajectory
from tests.helpers import REPO, make_run, watched, write_rules

HEAVY = ("asyncio", "datasets", "matplotlib", "numpy", "pandas", "rich", "torch", "transformers", "typer")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def collected(folder: Path) -> sandcli.Run:
    """A run with two expert trajectories."""
    run = sandcli.Run(make_run(folder, env__tasks="carry", sample__n=3))
    assert sandcli.collect(run, limit=2).exit is Exit.DONE
    return run


# Plain Python


@pytest.mark.slow
def test_the_verbs_make_what_the_run_reads(tmp_path: Path) -> None:
    run = collected(tmp_path / "it1")
    for verb in (sandcli.sample, sandcli.rollout, sandcli.critique, sandcli.synthesize):
        assert verb(run).exit is Exit.DONE
    kinds = {
        Trajectory: [*run.trajectories(), *run.deliberations()],
        Sample: [*run.samples()],
        Rollout: [*run.rollouts()],
        Critique: [*run.critiques()],
        Thought: [*run.thoughts()],
    }
    assert all(records and all(type(record) is kind for record in records) for kind, records in kinds.items())


def test_a_verb_takes_a_path_and_says_what_it_made(tmp_path: Path) -> None:
    run = collected(tmp_path / "it1")
    summary = sandcli.sample(str(run.root), n=2)
    samples = list(sandcli.Run(run.root).samples())
    assert (summary.stage, summary.failures) == ("sample", [])
    assert summary.manifest is not None and summary.manifest.counts["units"] == len(samples)
    assert sandcli.sample(run.root, n=2).message.endswith("nothing to do")


def test_records_become_tables(tmp_path: Path) -> None:
    run = collected(tmp_path / "it1")
    sandcli.sample(run)
    records, frame, dataset = list(run.samples()), run.samples().to_pandas(), run.samples().to_dataset()
    assert len(records) == len(frame) == len(dataset) > 0
    assert list(frame.columns) == dataset.column_names == list(Sample.__struct_fields__)
    assert list(frame["deliberate"]) == list(dataset["deliberate"]) == [record.deliberate for record in records]


def test_init_takes_settings_as_python_values(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"sample.n": 4, "env.tasks": ["fetch", "carry"], "sample.temperature": 0.7}
    run = sandcli.init(tmp_path / "it1", settings={**settings, "env.name": "tests.toyworld:ToyWorld"})
    written = (run.root / "sand.toml").read_text()
    assert isinstance(run, sandcli.Run)
    assert all(line in written for line in ("n = 4", 'tasks = ["fetch", "carry"]', "temperature = 0.7"))


def test_a_run_made_by_init_works(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "env.name": "tests.toyworld:ToyWorld",
        "env.tasks": ["carry"],
        "env.simplifications": "none",
        "engine.kind": "scripted",
        "engine.script": str(write_rules(tmp_path / "rules.json")),
        "collect.thoughts": "none",
    }
    run = sandcli.init(tmp_path / "it1", settings=settings)
    assert sandcli.collect(run, limit=1).exit is Exit.DONE
    assert sandcli.sample(run, n=2).exit is Exit.DONE


# Errors


@pytest.mark.parametrize("settings", [{"sample.m": 3}, {"sample.n": 0}, {"sample.n": "many"}, {"engine.kind": "vlm"}])
def test_init_refuses_a_wrong_setting(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        sandcli.init(tmp_path / "it1", settings=settings)
    assert next(iter(settings)) in caught.value.what
    assert not (tmp_path / "it1").exists()


def test_init_refuses_a_run_that_is_there(tmp_path: Path) -> None:
    sandcli.init(tmp_path / "it1")
    with pytest.raises(UsageError, match="is a run already"):
        sandcli.init(tmp_path / "it1")


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"n": 0}, {"n": "many"}, {"temperature": -1.0}, {"engine": "vlm"}])
def test_a_verb_refuses_a_wrong_option(tmp_path: Path, options: dict[str, Any]) -> None:
    run = collected(tmp_path / "it1")
    with pytest.raises(UsageError):
        sandcli.sample(run, **options)


@pytest.mark.parametrize("options", [{"limit": 0}, {"iterations": 0}])
def test_a_bound_that_is_no_setting_holds_too(tmp_path: Path, options: dict[str, Any]) -> None:
    run = sandcli.Run(make_run(tmp_path / "it1"))
    verb: Any = sandcli.iterate if "iterations" in options else sandcli.collect
    (name,) = options
    for call in (verb, lambda *args, **kwargs: asyncio.run(verb.aio(*args, **kwargs))):
        with pytest.raises(UsageError, match=f"{name} is 0") as caught:
            call(run, **options)
        assert caught.value.fix == f"pass {name}=1 or more"


def test_what_is_missing_is_an_error_with_its_fix(tmp_path: Path) -> None:
    run = sandcli.Run(make_run(tmp_path / "it1"))
    with pytest.raises(PrerequisiteError) as caught:
        sandcli.sample(run)
    assert caught.value.fix == f"sand collect --run {run.root}"
    with pytest.raises(PrerequisiteError, match="is missing"):
        run.samples()
    with pytest.raises(PrerequisiteError, match="no run directory"):
        sandcli.collect(tmp_path / "none")


# The caller's process stays as it is


def handlers_during(call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The signal handlers inside every unit of a call."""
    seen: list[tuple[Any, ...]] = []
    watched(lambda _: seen.append(tuple(map(signal.getsignal, SIGNALS))), monkeypatch.setattr)
    call()
    assert seen
    return seen


def test_the_callers_signal_handlers_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mine(number: int, frame: object) -> None: ...

    run = collected(tmp_path / "it1")
    before = [signal.signal(number, mine) for number in SIGNALS]
    try:
        seen = handlers_during(lambda: sandcli.sample(run), monkeypatch)
        after = tuple(map(signal.getsignal, SIGNALS))
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
    assert {*seen, after} == {(mine, mine)}


@pytest.fixture
def default_ctrl_c() -> Iterator[None]:
    """Python's own handler of Ctrl-C, whatever started the tests; a shell's background jobs ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_ctrl_c")
def test_only_asyncio_run_handles_a_default_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`asyncio.run` turns Ctrl-C into the cancellation of the call, and puts the default handler back."""
    run = collected(tmp_path / "it1")
    before = tuple(map(signal.getsignal, SIGNALS))
    assert before[0] is signal.default_int_handler
    seen = handlers_during(lambda: sandcli.sample(run), monkeypatch)
    assert {(interrupt.func.__module__, terminate) for interrupt, terminate in seen} == {("asyncio.runners", before[1])}
    assert tuple(map(signal.getsignal, SIGNALS)) == before


def test_importing_loads_nothing_heavy() -> None:
    code = f"import sandcli, sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# Event loops


def test_completion_offers_what_is_imported_later() -> None:
    code = "import sandcli; assert set(sandcli.__all__) <= set(dir(sandcli)); from sandcli import Run, sample, iterate"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(REPO)}, check=True)


def test_no_module_takes_the_name_of_a_function() -> None:
    """Importing `sandcli.NAME` would replace the function `sandcli.NAME`."""
    assert {path.stem for path in (REPO / "sandcli").iterdir()}.isdisjoint(sandcli.__all__)


def test_an_error_has_no_cause_but_its_own(tmp_path: Path) -> None:
    run = sandcli.Run(make_run(tmp_path / "run"))
    with pytest.raises(PrerequisiteError) as caught:
        sandcli.rollout(run)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_call_inside_a_running_loop_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = collected(tmp_path / "it1")
    threads: list[threading.Thread] = []
    watched(lambda _: threads.append(threading.current_thread()), monkeypatch.setattr)

    async def main() -> Exit:
        return sandcli.sample(run, n=3).exit

    assert asyncio.run(main()) is Exit.DONE
    assert threads and threading.main_thread() not in threads


def test_an_error_inside_a_running_loop_keeps_its_type(tmp_path: Path) -> None:
    async def main() -> None:
        sandcli.sample(tmp_path / "none")

    with pytest.raises(PrerequisiteError, match="no run directory"):
        asyncio.run(main())


def test_a_call_is_awaited_in_the_callers_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = collected(tmp_path / "it1")
    loops: list[asyncio.AbstractEventLoop] = []
    watched(lambda _: loops.append(asyncio.get_running_loop()), monkeypatch.setattr)

    async def main() -> None:
        assert (await sandcli.sample.aio(run, n=3)).exit is Exit.DONE
        assert set(loops) == {asyncio.get_running_loop()}

    asyncio.run(main())


def test_two_runs_are_awaited_at_once(tmp_path: Path) -> None:
    runs = [collected(tmp_path / name) for name in ("a", "b")]

    async def main() -> None:
        await asyncio.gather(*(sandcli.sample.aio(run, n=3) for run in runs))

    asyncio.run(main())
    assert len({(run.root / "samples.jsonl").read_bytes() for run in runs}) == 1


@pytest.mark.usefixtures("default_ctrl_c")
@pytest.mark.parametrize("inside_a_loop", [False, True])
def test_ctrl_c_ends_a_call_and_the_next_one_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside_a_loop: bool
) -> None:
    """The loop is a notebook's, which leaves Ctrl-C alone; `asyncio.run` would only cancel the busy caller."""
    run = collected(tmp_path / "it1")
    begun: list[str] = []

    def see(unit: str) -> None:
        begun.append(unit)
        if len(begun) == 4:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)  # in a thread: let the main thread hear it

    async def main() -> None:
        sandcli.sample(run)

    monkeypatch.setenv("SAND_RUN_IN_FLIGHT", "1")
    watched(see, monkeypatch.setattr)
    with pytest.raises(KeyboardInterrupt):
        asyncio.new_event_loop().run_until_complete(main()) if inside_a_loop else sandcli.sample(run)
    recorded = len((run.root / "samples.jsonl.part").read_text().splitlines())
    assert not (run.root / "samples.jsonl").exists()
    before = len(begun)
    assert before >= 4 and sandcli.sample(run).exit is Exit.DONE
    assert 0 < recorded < len(run.samples()) == recorded + len(begun) - before


# Jupyter


class Output(NamedTuple):
    """What a cell shows: its kind (stream, execute_result, error) and its text."""

    kind: str
    text: str


def executed(*cells: str) -> list[list[Output]]:
    """What each cell of a notebook shows, apart from notices; a kernel of this Python executes it."""
    pytest.importorskip("ipykernel", reason="a real Jupyter kernel needs ipykernel, which is not installed")
    import nbclient
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    resources = {"metadata": {"path": str(REPO)}}
    nbclient.NotebookClient(notebook, timeout=120, allow_errors=True, resources=resources).execute()
    return [[_output(shown) for shown in cell.outputs if not _is_notice(shown)] for cell in notebook.cells]


def _is_notice(shown: Any) -> bool:
    """Whether it is for the reader only; in a notebook, rich displays what goes to stderr elsewhere."""
    return bool(shown.output_type == "display_data" or shown.get("name") == "stderr")


def _output(shown: Any) -> Output:
    text = shown.get("text") or shown.get("data", {}).get("text/plain") or "\n".join(shown.get("traceback", []))
    return Output(shown.output_type, text)


PREPARE = """
import asyncio, os, signal, sys, time
import pandas
import sandcli
from sandcli.stages.critique import CritiqueStage
from tests.helpers import make_run, watched
run = sandcli.Run(make_run(__import__("pathlib").Path(FOLDER), env__tasks="carry", sample__n=3))
"""

INTERRUPT = """
begun, step = [], CritiqueStage.step

def interrupt(unit):
    if not begun:
        begun.append(unit)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)

watched(interrupt)
try:
    sandcli.critique(run)
except KeyboardInterrupt:
    print("interrupted")
CritiqueStage.step = step
"""


@pytest.mark.slow
def test_a_notebook_runs_the_stages(tmp_path: Path) -> None:
    root = tmp_path / "it1"
    cells = {
        PREPARE.replace("FOLDER", repr(str(root))): [],
        "asyncio.get_running_loop().is_running()": [result("True")],
        "sandcli.collect(run, limit=2).exit.name": [result("'DONE'")],
        "summary = sandcli.sample(run)\nsummary.stage": [result("'sample'")],
        "summary = await sandcli.rollout.aio(run)\nsummary.exit.name": [result("'DONE'")],
        "frame = run.samples().to_pandas()\nlen(frame) == len(run.samples()) > 0": [result("True")],
        "run.samples().to_dataset().num_rows == len(frame)": [result("True")],
        "{type(record).__name__ for record in run.rollouts()}": [result("{'Rollout'}")],
        "frame[['id', 'step']].head(1)": [result("        id  step\n0  carry_0     0")],
        INTERRUPT: [Output("stream", "interrupted\n")],
        "sandcli.critique(run).exit.name": [result("'DONE'")],
    }
    assert dict(zip(cells, executed(*cells), strict=True)) == cells
    assert len(sandcli.Run(root).critiques()) > 0


@pytest.mark.slow
def test_a_notebook_shows_an_error_with_its_type(tmp_path: Path) -> None:
    call = f"sandcli.sample({str(tmp_path / 'none')!r})"
    _, (error,) = executed("import sandcli", call)
    plain = re.sub(r"\x1b\[[\d;]*m", "", error.text)
    assert error.kind == "error"
    assert f"PrerequisiteError: there is no run directory {tmp_path / 'none'}" in plain


def result(text: str) -> Output:
    """The value of a cell's last line."""
    return Output("execute_result", text)


# Without the extra `local`


def without(packages: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide packages from the check for what is installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in packages else find(name, *rest)
    )


def test_tables_name_the_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = collected(tmp_path / "it1")
    without(("pandas", "datasets"), monkeypatch)
    for table, package in ((Records.to_pandas, "pandas"), (Records.to_dataset, "datasets")):
        with pytest.raises(PrerequisiteError, match=f"needs {package}, which is not installed") as caught:
            table(run.trajectories())
        assert caught.value.fix == install_command("local")


def test_training_and_the_embedded_engine_name_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    run = sandcli.Run(make_run(tmp_path / "it1", model__base=str(model), model__policy="", env__tasks="carry"))
    sandcli.collect(run, limit=1)
    without(("torch",), monkeypatch)
    with pytest.raises(PrerequisiteError, match="training needs torch") as caught:
        sandcli.sft(run)
    assert caught.value.fix == install_command("local")
    with pytest.raises(PrerequisiteError, match="the transformers engine needs torch"):
        sandcli.critique(sampled(run), engine="transformers", accept_stale=True)


def sampled(run: sandcli.Run) -> sandcli.Run:
    """The run with everything that a critique needs."""
    sandcli.sample(run)
    sandcli.rollout(run)
    return run
