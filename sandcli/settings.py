"""The settings of a run: one typed table of `sand.toml` each, with bounds and meanings.

A setting is named by table and key: `sample.n` is `n` under `[sample]`. `sandcli.config` says where values come from.
"""

import os
import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of sand.toml."""


class RunSettings(Table, frozen=True, kw_only=True):
    """Settings of the whole run."""

    iteration: Annotated[int, Meta(ge=1, description="which iteration this is; reports name their rows by it")] = 1
    seed: Annotated[int, Meta(description="every unit's own seed is derived from it and the unit's key")] = 0
    workers: Annotated[int, Meta(ge=0, description="environment processes; 0: one a core, at most 8")] = 0
    in_flight: Annotated[
        int, Meta(ge=0, description="units worked on at once; 0: enough to keep engine and environments busy")
    ] = 0
    timeout: Annotated[float, Meta(gt=0, description="seconds that one call to an environment may take")] = 120.0
    retries: Annotated[int, Meta(ge=0, description="further attempts at a unit that machinery failed")] = 2


class ModelSettings(Table, frozen=True, kw_only=True):
    """Which models there are."""

    base: Annotated[
        str,
        Meta(description="pi_base: a folder, a hub name, or smollm2-135m-instruct (comes with `make setup`)"),
    ] = "smollm2-135m-instruct"
    policy: Annotated[str, Meta(description="pi_k, the agent to improve; empty: this run's sft/")] = ""


class EnvSettings(Table, frozen=True, kw_only=True):
    """The text world."""

    name: Annotated[str, Meta(description="scienceworld, alfworld, or module:Class of your own")] = "scienceworld"
    simplifications: Annotated[
        str,
        Meta(description="scienceworld: eto (as the literature's expert data), easy, none, or a comma list"),
    ] = "eto"
    tasks: Annotated[
        list[str],
        Meta(description="paper (scienceworld: 24 types, at most 10 test variations each), all, or task types"),
    ] = msgspec.field(default_factory=lambda: ["paper"])
    step_limit: Annotated[int, Meta(ge=0, description="steps of one episode; 0: the literature's limit")] = 0
    games: Annotated[str, Meta(description="alfworld: the folder of games; empty: $ALFWORLD_DATA")] = ""
    translate: Annotated[
        bool, Meta(description="alfworld: recorded `put X in/on Y` becomes `move X to Y`, or back, as the games say it")
    ] = False


class MethodSettings(Table, frozen=True, kw_only=True):
    """Which form of the method."""

    without: Annotated[
        Literal["none", "sampling", "critique"],
        Meta(
            description="an ablation of the paper's Table 3: none, sampling (the base model proposes the alternatives "
            "itself, at every step), critique (no rollouts)"
        ),
    ] = "none"
    switch: Annotated[
        Literal["never", "better", "shorter"],
        Meta(
            description="when a candidate's rollout replaces the rest of the expert trajectory: where it earned more "
            "(the paper, on ALFWorld), or also where it earned as much in fewer steps"
        ),
    ] = "never"


class CollectSettings(Table, frozen=True, kw_only=True):
    """Making D_exp."""

    thoughts: Annotated[
        Literal["base", "none"], Meta(description="base: the base model writes them; none: actions alone")
    ] = "base"
    expert: Annotated[
        str,
        Meta(
            description="scienceworld: gold; alfworld: handcoded (searches, as a player must) or planner (knows the "
            "hidden state and goes the shortest way); empty: the first of these"
        ),
    ] = ""
    max_tokens: Annotated[int, Meta(ge=1, description="longest thought")] = 64


class AgentSettings(Table, frozen=True, kw_only=True):
    """How the agent is run, in training data and in evaluation."""

    max_tokens: Annotated[int, Meta(ge=1, description="longest turn, deliberation included")] = 512
    max_invalid: Annotated[int, Meta(ge=1, description="invalid actions in a row that end an episode")] = 5


class SampleSettings(Table, frozen=True, kw_only=True):
    """`sand sample`, Eq. 4."""

    n: Annotated[int, Meta(ge=1, description="turns drawn at every expert step (paper: 5)")] = 5
    temperature: Annotated[float, Meta(ge=0, description="paper: 1.0")] = 1.0


class RolloutSettings(Table, frozen=True, kw_only=True):
    """`sand rollout`."""

    temperature: Annotated[float, Meta(ge=0, description="paper: 1.0")] = 1.0


class CritiqueSettings(Table, frozen=True, kw_only=True):
    """`sand critique`."""

    max_tokens: Annotated[int, Meta(ge=1, description="longest critique")] = 160
    shown_steps: Annotated[
        int,
        Meta(ge=2, description="steps of history and of rollout shown; the middle of longer ones is marked"),
    ] = 20
    verdict: Annotated[
        Literal["model", "reward"],
        Meta(
            description="who says whether an action advanced, hindered or did not affect the task: the base model (the "
            "paper), or the rewards of the rollouts, where the base model is too small to tell"
        ),
    ] = "model"


class SynthesizeSettings(Table, frozen=True, kw_only=True):
    """`sand synthesize`."""

    max_tokens: Annotated[int, Meta(ge=1, description="longest deliberation")] = 384
    attempts: Annotated[int, Meta(ge=1, description="tries before a step keeps its original thought")] = 3
    form: Annotated[
        Literal["free", "guided"],
        Meta(
            description="free: in one go (the paper); guided: a sentence on every candidate in turn, then the rest, "
            "where the base model is too small to keep to the form"
        ),
    ] = "free"


class TrainingSettings(Table, frozen=True, kw_only=True):
    """Fine-tuning; the same for [sft] and [train]."""

    method: Annotated[
        Literal["full", "lora", "qlora"],
        Meta(description="all weights, a PEFT adapter, or one on weights of 4 bits (needs bitsandbytes)"),
    ] = "full"
    lora_rank: Annotated[int, Meta(ge=1, description="rank of the adapter")] = 16
    learning_rate: Annotated[float, Meta(gt=0, description="peak of the cosine schedule (paper: 1e-5)")] = 1e-5
    epochs: Annotated[int, Meta(ge=1, description="paper: 3; 1 from iteration 2 on")] = 3
    batch_size: Annotated[int, Meta(ge=1, description="trajectories an optimiser step (paper: 64)")] = 64
    max_length: Annotated[int, Meta(ge=0, description="longest trajectory in tokens; 0: the model's limit")] = 0
    too_long: Annotated[
        Literal["drop", "cut"],
        Meta(description="leave longer trajectories out, or cut whole steps from the end"),
    ] = "drop"


class ComputeSettings(Table, frozen=True, kw_only=True):
    """How `sand sft` and `sand train` compute; of no influence on what they aim at."""

    nproc: Annotated[
        int, Meta(ge=1, description="processes that train together, one a GPU; batch_size counts those of all")
    ] = 1
    shard: Annotated[
        bool, Meta(description="spread weights, gradients and optimiser over several GPUs (FSDP), not copy them")
    ] = False
    device_batch: Annotated[
        int, Meta(ge=1, description="trajectories a GPU computes at once, unpadded; above 1 needs flash-attention")
    ] = 1
    checkpoint_minutes: Annotated[float, Meta(ge=0, description="time between checkpoints to resume from")] = 10.0
    report_to: Annotated[
        list[str], Meta(description="tensorboard, wandb or others of transformers' integrations, beside the JSONL log")
    ] = msgspec.field(default_factory=list)


class EvalSettings(Table, frozen=True, kw_only=True):
    """`sand eval`."""

    splits: Annotated[list[str], Meta(description="train, seen, unseen")] = msgspec.field(
        default_factory=lambda: ["seen", "unseen"]
    )
    models: Annotated[list[str], Meta(description="model (this iteration's), sft, base, or folders")] = msgspec.field(
        default_factory=lambda: ["model"]
    )


class EngineSettings(Table, frozen=True, kw_only=True):
    """What generates text; of no influence on what artifacts depend on, but for `max_length`."""

    kind: Annotated[
        Literal["auto", "transformers", "vllm", "server", "scripted"], Meta(description="auto chooses and says why")
    ] = "auto"
    batch: Annotated[
        int,
        Meta(ge=0, description="sequences decoded together (server: requests a URL, in all); 0: the engine's choice"),
    ] = 0
    max_length: Annotated[int, Meta(ge=0, description="longest conversation in tokens; 0: the model's limit")] = 0
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"], Meta(description="auto: bfloat16 on a GPU, else float32")
    ] = "auto"
    cache_gib: Annotated[
        float, Meta(ge=0, description="transformers: memory for reusable prefixes; vllm on a CPU: for all prefixes")
    ] = 2.0
    gpu_memory: Annotated[float, Meta(gt=0, le=1, description="vllm: share of each GPU's memory")] = 0.9
    tensor_parallel: Annotated[int, Meta(ge=1, description="vllm: GPUs that one model is spread over")] = 1
    data_parallel: Annotated[int, Meta(ge=1, description="vllm: copies of the model")] = 1
    urls: Annotated[
        list[str], Meta(description="server: OpenAI-compatible URLs; a key comes from OPENAI_API_KEY alone")
    ] = msgspec.field(default_factory=list)
    timeout: Annotated[float, Meta(gt=0, description="server: seconds that one request may take")] = 600.0
    patience: Annotated[float, Meta(ge=0, description="server: seconds to wait for URLs that do not answer")] = 60.0
    script: Annotated[str, Meta(description="scripted: the rules, a JSON file, for tests")] = ""


class Settings(Table, frozen=True, kw_only=True):
    """All settings; one attribute a table of sand.toml."""

    run: RunSettings = RunSettings()
    model: ModelSettings = ModelSettings()
    env: EnvSettings = EnvSettings()
    method: MethodSettings = MethodSettings()
    collect: CollectSettings = CollectSettings()
    agent: AgentSettings = AgentSettings()
    sample: SampleSettings = SampleSettings()
    rollout: RolloutSettings = RolloutSettings()
    critique: CritiqueSettings = CritiqueSettings()
    synthesize: SynthesizeSettings = SynthesizeSettings()
    sft: TrainingSettings = TrainingSettings()
    train: TrainingSettings = TrainingSettings()
    trainer: ComputeSettings = ComputeSettings()
    eval: EvalSettings = EvalSettings()
    engine: EngineSettings = EngineSettings()


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    return re.sub(r"//[^/@]*@", "//***@", url)


def worker_count(settings: Settings) -> int:
    """How many environment processes to start."""
    return settings.run.workers or min(os.cpu_count() or 1, 8)
