"""Run directories: what is missing names the command that makes it."""

from pathlib import Path

import pytest

from sandcli.core.run import Run
from sandcli.errors import PrerequisiteError


def test_missing_run_directory_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError) as caught:
        Run(tmp_path / "none").must_exist()
    assert caught.value.fix == f"sand init --run {tmp_path}/none"


def test_missing_artifact_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError) as caught:
        Run(tmp_path).rollouts()
    assert caught.value.what == f"{tmp_path}/rollouts.jsonl is missing"
    assert caught.value.fix == f"sand rollout --run {tmp_path}"
