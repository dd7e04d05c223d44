"""Model folders that hold a PEFT adapter instead of all weights."""

import json
from pathlib import Path

from sandcli.errors import PrerequisiteError, UsageError
from sandcli.models import locate

_CONFIG = "adapter_config.json"


def is_adapter(folder: Path) -> bool:
    """Whether a model folder holds an adapter."""
    return (folder / _CONFIG).exists()


def weights_of(folder: Path) -> Path:
    """Return the folder with all weights of a model: its own, or that of an adapter's base.

    A base may be a hub name. Raises `PrerequisiteError` if an adapter's base is not in its place.
    """
    if not is_adapter(folder):
        return folder
    name, revision = _base(folder / _CONFIG)
    if Path(name).is_absolute() and not Path(name).exists():
        raise PrerequisiteError(
            f"{folder} is an adapter of {name}, which is not there",
            f"put that model there, or a link to where it is now: ln -s FOLDER {name}",
        )
    return locate(name, revision)


def _base(config: Path) -> tuple[str, str | None]:
    try:
        written = json.loads(config.read_text())
        return str(written["base_model_name_or_path"]), written.get("revision")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(
            f"{config} names no base_model_name_or_path, so it is not an adapter's config", "copy the adapter again"
        ) from None
