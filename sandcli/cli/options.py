"""The options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

RunDir = Annotated[Path, typer.Option("--run", metavar="DIR", help="The run directory.")]
EngineKind = Annotated[str | None, typer.Option(help="auto, transformers, vllm, server, or scripted (for tests).")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
IfNeeded = Annotated[
    bool, typer.Option("--if-needed", help="Do nothing, successfully, if this run goes without the stage.")
]
