"""A process of two that load a model for FSDP as on GPUs, and shard it: run by `test_sharded_loading.py`."""

import json
import sys
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from sandcli.training.arguments import sharding
from sandcli.training.config import TrainingConfig
from sandcli.training.weights import trainable
from sandcli.training_settings import ComputeSettings, TrainingSettings


def main(start: Path, out: Path) -> None:
    """Load, shard, and save what arrived here and what was held before; FSDP needs a GPU in TRL, not in accelerate."""
    accelerator = Accelerator(cpu=True)
    for method in ("full", "lora"):
        _shard(start, out, accelerator, method)


def _shard(start: Path, out: Path, accelerator: Accelerator, method: Literal["full", "lora"]) -> None:
    aims = TrainingSettings(method=method)
    config = TrainingConfig(start, [], aims, ComputeSettings(), 0, out, out / "log.jsonl")
    model = trainable(config, None, sharded=True)
    held = sum(weight.nbytes for weight in model.parameters() if not weight.is_meta)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap", **sharding())
    accelerator.state.fsdp_plugin = plugin
    plugin.set_auto_wrap_policy(model)
    model = fsdp2_prepare_model(accelerator, model)
    weights = {name: _whole(weight).contiguous().clone() for name, weight in model.state_dict().items()}
    weights["logits"] = model(input_ids=torch.arange(8)[None]).logits.detach().contiguous()
    name = f"{method}-{accelerator.process_index}"
    save_file(weights, out / f"{name}.safetensors")
    (out / f"{name}.json").write_text(json.dumps({"held": held}))


def _whole(weight: torch.Tensor) -> torch.Tensor:
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
