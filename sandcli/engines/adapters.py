"""Model folders that hold a PEFT adapter instead of all weights."""

import json
from pathlib import Path

import msgspec

from sandcli.errors import PrerequisiteError, UsageError
from sandcli.models import locate

_CONFIG = "adapter_config.json"


class AdapterConfig(msgspec.Struct, frozen=True):
    """What an adapter says about itself."""

    base_model_name_or_path: str
    revision: str | None = None
    r: int = 0
    rank_pattern: dict[str, int] | None = None

    @property
    def rank(self) -> int:
        """The largest rank in it."""
        return max(self.r, *(self.rank_pattern or {}).values(), 0)


def is_adapter(folder: Path) -> bool:
    """Whether a model folder holds an adapter."""
    return (folder / _CONFIG).exists()


def weights_of(folder: Path) -> Path:
    """Return the folder with all weights of a model: its own, or that of an adapter's base.

    A base may be a hub name, or may have been moved together with the adapter. Raises `PrerequisiteError` if an
    adapter's base is not in its place.
    """
    if not is_adapter(folder):
        return folder
    written = adapter_config(folder)
    name = written.base_model_name_or_path
    if Path(name).is_absolute() and not Path(name).exists():
        if moved := _moved_along(folder, Path(name)):
            return moved
        raise PrerequisiteError(
            f"{folder} is an adapter of {name}, which is not there",
            f"put that model there, or a link to where it is now: ln -s FOLDER {name}",
        )
    return locate(name, written.revision)


def _moved_along(folder: Path, base: Path) -> Path | None:
    """The base of an adapter that was moved with it: below a folder above both, at the end of its old path."""
    for above in folder.resolve().parents:
        for start in range(1, len(base.parts) - 1):  # a name alone may be that of another model
            found = above.joinpath(*base.parts[start:])
            if (found / "config.json").is_file():
                return found
    return None


def adapter_config(folder: Path) -> AdapterConfig:
    """Read the config of an adapter. Raises `UsageError` if it is damaged."""
    config = folder / _CONFIG
    try:
        return msgspec.convert(json.loads(config.read_text()), AdapterConfig)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{config} is not an adapter's config: {error}", "copy the adapter again") from None
