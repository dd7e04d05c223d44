"""The wheels for a machine that has torch, transformers and accelerate: this checkout, and what else it needs."""

import platform
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from sandcli.errors import PrerequisiteError, UsageError

REPO = Path(__file__).resolve().parents[2]

_OLDEST_GLIBC = 28
"""Wheels for glibc up to 2.28 are taken, which torch itself needs."""


def packages_to_pack(present: Collection[str], python: str) -> dict[str, str]:
    """The locked versions of the packages that `sand` needs beside those that are `present` with all they need.

    Raises `UsageError` for a name in `present` that is not installed here, `PrerequisiteError` outside a checkout.
    """
    if not (REPO / "pyproject.toml").exists():
        raise PrerequisiteError(f"{REPO} is no checkout of sand", "pack in one, or add --data-only")
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["local"]]
    needed = _closure({Requirement(text).name for text in wanted}, python) - _closure(present, python)
    pins = dict(_pins(REPO / "requirements.lock"))
    return {name: pins[name] for name in sorted(needed)}


def _closure(names: Collection[str], python: str) -> set[str]:
    """Packages and everything they require, by what is installed here."""
    found: set[str] = set()
    wanted = {str(canonicalize_name(name)) for name in names}
    while wanted:
        name = wanted.pop()
        found.add(name)
        wanted |= set(_required(name, python)) - found
    return found


def _required(name: str, python: str) -> Iterator[str]:
    try:
        texts = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        raise UsageError(f"{name} is not installed here", "correct --present, or run `make setup`") from None
    for requirement in map(Requirement, texts):
        if not requirement.marker or requirement.marker.evaluate({"extra": "", "python_version": python}):
            yield str(canonicalize_name(requirement.name))


def _pins(lock: Path) -> Iterator[tuple[str, str]]:
    for line in lock.read_text().splitlines():
        if not line.startswith("#"):
            name, _, version = line.partition("==")
            yield str(canonicalize_name(name)), version


def collect_wheels(pins: Mapping[str, str], python: str, machine: str, folder: Path) -> list[Path]:
    """Build the wheel of this checkout, download the others and pip itself; those that are there are kept.

    Raises `PrerequisiteError` if pip fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("sandcli-*.whl"):
        old.unlink()
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(REPO))
    named = [f"{name}=={version}" for name, version in pins.items()]
    pip = f"pip=={metadata.version('pip')}"
    _pip("download", "--no-deps", *_platform(python, machine), "--dest", str(folder), pip, *named)
    versions = {**pins, "pip": metadata.version("pip")}
    return [wheel for wheel in sorted(folder.glob("*.whl")) if _is_wanted(wheel, versions)]


def _is_wanted(wheel: Path, versions: Mapping[str, str]) -> bool:
    """Whether a wheel is one of those that are packed: other versions may be left from an earlier call."""
    name, version, *_ = parse_wheel_filename(wheel.name)
    return name == "sandcli" or versions.get(name) == str(version)


def _platform(python: str, machine: str) -> list[str]:
    """Options of `pip download` for another machine. pip matches the names of platforms exactly."""
    names = [f"manylinux_2_{minor}_{machine}" for minor in range(_OLDEST_GLIBC, 4, -1)]
    names += [f"manylinux{year}_{machine}" for year in ("2014", "2010", "1")]
    options = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    return options + [f"--platform={name}" for name in names]


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", arguments[0], "--quiet", "--disable-pip-version-check", *arguments[1:]]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode:
        raise PrerequisiteError(
            f"pip {arguments[0]} failed; its output is above",
            "check the network, or choose another --python: a package may have no wheel for it",
        )


def wheels_in(folder: Path) -> list[Path]:
    """The wheels in a folder. Raises `UsageError` if there is none."""
    found = sorted(folder.glob("*.whl"))
    if not found:
        raise UsageError(f"{folder} has no wheel", "pip download vllm --dest FOLDER")
    return found


def without(wheels: Collection[Path], others: Collection[Path]) -> list[Path]:
    """The wheels of packages of which `others` has none: pip refuses two versions of a package."""
    taken = {parse_wheel_filename(wheel.name)[0] for wheel in others}
    return [wheel for wheel in wheels if parse_wheel_filename(wheel.name)[0] not in taken]


def this_python() -> str:
    """The version of this Python as wheels name it, such as 3.11."""
    return ".".join(map(str, sys.version_info[:2]))


def this_machine() -> str:
    """The processor of this machine, such as x86_64."""
    return platform.machine()
