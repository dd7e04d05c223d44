"""Crews on a Ray cluster of this machine make the same bytes as this process, whatever joins, ends or freezes."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest

from sandcli.core.artifact import StageName
from sandcli.core.cluster.notes import noted
from sandcli.core.run import Run
from sandcli.core.runner import run_stage
from sandcli.core.stage import Options, Summary
from sandcli.errors import Exit, PrerequisiteError, UsageError
from sandcli.stages.rollout import RolloutStage
from tests.core.cluster.mishaps import Closed, Foreign, Unlucky, Wrong
from tests.helpers import REPO, SAND, artifacts, context, environment, fault, lines, make_run, perform, wait_until

pytest.importorskip("ray")
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.real

STAGES: tuple[StageName, ...] = ("sample", "rollout", "critique", "synthesize", "explore", "eval", "counterfactual")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores and two nodes of one core."""
    os.environ.update(PYTHONPATH=str(REPO), RAY_raylet_start_wait_time_s="180", RAY_USAGE_STATS_ENABLED="0")
    with TemporaryDirectory(prefix="sand", dir="/tmp") as folder:  # a socket's path has at most 107 characters
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": folder}
        made = Cluster(initialize_head=True, head_node_args=head)
        made.nodes = [made.add_node(num_cpus=1) for _ in range(2)]
        try:
            yield made
        finally:
            made.shutdown()


@pytest.fixture
def sampled(tmp_path: Path) -> Path:
    """A run whose samples flag many steps."""
    root = make_run(tmp_path / "run", env__tasks="fetch,carry")
    for stage in ("collect", "sample"):
        perform(stage, root)
    return root


def rollouts(root: Path, kind: type[RolloutStage] = RolloutStage, **settings: Any) -> Summary:
    return asyncio.run(run_stage(kind(context(root, **settings)), Options()))


def rollouts_here(root: Path, folder: Path) -> bytes:
    """What this process makes of the same samples."""
    twin = make_run(folder / "twin", env__tasks="fetch,carry")
    for stage in ("collect", "sample", "rollout"):
        perform(stage, twin)
    assert (twin / "samples.jsonl").read_bytes() == (root / "samples.jsonl").read_bytes()
    return (twin / "rollouts.jsonl").read_bytes()


def recorded(root: Path) -> int:
    path = Run(root).artifact("rollout").journal
    return path.read_bytes().count(b"\n") if path.exists() else 0


def in_thread(root: Path, kind: type[RolloutStage], **settings: Any) -> threading.Thread:
    """Rollouts that go on while the test does something; it joins the thread."""
    thread = threading.Thread(target=rollouts, args=(root, kind), kwargs=settings, daemon=True)
    thread.start()
    return thread


def some_unit(root: Path) -> str:
    sample = next(line for line in lines(root / "samples.jsonl") if line["deliberate"])
    return f'["{sample["id"]}",{sample["step"]},1]'


def test_crews_make_the_same_bytes_as_this_process(tmp_path: Path, cluster: Any) -> None:
    settings: dict[str, Any] = {"env__tasks": "fetch,carry", "eval__models": ["base"]}
    here, there = (make_run(tmp_path / name, **settings) for name in ("here", "there"))
    for root, address in ((here, ""), (there, cluster.address)):
        perform("collect", root)
        for stage in STAGES:
            assert perform(stage, root, cluster__address=address).exit is Exit.DONE
    assert artifacts(there) == artifacts(here)
    assert len(artifacts(here)["counterfactuals.jsonl"]) > 0
    spent = [Run(root).artifact("rollout").manifest().spent for root in (here, there)]  # type: ignore[union-attr]
    assert spent[0].generated == spent[1].generated > 0
    assert spent[1].environment_wait > 0


def test_a_node_that_ends_and_one_that_joins_change_nothing(
    sampled: Path, tmp_path: Path, cluster: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    (sampled / "wait").write_text(some_unit(sampled))
    working = in_thread(sampled, Unlucky, cluster__address=cluster.address, run__in_flight=4)
    wait_until((sampled / "waiting").exists)
    before = len(noted(Run(sampled).artifact("rollout")))
    for node in list(cluster.nodes):  # the one with the waiting unit is among them
        cluster.remove_node(node, allow_graceful=False)
    cluster.nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    (sampled / "waited").touch()
    working.join()
    assert before in (1, 2)
    assert "is lost" in capfd.readouterr().err
    assert (sampled / "rollouts.jsonl").read_bytes() == rollouts_here(sampled, tmp_path)


def test_without_any_crew_the_stage_ends_and_resumes(sampled: Path, tmp_path: Path, cluster: Any) -> None:
    (sampled / "wait").write_text(some_unit(sampled))
    ended: list[BaseException] = []

    def work() -> None:
        try:
            rollouts(sampled, Unlucky, cluster__address=cluster.address, cluster__patience=1, run__in_flight=4)
        except PrerequisiteError as error:
            ended.append(error)

    working = threading.Thread(target=work, daemon=True)
    working.start()
    wait_until((sampled / "waiting").exists)
    for node in list(cluster.nodes):
        cluster.remove_node(node, allow_graceful=False)
    working.join()
    assert [str(error) for error in ended] == ["no crew is left on the cluster"]
    assert Run(sampled).artifact("rollout").failures() == []
    (sampled / "waited").touch()
    cluster.nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    assert rollouts(sampled, cluster__address=cluster.address).exit is Exit.DONE
    assert (sampled / "rollouts.jsonl").read_bytes() == rollouts_here(sampled, tmp_path)


def test_a_frozen_crew_is_given_up(sampled: Path, tmp_path: Path, cluster: Any) -> None:
    (sampled / "freeze").write_text(some_unit(sampled))
    try:
        assert rollouts(sampled, Unlucky, cluster__address=cluster.address, cluster__patience=2).exit is Exit.DONE
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(int((sampled / "frozen").read_text()), signal.SIGKILL)
    assert (sampled / "rollouts.jsonl").read_bytes() == rollouts_here(sampled, tmp_path)


def test_a_unit_that_ends_every_crew_fails_alone(sampled: Path, cluster: Any) -> None:
    unit = some_unit(sampled)
    (sampled / "end").write_text(unit)
    summary = rollouts(sampled, Unlucky, cluster__address=cluster.address)
    assert summary.exit is Exit.FAILED_UNITS
    assert [(failure.reason, failure.attempts) for failure in summary.failures] == [("crew", 1)]
    (sampled / "end").unlink()
    assert rollouts(sampled, Unlucky, cluster__address=cluster.address).exit is Exit.DONE


def test_a_failing_environment_is_listed_as_here(tmp_path: Path, sampled: Path, cluster: Any) -> None:
    for _ in range(3):
        fault(tmp_path / "faults", "unplayable", "fetch_1 fly")
    settings = {"env__simplifications": f"faults={tmp_path / 'faults'}", "cluster__address": cluster.address}
    summary = rollouts(sampled, run__retries=2, **settings)
    assert [failure.reason for failure in summary.failures] == ["environment"]
    assert rollouts(sampled, **settings).exit is Exit.DONE


def test_a_stopped_driver_finishes_what_is_in_progress(sampled: Path, cluster: Any) -> None:
    command = [*SAND, "rollout", "--run", str(sampled), "--cluster", cluster.address, "--json"]
    slow = environment(SAND_ENV_SIMPLIFICATIONS="pause=0.05", SAND_RUN_IN_FLIGHT="4")
    with subprocess.Popen(command, env=slow, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_until(lambda: recorded(sampled) > 10)
        process.send_signal(signal.SIGTERM)
        out, said = process.communicate()
    assert (process.returncode, out) == (Exit.INTERRUPTED, b""), said
    assert recorded(sampled) > 10


def test_a_killed_driver_takes_its_crews_along_and_resumes(sampled: Path, tmp_path: Path, cluster: Any) -> None:
    command = [*SAND, "rollout", "--run", str(sampled), "--cluster", cluster.address]
    slow = environment(SAND_ENV_SIMPLIFICATIONS="pause=0.05", SAND_RUN_IN_FLIGHT="4")
    with subprocess.Popen(command, env=slow, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: recorded(sampled) > 10)
        process.kill()
    before = recorded(sampled)
    assert rollouts(sampled, cluster__address=cluster.address).exit is Exit.DONE
    assert before > 10
    assert (sampled / "rollouts.jsonl").read_bytes() == rollouts_here(sampled, tmp_path)


def test_a_node_that_differs_is_refused(sampled: Path, cluster: Any) -> None:
    (sampled / "driver").write_text(str(os.getpid()))
    with pytest.raises(PrerequisiteError, match=r"node \S+ differs.*env\.toyworld is there there and here here"):
        rollouts(sampled, Foreign, cluster__address=cluster.address)


def test_crews_that_cannot_start_end_the_stage_with_one_line(sampled: Path, cluster: Any) -> None:
    with pytest.raises(PrerequisiteError, match=r"node \S+: a crew ended while it started: out of order$"):
        rollouts(sampled, Closed, cluster__address=cluster.address)


def test_a_bug_in_a_step_ends_the_stage_with_its_traceback(sampled: Path, cluster: Any) -> None:
    with pytest.raises(RuntimeError, match="in a crew: KeyError: 'no such thing'") as raised:
        rollouts(sampled, Wrong, cluster__address=cluster.address)
    assert "mishaps.py" in raised.value.__notes__[0]


def test_an_address_where_nothing_answers_is_refused(sampled: Path) -> None:
    with pytest.raises(PrerequisiteError, match="nothing answers there"):
        rollouts(sampled, cluster__address="127.0.0.1:1")


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "somewhere", "a b:1"])
def test_what_is_no_address_is_refused(sampled: Path, address: str) -> None:
    with pytest.raises(UsageError, match="not the address of a Ray cluster"):
        rollouts(sampled, cluster__address=address)


def test_without_ray_the_command_that_installs_it_is_named(sampled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sandcli.core.cluster.crews", None)
    with pytest.raises(PrerequisiteError, match="needs ray") as raised:
        rollouts(sampled, cluster__address="local")
    assert raised.value.fix == "make setup-ray"
