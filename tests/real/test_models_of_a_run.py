"""Which models a run accepts: the policy descends from the base, and the base is a complete model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sandcli.errors import UsageError
from tests.helpers import context, make_run, perform, sand

pytestmark = pytest.mark.real


def altered(model: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a model folder with changes in its config.json."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def adapter(model: Path, folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}))
    return folder


@pytest.mark.parametrize("changes", [{"model_type": "qwen2"}, {"vocab_size": 99}, {"num_hidden_layers": 3}])
def test_policy_of_another_architecture_is_refused(tiny: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    policy = altered(tiny, tmp_path / "policy", **changes)
    run = make_run(tmp_path / "run", model__base=str(tiny), model__policy=str(policy))
    ((name, value),) = changes.items()
    with pytest.raises(UsageError, match=f"{policy} was not trained from {tiny}: it has {name} {value}, not "):
        context(run).policy_model()


def test_adapter_of_the_base_is_accepted_as_policy(tiny: Path, tmp_path: Path) -> None:
    policy = adapter(tiny, tmp_path / "policy")
    run = make_run(tmp_path / "run", model__base=str(tiny), model__policy=str(policy))
    assert context(run).policy_model().folder == policy


def test_adapter_is_refused_as_base(tiny: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", model__base=str(adapter(tiny, tmp_path / "adapter")))
    perform("collect", run, limit=1)
    done = sand("sft", "--run", run)
    assert done.returncode == 2
    assert "is an adapter" in done.stderr and "set model.base to a complete model" in done.stderr


def test_data_without_trajectories_is_reported(tiny: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", model__base=str(tiny), model__policy=str(tiny))
    perform("collect", run, limit=1)
    for name in ("thoughts.jsonl", "deliberations.jsonl"):
        (run / name).write_text("")
    done = sand("train", "--run", run)
    assert done.returncode == 2
    assert "deliberations.jsonl holds no trajectory" in done.stderr
