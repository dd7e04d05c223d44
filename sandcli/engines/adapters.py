"""Model folders that hold a PEFT adapter instead of all weights."""

import json
from pathlib import Path


def is_adapter(folder: Path) -> bool:
    """Whether a model folder holds an adapter."""
    return (folder / "adapter_config.json").exists()


def weights_of(folder: Path) -> str:
    """Return where the weights of a model are: its folder, or the base of an adapter."""
    return adapter_base(folder) if is_adapter(folder) else str(folder)


def adapter_base(folder: Path) -> str:
    """Return the model that an adapter was trained on: a folder or a hub name."""
    return str(json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"])
