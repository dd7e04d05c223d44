"""The parameters of the commands that several share, or that need a long explanation: type, bounds and help."""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

ExportData = Literal["expert", "deliberations", "rft", "knowagent", "wkm", "pairs"]
"""D_exp, D_delib (see `sand synthesize`), D_rft or the data of KnowAgent (see `sand explore`), that of WKM's agent (see
`sand knowledge`), or preference pairs (see `sand pairs`)."""

ExportForm = Literal["messages", "prompt-completion", "sharegpt", "preference"]
"""A row for each trajectory, in OpenAI's form or ShareGPT's; for each of the agent's turns; or, of pairs, for each."""

Limit = Annotated[int | None, Meta(ge=1, description="Only the first N trajectories.")]
Tasks = Annotated[
    int | None,
    Meta(ge=1, description="Only N tasks of each split, far apart: not the first N of another tool's list."),
]
EngineKind = Annotated[str | None, Meta(description="auto, transformers, vllm, server, or scripted (for tests).")]
Workers = Annotated[int | None, Meta(ge=1, description="Environment processes; on a cluster, those of each crew.")]
Cluster = Annotated[
    str | None,
    Meta(description="Let a Ray cluster do the work: auto (the one this machine is in), local, or HOST:PORT."),
]
Processes = Annotated[
    int | None,
    Meta(ge=1, description="Processes that train together; default: one for each GPU. Not needed under torchrun."),
]
Nodes = Annotated[int | None, Meta(ge=1, description="Machines that train together: start the same command on each.")]
FirstNode = Annotated[
    str | None, Meta(description="HOST:PORT: an address of one of several nodes, and a port that is free there.")
]
Seed = Annotated[int | None, Meta(description="The run's seed.")]
Seeds = Annotated[int | None, Meta(ge=1, description="Seeds 0 to N - 1 instead of the plan's.")]
OnlySeed = Annotated[
    int | None, Meta(ge=0, description="Only the runs of this seed, to make those of others on other devices.")
]
Temperature = Annotated[float | None, Meta(ge=0, description="Sampling temperature (paper: 1.0).")]
Splits = Annotated[
    str | None, Meta(description="Comma-separated list of train, seen, unseen, or of splits of the panel.")
]
Panel = Annotated[
    str | None,
    Meta(description="Play a panel: a file made by `sand panel make`, or the name of a published one."),
]
Models = Annotated[str | None, Meta(description="Comma-separated list of model, policy, sft, base, or folders.")]
Force = Annotated[bool, Meta(description="Move what is there aside and redo the stage.")]
AcceptStale = Annotated[
    bool, Meta(description="Keep what was made from other inputs or settings, and continue; the manifest notes it.")
]
AcceptFailures = Annotated[bool, Meta(description="Finish without the units that failed for technical reasons.")]
DryRun = Annotated[bool, Meta(description="Say what would be done, and do nothing.")]
Source = Annotated[
    Path | None,
    Meta(
        description="Recorded trajectories: a file (JSON, JSON lines, parquet), a folder of files, or a hub data "
        "set (OWNER/NAME or OWNER/NAME:FILE).",
        extra={"flag": "--from"},
    ),
]
Expert = Annotated[
    str | None,
    Meta(
        description="ScienceWorld: gold, the simulator's own path. ALFWorld: handcoded, which searches and knows "
        "only what a player sees, or planner, which knows the hidden state and takes the shortest path."
    ),
]
