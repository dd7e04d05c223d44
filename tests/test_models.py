"""Fingerprints tell contents apart, even if a change kept a file's size and modification time."""

import hashlib
import os
from pathlib import Path

import pytest

from sandcli import models
from sandcli.models import fingerprint

LARGE = 2**20 + 1


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"a" * LARGE)
    return path


def test_change_in_place_that_keeps_size_and_time_changes_the_fingerprint(weights: Path) -> None:
    before, stat = fingerprint(weights), weights.stat()
    with weights.open("rb+") as file:
        file.write(b"b")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert fingerprint(weights) != before


def test_file_that_has_not_changed_lately_is_read_once(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_RECENTLY", 0)
    before = fingerprint(weights)
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert fingerprint(weights) == before


def test_file_of_a_name_that_is_not_text_has_a_fingerprint(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"weights-\xff")).write_bytes(b"a")
    assert fingerprint(tmp_path)
