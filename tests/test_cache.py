"""The user's cache: it is atomic, keeps no remains of killed processes, and does not need to be writable."""

import os
from pathlib import Path

import pytest

from sandcli.cache import cache_folder, keep, needed, remove_old
from sandcli.errors import PrerequisiteError
from sandcli.models import EMBEDDED, fingerprint, locate
from tests.helpers import make_run, perform

LARGE = b"x" * (2**20 + 1)
"""A file whose hash is kept in the cache."""


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")


def test_files_of_killed_processes_are_deleted(tmp_path: Path) -> None:
    old, recent, other = (tmp_path / name for name in ("a.1.tmp", "b.2.tmp", "c"))
    for path in (old, recent, other):
        path.write_text("half")
        if path is not recent:
            os.utime(path, (0, 0))
    keep(tmp_path / "new", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.2.tmp", "c", "new"]
    remove_old(tmp_path, "c", 60)
    assert not other.exists()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        keep(tmp_path / "folder", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_modes_follow_the_umask_unless_private(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        keep(tmp_path / "shared", b"", private=False)
        keep(tmp_path / "private", b"")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("shared", "private")] == [mode, 0o600]


@pytest.mark.usefixtures("no_cache")
def test_without_a_cache_files_are_read_again(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(LARGE)
    assert fingerprint(tmp_path / "large") == fingerprint(tmp_path / "large")


@pytest.mark.usefixtures("no_cache")
def test_without_a_cache_stages_run(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    assert perform("collect", root).message.endswith("6 records")


@pytest.mark.usefixtures("no_cache")
def test_without_a_cache_the_embedded_model_is_an_error_with_a_fix() -> None:
    with pytest.raises(PrerequisiteError, match="the cache cannot be used") as caught:
        locate(EMBEDDED)
    assert caught.value.fix == "set XDG_CACHE_HOME to a folder that you can write to"


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 54321)  # pwd knows no such user
    with pytest.raises(PrerequisiteError, match="the cache cannot be used"), needed():
        keep(cache_folder() / "file", b"")
    (tmp_path / "large").write_bytes(LARGE)
    assert fingerprint(tmp_path / "large")


def test_a_model_in_the_home_of_an_unknown_user_is_not_found() -> None:
    with pytest.raises(PrerequisiteError, match="is not a model folder"):
        locate("~no-such-user/model")


def test_a_path_that_is_not_utf_8_has_a_fingerprint(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    (folder / os.fsdecode(b"\xfe")).write_bytes(b"content")
    (folder / "large").write_bytes(LARGE)
    assert fingerprint(folder) == fingerprint(folder)
