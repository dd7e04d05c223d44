"""What a run's settings name: its models and seeds."""

import json
from pathlib import Path

from sandcli.core.context import model_fingerprint
from sandcli.models import fingerprint
from tests.helpers import context


def test_relative_model_starts_at_the_run_directory(tmp_path: Path) -> None:
    root = tmp_path / "it2"
    for folder in (tmp_path / "it1" / "model", root):
        folder.mkdir(parents=True)
    (tmp_path / "it1" / "model" / "config.json").write_text('{"model_type": "llama"}')
    policy = context(root, model__base="../it1/model", model__policy="../it1/model").policy()
    assert policy.folder.resolve() == tmp_path / "it1" / "model"


def test_seed_of_a_unit_depends_on_its_key_and_the_seed_of_the_run_alone(tmp_path: Path) -> None:
    first, second = context(tmp_path, limit=1), context(tmp_path, run__seed=1)
    assert first.seed("sample", "a", 1) == context(tmp_path, run__workers=3).seed("sample", "a", 1)
    different = [first.seed("sample", "a", 2), first.seed("rollout", "a", 1), second.seed("sample", "a", 1)]
    assert len({first.seed("sample", "a", 1), *different}) == 4
    assert all(0 <= seed < 2**31 for seed in different)


def test_fingerprint_of_an_adapter_holds_its_base(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder in (base, adapter):
        folder.mkdir()
        (folder / "model.safetensors").write_text(folder.name)
    (base / "config.json").write_text('{"model_type": "llama"}')
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    before = model_fingerprint(adapter)
    (base / "model.safetensors").write_text("other weights")
    assert model_fingerprint(adapter) != before
    assert model_fingerprint(base) == fingerprint(base)
