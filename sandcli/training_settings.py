"""The settings of fine-tuning: what a training aims at, and how it computes."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sandcli.tables import COMPUTE, Table


class TrainingSettings(Table, frozen=True, kw_only=True):
    """Fine-tuning; the same for [sft] and [train]."""

    method: Annotated[
        Literal["full", "lora", "qlora"],
        Meta(description="all weights, a PEFT adapter, or an adapter on 4-bit weights (needs bitsandbytes)"),
    ] = "full"
    lora_rank: Annotated[int, Meta(ge=1, description="rank of the adapter")] = 16
    learning_rate: Annotated[float, Meta(gt=0, description="peak of the cosine schedule (paper: 1e-5)")] = 1e-5
    warmup: Annotated[
        float, Meta(ge=0, lt=1, description="share of the steps over which the learning rate rises to its peak")
    ] = 0.0
    epochs: Annotated[int, Meta(ge=1, description="paper: 3; 1 from iteration 2 on")] = 3
    max_steps: Annotated[
        int,
        Meta(ge=0, description="optimiser steps, over as many epochs as they take, instead of `epochs`; 0: all epochs"),
    ] = 0
    batch_size: Annotated[int, Meta(ge=1, description="trajectories in one optimiser step (paper: 64)")] = 64
    max_length: Annotated[int, Meta(ge=0, description="longest trajectory in tokens; 0: the model's limit")] = 0
    too_long: Annotated[
        Literal["drop", "cut"],
        Meta(description="leave out longer trajectories, or cut whole steps from their end"),
    ] = "drop"


class PreferSettings(TrainingSettings, frozen=True, kw_only=True):
    """`sand prefer`: direct preference optimisation (DPO). The defaults are those of ETO's first round."""

    learning_rate: Annotated[float, Meta(gt=0, description="peak of the schedule (ETO: 1e-6, then 5e-7)")] = 1e-6
    warmup: Annotated[
        float, Meta(ge=0, lt=1, description="share of the steps over which the learning rate rises to its peak")
    ] = 0.1
    schedule: Annotated[
        Literal["constant", "cosine"], Meta(description="the learning rate after the warm-up: constant, or falling")
    ] = "constant"
    epochs: Annotated[int, Meta(ge=1, description="passes over the pairs (ETO: 3)")] = 3
    batch_size: Annotated[int, Meta(ge=1, description="pairs in one optimiser step (ETO: 32)")] = 32
    beta: Annotated[
        float, Meta(gt=0, description="how strongly the policy is held to the one it starts from (ETO: 0.1, then 0.5)")
    ] = 0.1
    max_length: Annotated[
        int, Meta(ge=0, description="longest of a pair's two conversations in tokens; 0: the model's limit")
    ] = 0
    too_long: Annotated[
        Literal["drop", "cut"], Meta(description="leave out longer pairs, or cut whole steps from the end of each side")
    ] = "drop"


class WkmSettings(TrainingSettings, frozen=True, kw_only=True):
    """`sand wkm`: the world-knowledge model. The defaults are its authors', who train an adapter."""

    lora_rank: Annotated[int, Meta(ge=1, description="rank of the adapter")] = 8
    learning_rate: Annotated[float, Meta(gt=0, description="peak of the cosine schedule (WKM: 1e-4)")] = 1e-4
    epochs: Annotated[int, Meta(ge=1, description="passes over the conversations (WKM: 3)")] = 3
    batch_size: Annotated[int, Meta(ge=1, description="conversations in one optimiser step (WKM: 32)")] = 32
    max_length: Annotated[
        int, Meta(ge=0, description="longest conversation in tokens (WKM: 2048); 0: the model's limit")
    ] = 2048
    too_long: Annotated[
        Literal["drop", "cut"],
        Meta(description="leave out longer conversations, or cut whole steps from their end"),
    ] = "cut"


class ComputeSettings(Table, frozen=True, kw_only=True):
    """How `sand sft`, `wkm`, `train` and `prefer` compute; it does not change what they aim at."""

    nproc: Annotated[
        int,
        Meta(ge=0, description="processes that train together, sharing batch_size; 0: one for each GPU, 1 without any"),
        COMPUTE,
    ] = 0
    nodes: Annotated[
        int, Meta(ge=1, description="machines that train together, each with `nproc` processes"), COMPUTE
    ] = 1
    first_node: Annotated[
        str, Meta(description="HOST:PORT: an address of one of several nodes, and a port that is free there"), COMPUTE
    ] = ""
    shard: Annotated[
        bool,
        Meta(description="spread weights, gradients and optimiser over several GPUs (FSDP) instead of copying them"),
        COMPUTE,
    ] = False
    device_batch: Annotated[
        int,
        Meta(ge=1, description="trajectories a GPU computes at once, unpadded; above 1 needs flash-attention"),
        COMPUTE,
    ] = 1
    checkpoint_minutes: Annotated[
        float, Meta(ge=0, description="minutes between checkpoints to resume from"), COMPUTE
    ] = 10.0
    report_to: Annotated[
        list[str],
        Meta(description="tensorboard, wandb or other integrations of transformers, beside the JSONL log"),
        COMPUTE,
    ] = msgspec.field(default_factory=list)
