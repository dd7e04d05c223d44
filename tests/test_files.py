"""Writing files: an error names the path and the fix; file systems that cannot fsync a folder are accepted."""

import errno
import os
import stat
from pathlib import Path

import pytest

from sandcli.errors import PrerequisiteError
from sandcli.files import write_atomic


@pytest.fixture
def folder_fsync(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The error with which the fsync of a folder fails, once a test has added it."""
    errors: list[int] = []
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if errors and stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errors[0], os.strerror(errors[0]))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    return errors


def test_failed_fsync_of_a_folder_names_it(tmp_path: Path, folder_fsync: list[int]) -> None:
    folder_fsync.append(errno.EIO)
    with pytest.raises(PrerequisiteError, match=f"^{tmp_path}: cannot write: Input/output error$"):
        write_atomic(tmp_path / "f", [b"new"])


def test_file_system_without_fsync_of_folders_is_written(tmp_path: Path, folder_fsync: list[int]) -> None:
    folder_fsync.append(errno.EINVAL)
    write_atomic(tmp_path / "f", [b"new"])
    assert (tmp_path / "f").read_bytes() == b"new"


def test_folder_in_place_of_a_file_is_named_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(PrerequisiteError) as caught:
        write_atomic(tmp_path / "f", [b"new"])
    assert caught.value.what == f"{tmp_path}/f: cannot write: Is a directory"
    assert caught.value.fix.startswith("move what is there out of the way")
