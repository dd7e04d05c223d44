"""The options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

RunDir = Annotated[Path, typer.Option("--run", metavar="DIR", help="The run directory.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N trajectories (eval: tasks a split).")]
EngineKind = Annotated[str | None, typer.Option(help="auto, transformers, vllm, server, or scripted (for tests).")]
Workers = Annotated[int | None, typer.Option(min=1, help="Environment processes.")]
Processes = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that train together, one a GPU. Not needed under torchrun."),
]
Seed = Annotated[int | None, typer.Option(help="The run's seed.")]
Temperature = Annotated[float | None, typer.Option(min=0, help="Sampling temperature (paper: 1.0).")]
Force = Annotated[bool, typer.Option("--force", help="Move what is there aside and redo the stage.")]
Stale = Annotated[
    bool,
    typer.Option("--accept-stale", help="Keep what was made from other inputs or settings, and go on; it is noted."),
]
Failed = Annotated[bool, typer.Option("--accept-failures", help="Finish without the units that machinery failed.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; do nothing.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
