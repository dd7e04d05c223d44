"""The checks of training."""

import os
from pathlib import Path
from typing import Literal

import msgspec
import torch

from experiments.gpu.material import (
    Failed,
    NotTried,
    device,
    difference,
    forward,
    logits,
    refuse_other_losses,
    trajectories,
)
from sandcli.engines.loading import load_model
from sandcli.errors import PrerequisiteError
from sandcli.training.config import Hooks, LoggedStep, TrainingConfig
from sandcli.training.distributed import TrainingJob
from sandcli.training_settings import ComputeSettings, TrainingSettings

_ROWS = 4


def several_at_once(model: Path, work: Path) -> str:
    """Several trajectories at once, without padding, give the losses of one at a time."""
    config = _config(model, work / "several", compute=ComputeSettings(device_batch=2))
    try:
        together = _train(config)
    except PrerequisiteError as error:
        if "flash-attention" not in error.what:
            raise
        raise NotTried(error.what) from None
    alone = _train(_config(model, work / "alone"))
    refuse_other_losses([step.loss for step in together], [step.loss for step in alone])
    return f"the same losses; {together[-1].tokens_a_second:.0f} tokens/s, one at a time {_speed(alone)}"


def full_training(model: Path, work: Path) -> str:
    """All weights are trained for three steps, and the result can be loaded."""
    return _trained(model, work, "full")


def adapter_training(model: Path, work: Path) -> str:
    """An adapter is trained for three steps, and the result can be loaded."""
    return _trained(model, work, "lora")


def _trained(model: Path, work: Path, method: Literal["full", "lora"]) -> str:
    config = _config(model, work, method=method)
    log = _train(config)
    load_model(config.work / "result")
    losses = ", ".join(f"{step.loss:.3f}" for step in log)
    if not log[-1].loss < log[0].loss:
        raise Failed(f"{device()}: the loss does not fall: {losses}")
    return f"{device()}: losses {losses}; {_speed(log)} tokens/s, {log[-1].memory_gib:.1f} GiB"


def _speed(log: list[LoggedStep]) -> str:
    return f"{log[-1].tokens_a_second:.0f}"


def _config(
    model: Path,
    work: Path,
    method: Literal["full", "lora"] = "full",
    compute: ComputeSettings | None = None,
) -> TrainingConfig:
    """Three steps on the same batch."""
    aims = TrainingSettings(method=method, learning_rate=1e-4, epochs=3, batch_size=_ROWS)
    return TrainingConfig(model, [], aims, compute or ComputeSettings(), 0, work, work / "log.jsonl")


def _train(config: TrainingConfig) -> list[LoggedStep]:
    from sandcli.training.trainer import fit

    hooks = Hooks(lambda size: None, lambda total, done: None, lambda: None, lambda: False)
    return fit(config, trajectories(_ROWS), hooks).log


def sharded_together(model: Path, work: Path) -> str:
    """Two processes have the losses of one. On two GPUs their weights are spread (FSDP)."""
    gpus = torch.cuda.device_count()
    if gpus == 1:
        raise NotTried("there is one GPU")
    data = work / "data.jsonl"
    data.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in trajectories(_ROWS)))
    job = TrainingJob("check", _config(model, work / "two", compute=ComputeSettings(shard=True)), data, None)
    together = job.launch(2).log
    alone = _train(_config(model, work / "one"))
    refuse_other_losses([step.loss for step in together], [step.loss for step in alone])
    how = "weights spread over two GPUs" if gpus else "on the CPU, each process with all weights"
    return f"the losses of one process; {how}; {_speed(together)} tokens/s, one process {_speed(alone)}"


def sharded_alone(model: Path, work: Path) -> str:
    """A model that is loaded for FSDP and spread over one process gives the logits of the usual one."""
    from accelerate import Accelerator, FullyShardedDataParallelPlugin
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    from sandcli.training.arguments import sharding
    from sandcli.training.weights import trainable

    wanted = logits(model, "float32")
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    loaded = trainable(_config(model, work), None, sharded=True)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap", **sharding())
    accelerator.state.fsdp_plugin = plugin
    plugin.set_auto_wrap_policy(loaded)
    found = forward(fsdp2_prepare_model(accelerator, loaded), model)
    share = difference(found, wanted)
    if not share < 1e-3:
        raise Failed(f"the logits differ by {share:.2%}")
    return f"{device()}: the same logits"
