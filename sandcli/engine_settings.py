"""The settings of what generates text, and of the cluster that it may run on."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sandcli.tables import COMPUTE, LONGEST, REFERENCE, Table


class EngineSettings(Table, frozen=True, kw_only=True):
    """What generates text. Artifacts do not depend on it, except on `max_length`."""

    kind: Annotated[
        Literal["auto", "transformers", "vllm", "server", "scripted"],
        Meta(description="auto chooses and says why"),
        COMPUTE,
    ] = "auto"
    batch: Annotated[
        int,
        Meta(ge=0, description="sequences decoded together (server: requests for each URL); 0: the engine's choice"),
        COMPUTE,
    ] = 0
    max_length: Annotated[int, Meta(ge=0, description="longest conversation in tokens; 0: the model's limit")] = 0
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        Meta(description="auto: bfloat16 on a GPU, else float32"),
        COMPUTE,
    ] = "auto"
    cache_gib: Annotated[
        float,
        Meta(ge=0, le=2**20, description="memory for reusable prefixes: transformers, and vllm on a CPU"),
        COMPUTE,
    ] = 2.0
    gpu_memory: Annotated[float, Meta(gt=0, le=1, description="vllm: share of each GPU's memory"), COMPUTE] = 0.9
    tensor_parallel: Annotated[int, Meta(ge=1, description="vllm: GPUs that one model is spread over"), COMPUTE] = 1
    data_parallel: Annotated[
        int, Meta(ge=0, description="vllm: copies of the model; 0: as many as fit the GPUs, 1 without any"), COMPUTE
    ] = 0
    urls: Annotated[
        list[str],
        Meta(description="server: OpenAI-compatible URLs; the key is read from OPENAI_API_KEY only"),
        COMPUTE,
    ] = msgspec.field(default_factory=list)
    timeout: Annotated[
        float, Meta(gt=0, le=LONGEST, description="server: seconds that one request may take"), COMPUTE
    ] = 600.0
    patience: Annotated[
        float, Meta(ge=0, le=LONGEST, description="server: seconds to wait for URLs that do not answer"), COMPUTE
    ] = 60.0
    script: Annotated[str, Meta(description="scripted: the rules, a JSON file, for tests"), REFERENCE] = ""


class ClusterSettings(Table, frozen=True, kw_only=True):
    """Who does the units of work: this process, or crews on a Ray cluster."""

    address: Annotated[
        str,
        Meta(
            description="Ray cluster whose nodes do the work: auto (the one that this machine is part of), local (this "
            "machine alone), or HOST:PORT; empty: this process does it"
        ),
        COMPUTE,
    ] = ""
    crews: Annotated[
        int,
        Meta(
            ge=0,
            description="processes that each hold an engine and environments; 0: as many as the nodes have room for",
        ),
        COMPUTE,
    ] = 0
    patience: Annotated[
        float,
        Meta(gt=0, le=LONGEST, description="seconds without an answer after which a crew counts as lost"),
        COMPUTE,
    ] = 60.0
