"""Two nodes train one model. Each is a network namespace with a host name of its own; they share the file system."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.helpers import make_run, perform
from tests.training.node import HEAVY, make_model, sand_on

pytestmark = pytest.mark.real

NODES = ("node1", "node2")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    """Those of two nodes with the addresses 10.213.0.1 and 10.213.0.2 on one cable."""
    names = [f"sand{os.getpid()}-{number}" for number in (1, 2)]
    if shutil.which("ip") is None:
        pytest.skip("ip is not installed")
    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", names[0], "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.213.0.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def run_with_data(model: Path, folder: Path) -> Path:
    """A run that is ready for 5 steps of `sand sft`, with a checkpoint after each."""
    sft = {"sft__epochs": 5, "sft__batch_size": 4, "sft__learning_rate": 1e-3, "trainer__checkpoint_minutes": 0}
    run = make_run(folder, model__base=str(model), **sft)
    perform("collect", run, limit=4)
    return run


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "logs" / "sft.jsonl").read_text().splitlines()]


def forked() -> ForkServerContext:
    """Makes processes that have imported torch and the trainer."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    return context


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A model with a vocabulary of 384."""
    making = forked().Process(target=make_model, args=(tmp_path / "small",))
    making.start()
    making.join()
    return tmp_path / "small"


@pytest.fixture
def started(tmp_path: Path, namespaces: list[str]) -> Iterator[Callable[..., BaseProcess]]:
    """Starts `sand sft` on a node; see `sand_on`."""
    context = forked()
    processes: list[BaseProcess] = []

    def start(node: int, run: Path, *options: str, when: int = 0, what: int = signal.SIGKILL) -> BaseProcess:
        arguments = ("sft", "--run", str(run), *options)
        output = tmp_path / f"{NODES[node]}.txt"
        process = context.Process(target=sand_on, args=(namespaces[node], NODES[node], arguments, output, when, what))
        process.start()
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.join()


def test_killed_node_is_named_and_the_same_command_resumes(
    small: Path, tmp_path: Path, started: Callable[..., BaseProcess]
) -> None:
    alone, run = run_with_data(small, tmp_path / "alone"), run_with_data(small, tmp_path / "run")
    started(0, alone).join()
    two = ("--nproc", "2", "--nodes", "2", "--first-node", "10.213.0.1:29400")

    def together(**ending: int) -> tuple[list[int | None], list[str]]:
        processes = [started(0, run, *two), started(1, run, *two, **ending)]
        for process in processes:
            process.join()
        outputs = [(tmp_path / f"{name}.txt").read_text() for name in NODES]
        assert not any("Traceback" in output for output in outputs), outputs
        return [process.exitcode for process in processes], outputs

    codes, outputs = together(when=2, what=signal.SIGINT)
    assert codes == [130, 130], outputs
    assert len(losses(run)) == 2

    codes, outputs = together(when=3, what=signal.SIGKILL)
    assert codes == [3, -9], outputs
    assert outputs[0].count("error: ") == 1 and "error: lost node2: killed, or down" in outputs[0]
    assert "it resumes from the last checkpoint" in outputs[0]

    codes, outputs = together()
    assert codes == [0, 0], outputs
    assert losses(run) == pytest.approx(losses(alone), rel=1e-4)
    assert len(losses(run)) == 5 and losses(run)[-1] < losses(run)[0]
