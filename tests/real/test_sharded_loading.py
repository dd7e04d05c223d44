"""Loading for FSDP: only the first process holds the weights, and afterwards all have the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sandcli.engines.loading import load_model
from tests.helpers import REPO, environment

pytestmark = pytest.mark.real

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def sharded(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes on gloo hold after each has loaded and sharded the model."""
    out = tmp_path_factory.mktemp("sharded")
    done = subprocess.run(
        [*TORCHRUN, str(REPO / "tests" / "real" / "sharded.py"), str(tiny), str(out)],
        cwd=REPO,
        env=environment(GLOO_SOCKET_IFNAME="lo", PYTHONPATH=str(REPO)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("method", ["full", "lora"])
def test_all_processes_have_the_same_weights(sharded: Path, tiny: Path, method: str) -> None:
    first, second = (load_file(sharded / f"{method}-{rank}.safetensors") for rank in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())
    for name, weight in load_file(tiny / "model.safetensors").items():
        whole = f"base_model.model.{name}"
        found = [known for known in (name, whole, whole.replace(".weight", ".base_layer.weight")) if known in first]
        assert found and torch.equal(first[found[0]], weight)


def test_sharded_model_answers_as_the_whole_one(sharded: Path, tiny: Path) -> None:
    whole = load_model(tiny)(input_ids=torch.arange(8)[None]).logits
    assert torch.allclose(load_file(sharded / "full-1.safetensors")["logits"], whole, atol=1e-5)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_only_the_first_process_holds_the_weights(sharded: Path, tiny: Path, method: str) -> None:
    first, second = (json.loads((sharded / f"{method}-{rank}.json").read_text())["held"] for rank in range(2))
    assert first >= (tiny / "model.safetensors").stat().st_size * 0.95
    assert second == 0 if method == "full" else second < first / 10
