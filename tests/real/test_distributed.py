"""Several processes train one model: started by `--nproc` or torchrun, interrupted, killed, and failing."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from sandcli.training.distributed import _died
from tests.helpers import REPO, environment, make_run, perform, sand, wait_until

pytestmark = pytest.mark.real

TORCHRUN = (
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
    "-m",
    "--",
    "sandcli",
)


def run_with_data(tiny: Path, folder: Path, **settings: str | int | float) -> Path:
    """A run on the toy world with expert trajectories, ready for `sand sft`."""
    values = {"sft__learning_rate": 1e-3, "sft__batch_size": 4, "sft__epochs": 4, **settings}
    run = make_run(folder, model__base=str(tiny), env__tasks="fetch,carry", **values)
    perform("collect", run, limit=5)
    return run


def losses(run: Path) -> list[float]:
    """The loss of every logged step so far; a line that is being written does not count."""
    log = run / "logs" / "sft.jsonl"
    written = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [json.loads(line)["loss"] for line in written if line.endswith("\n")]


@pytest.fixture(scope="module")
def alone(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of a single process: 5 rows in batches of 4."""
    run = run_with_data(tiny, tmp_path_factory.mktemp("alone") / "run")
    done = sand("sft", "--run", run)
    assert done.returncode == 0, done.stderr
    assert "5 trajectories" in done.stderr
    return losses(run)


def test_two_processes_learn_the_same_as_one(tiny: Path, tmp_path: Path, alone: list[float]) -> None:
    run = run_with_data(tiny, tmp_path / "run")
    done = sand("sft", "--run", run, "--nproc", "2")
    assert done.returncode == 0, done.stderr
    assert len(alone) == 8 and alone[-1] < alone[0]
    assert losses(run) == pytest.approx(alone, rel=1e-4)
    assert done.stderr.count("5 trajectories") == 1
    assert "nothing to do" in sand("sft", "--run", run).stderr


def test_processes_of_torchrun_train_together(tiny: Path, tmp_path: Path, alone: list[float]) -> None:
    run = run_with_data(tiny, tmp_path / "run")
    for pattern in (r"steps\W+8\b", "nothing to do"):
        done = subprocess.run(
            [*TORCHRUN, "sft", "--run", str(run)],
            cwd=REPO,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert len(re.findall(pattern, done.stderr)) == 1, done.stderr
    assert losses(run) == pytest.approx(alone, rel=1e-4)


def test_interrupted_processes_resume_from_their_checkpoint(tiny: Path, tmp_path: Path, alone: list[float]) -> None:
    run = run_with_data(tiny, tmp_path / "run")
    command = [sys.executable, "-m", "sandcli", "sft", "--run", str(run), "--nproc", "2"]
    child = subprocess.Popen(
        command, cwd=REPO, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_until(lambda: len(losses(run)) >= 2)
    os.killpg(child.pid, signal.SIGINT)  # like Ctrl-C on a terminal: every process receives it
    _, stderr = child.communicate(timeout=100)
    assert child.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert 2 <= len(losses(run)) < 8
    resumed = sand("sft", "--run", run, "--nproc", "2")
    assert resumed.returncode == 0, resumed.stderr
    assert "missing keys" not in resumed.stderr  # tied weights are saved once; the warning would look like damage
    assert losses(run) == pytest.approx(alone, rel=1e-3)


def test_processes_end_when_their_parent_is_killed(tiny: Path, tmp_path: Path, alone: list[float]) -> None:
    run = run_with_data(tiny, tmp_path / "run", trainer__checkpoint_minutes=0.0)
    command = [sys.executable, "-m", "sandcli", "sft", "--run", str(run), "--nproc", "2"]
    with subprocess.Popen(command, cwd=REPO, env=environment(), stderr=subprocess.DEVNULL) as child:
        wait_until(lambda: len(losses(run)) >= 2)
        children = psutil.Process(child.pid).children(recursive=True)
        child.kill()
    assert len(children) >= 2
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert not (run / "sft").exists()
    resumed = sand("sft", "--run", run, "--nproc", "2")
    assert resumed.returncode == 0, resumed.stderr
    assert losses(run) == pytest.approx(alone, rel=1e-3)


def test_more_processes_than_trajectories_in_a_batch_are_refused(tiny: Path, tmp_path: Path) -> None:
    run = run_with_data(tiny, tmp_path / "run")
    done = sand("sft", "--run", run, "--nproc", "5")
    assert done.returncode == 2
    assert "5 processes cannot share batches of 4 trajectories" in done.stderr
    assert not (run / "sft.part").exists()


def test_error_of_all_processes_is_reported_once(tiny: Path, tmp_path: Path) -> None:
    run = run_with_data(tiny, tmp_path / "run", sft__max_length=10)
    done = sand("sft", "--run", run, "--nproc", "2")
    assert done.returncode == 2
    assert "error: there are no trajectories to train on" in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1


def test_error_of_one_process_ends_all(tiny: Path, tmp_path: Path) -> None:
    """Only the first process writes, so only it finds the disk full, while the other waits for it."""
    run = run_with_data(tiny, tmp_path / "run", trainer__checkpoint_minutes=0.0)
    done = subprocess.run(
        [sys.executable, "-m", "sandcli", "sft", "--run", str(run), "--nproc", "2"],
        cwd=REPO,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=150,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20)),
    )
    assert done.returncode == 3, done.stderr
    assert "could not be written to" in done.stderr and "Traceback" not in done.stderr


def test_killed_process_is_named() -> None:
    failure = ProcessFailure(local_rank=1, pid=7, exitcode=-9, error_file="none")
    error = _died(2, ChildFailedError("sand", {1: failure}))
    assert error.what == "process 1 of the 2 that trained together ended with SIGKILL"


def test_slurm_tasks_that_would_train_alone_are_refused(tiny: Path, tmp_path: Path) -> None:
    run = run_with_data(tiny, tmp_path / "run")
    done = sand("sft", "--run", run, extra={"SLURM_STEP_NUM_TASKS": "4"})
    assert done.returncode == 2
    assert "srun started 4 tasks" in done.stderr and "--first-node" in done.stderr
