"""The table of checks: each in a process of its own, whatever happens to it."""

from pathlib import Path

import pytest

from experiments.gpu import check
from experiments.gpu.check import NAMES, Line, run_check, table


def test_every_check_has_a_line() -> None:
    from experiments.gpu.checks import CHECKS

    assert tuple(CHECKS) == NAMES


@pytest.mark.slow
def test_crash_of_a_check_is_its_result(tmp_path: Path) -> None:
    line = run_check("full training", tmp_path / "no-model", tmp_path, 120)
    assert (line.name, line.state) == ("full training", "failed")
    assert "exit code 2" in line.seen and "no-model is no folder of a model" in line.seen


def test_check_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    line = run_check("full training", tmp_path / "no-model", tmp_path, 0.0)
    assert (line.state, "not finished after 0 s" in line.seen) == ("failed", True)


def test_check_that_was_killed_names_the_signal(tmp_path: Path) -> None:
    assert check._how(-9) == "ended by SIGKILL"


def test_table_is_markdown() -> None:
    lines = [Line("a", "passed", "1 | 2\n3")]
    assert "\n".join(table(lines)).splitlines() == [
        "| check | result | seen |",
        "|---|---|---|",
        "| a | passed | 1 \\| 2 3 |",
    ]


def test_first_difference_of_texts() -> None:
    from experiments.gpu.checks import first_difference

    assert first_difference(["a", "b"], ["a", "b"]) == ""
    assert "text 2 differs from character 2 on: 'x', on the CPU 'y'" in first_difference(["a", "bcx"], ["a", "bcy"])
    assert "text 1 differs from character 1 on: '', on the CPU 'b'" in first_difference(["a"], ["ab"])


def test_other_losses_are_a_failure() -> None:
    from experiments.gpu.material import Failed, refuse_other_losses

    refuse_other_losses([1.0, 2.0], [1.0, 2.001])
    for found in ([1.0, 2.1], [float("nan"), 2.0]):
        with pytest.raises(Failed, match="the loss of step"):
            refuse_other_losses(found, [1.0, 2.0])


@pytest.mark.parametrize("name", ["bfloat16", "several trajectories at once", "sharding in one process"])
def test_check_on_the_cpu(tiny: Path, tmp_path: Path, name: str) -> None:
    line = run_check(name, tiny, tmp_path, 300)
    assert line.state == ("not tried" if name.startswith("several") else "passed"), line.seen
