"""Which model folders are loaded: those with exactly the weights that the config names, and of a known type."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from sandcli.engines.loading import load_model
from sandcli.errors import PrerequisiteError, UsageError

pytestmark = pytest.mark.real

Weights = dict[str, torch.Tensor]


def copied(model: Path, folder: Path, change: Callable[[Weights], Weights] = dict, **config: Any) -> Path:
    """A copy of a model with changed weights, and changes in its config.json."""
    shutil.copytree(model, folder)
    save_file(change(load_file(model / "model.safetensors")), folder / "model.safetensors", metadata={"format": "pt"})
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(written | config))
    return folder


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "bitsandbytes"])
def test_quantised_weights_are_refused(tiny: Path, tmp_path: Path, method: str) -> None:
    base = copied(tiny, tmp_path / "base", quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(UsageError, match=rf"base has quantised weights \({method}\)") as caught:
        load_model(base)
    assert "--engine vllm" in caught.value.fix


GATE = "model.layers.1.mlp.gate_proj.weight"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda found: {f"module.{name}": weight for name, weight in found.items()}, "lack lm_head.weight, model.emb"),
        (lambda found: {name: weight for name, weight in found.items() if name != GATE}, f"lack {GATE}$"),
        (lambda found: found | {GATE: found[GATE][:5].clone()}, f"have other sizes of {GATE}$"),
        (lambda found: found | {f"{GATE}_scale_inv": torch.ones(1)}, f"also have {GATE}_scale_inv$"),
        (lambda found: found | {GATE.replace("weight", "bias"): torch.ones(1)}, "also have model.layers.1.mlp.gate_pr"),
    ],
)
def test_weights_that_do_not_match_the_model_are_named(
    tiny: Path, tmp_path: Path, change: Callable[[Weights], Weights], what: str
) -> None:
    base = copied(tiny, tmp_path / "base", change)
    with pytest.raises(UsageError, match=f"the weights in {base} {what}"):
        load_model(base)


def test_missing_head_is_named(tiny: Path, tmp_path: Path) -> None:
    base = copied(tiny, tmp_path / "base", tie_word_embeddings=False)
    with pytest.raises(UsageError, match=r"lack lm_head\.weight$"):
        load_model(base)


def test_weights_of_modules_that_the_model_does_not_have_are_ignored(tiny: Path, tmp_path: Path) -> None:
    vision = {"vision_tower.patch.weight": torch.ones(2), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    loaded = load_model(copied(tiny, tmp_path / "base", lambda found: found | vision))
    assert torch.equal(loaded.lm_head.weight, load_model(tiny).lm_head.weight)


def test_adapter_without_all_its_weights_is_refused(tiny: Path, tmp_path: Path) -> None:
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    get_peft_model(load_model(tiny), config).save_pretrained(tmp_path)
    assert load_model(tmp_path).num_parameters() == load_model(tiny).num_parameters()
    file = tmp_path / "adapter_model.safetensors"
    save_file({name: weight for name, weight in load_file(file).items() if "v_proj" not in name}, file)
    with pytest.raises(UsageError, match=r"does not fit its base: Found missing adapter keys .*v_proj\.lora_A"):
        load_model(tmp_path)


def test_duplicate_weights_are_counted_once(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_model(tiny).save_pretrained(tmp_path, max_shard_size="4MB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    shutil.copy(tiny / "model.safetensors", tmp_path / "consolidated.safetensors")
    size = (tiny / "model.safetensors").stat().st_size
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1.5 * size}))
    assert load_model(tmp_path).num_parameters() == load_model(tiny).num_parameters()
    next(tmp_path.glob("model-00001*")).unlink()
    with pytest.raises(UsageError, match=r"model-00001-of-\d+\.safetensors is missing"):
        load_model(tmp_path)


def test_model_that_is_not_a_text_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    base = copied(tiny, tmp_path / "base", model_type="clip")
    with pytest.raises(UsageError, match=r"transformers cannot load the model in .*: Unrecognized configuration class"):
        load_model(base)


def test_model_whose_language_part_is_nested_is_loaded(tmp_path: Path) -> None:
    text = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 32}
    seen = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config=text | {"num_attention_heads": 2, "num_key_value_heads": 1},
        vision_config=seen | {"image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
    )
    Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    assert load_model(tmp_path).config.get_text_config().hidden_size == 64


def test_folder_without_weights_is_refused(tiny: Path, tmp_path: Path) -> None:
    shutil.copy(tiny / "config.json", tmp_path)
    with pytest.raises(UsageError, match=r"transformers cannot load the model in .*model\.safetensors"):
        load_model(tmp_path)


def test_model_that_does_not_fit_says_how_much_it_needs(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 2**20}))
    with pytest.raises(PrerequisiteError, match=r"needs 0\.0 GiB in float32"):
        load_model(tiny)
