"""Reports of evaluations on panels: one table holds one panel, and every printed command keeps the panel."""

from pathlib import Path

import pytest

from sandcli.report.build import Report, build_report, report_of, write_files
from tests.helpers import make_run, perform
from tests.panels.made_up import in_file, panel, task
from tests.report.made_up import evaluation, everywhere, scores

SHORT = {"panel": "0123456789ab", "panel_name": "panels/short.json"}
OTHER = {"panel": "ba9876543210", "panel_name": "other"}


def report(*evaluations: object) -> Report:
    return report_of([], evaluations)  # type: ignore[arg-type]


def titles(made: Report) -> list[str]:
    """The titles of the tables of rewards."""
    return [sheet.title for sheet in made.sheets if sheet.name.startswith("table2")]


def test_report_without_panels_names_none() -> None:
    made = report(evaluation("a", sft=everywhere(0.5)), evaluation("b", model=everywhere(0.6)))
    assert titles(made) == ["Table 2: average reward x100"]
    assert {sheet.name for sheet in made.sheets} >= {"table2", "success", "types"}


def test_report_on_one_panel_names_it_and_keeps_the_names_of_its_files() -> None:
    made = report(evaluation("a", sft=everywhere(0.5), **SHORT), evaluation("b", model=everywhere(0.6), **SHORT))
    assert titles(made) == ["Table 2: average reward x100 (panel short, 0123456789ab)"]
    assert {sheet.name for sheet in made.sheets} >= {"table2", "differences"}
    assert all(figure.title.endswith("(panel short, 0123456789ab)") for figure in made.figures)
    assert not [line for line in made.warnings if "same panel" in line]


@pytest.mark.slow
def test_two_panels_are_never_in_one_table(tmp_path: Path) -> None:
    made = report(
        evaluation("a", sft=everywhere(0.1), **SHORT),
        evaluation("b", model=everywhere(0.2), **OTHER),
        evaluation("c", iteration=2, model=everywhere(0.3), **SHORT),
        evaluation("d", iteration=3, model=everywhere(0.4)),
    )
    assert titles(made) == [
        "Table 2: average reward x100 (panel short, 0123456789ab)",
        "Table 2: average reward x100 (panel other, ba9876543210)",
        "Table 2: average reward x100 (no panel)",
    ]
    names = [sheet.name for sheet in made.sheets]
    assert len(set(names)) == len(names) and "table2-no-panel" in names
    rows = {sheet.name: [row.label for row in sheet.rows if not row.paper] for sheet in made.sheets}
    assert rows["table2-0123456789ab"] == ["SFT", "SAND, iteration 2"]
    assert rows["table2-ba9876543210"] == ["SAND, iteration 1"]
    assert set(rows["differences-0123456789ab"]) == {"SAND, iteration 2"} and "differences-no-panel" not in rows
    assert {path.stem for path in write_files(made, tmp_path)} >= {"figure3-0123456789ab", "table2-no-panel"}


def test_different_panels_are_a_warning_and_no_other() -> None:
    made = report(
        evaluation("a", world="W", settings={"panel": "x", "env.v": "1"}, sft=scores([0.1]), **SHORT),
        evaluation("b", world="W", settings={"env.v": "2"}, model=scores([0.2, 0.3])),
    )
    (line,) = made.warnings
    assert "panel short, 0123456789ab: a; no panel: b" in line and "sand eval --panel PANEL --force" in line


def test_missing_parts_are_said_for_each_panel() -> None:
    made = report(
        evaluation("a", base_model=everywhere(0.1, 0.5), model=everywhere(0.1, 0.3), **SHORT),
        evaluation("b", model=everywhere(0.2, 0.1)),
    )
    first, second, *_ = made.missing
    assert first.startswith("panel short, 0123456789ab: no Table 3")
    assert second.startswith("no panel: no difficulty bands") and "sand eval --run b --models base" in second


def test_printed_commands_keep_the_panel() -> None:
    own = evaluation(
        "a", world="W", failed=1, accepted=("x: was 1, is 2",), model=scores([0.1]) + scores([0.2], "unseen"), **SHORT
    )
    made = report(own, evaluation("b", world="W", iteration=2, settings={"env.v": "2"}, model=scores([0.1]), **SHORT))
    commands = [line.rpartition("sand eval ")[2] for line in (*made.warnings, *made.missing) if "sand eval" in line]
    assert len(commands) == 5
    assert all(f"--panel {SHORT['panel_name']}" in command for command in commands)
    assert not any("env.tasks" in line for line in made.warnings)


def test_panel_without_unseen_tasks_lacks_none() -> None:
    made = report(evaluation("a", base_model=scores([0.1, 0.4], "dev"), model=scores([0.2, 0.3], "dev"), **SHORT))
    assert [line.partition(",")[0] for line in made.missing] == ["no Table 3"]
    made = report(evaluation("a", sft=scores([0.1], "train"), **SHORT))
    assert [line.partition(",")[0] for line in made.missing] == ["no Figure 4", "no Table 3"]


@pytest.mark.slow
def test_panel_of_a_run_is_read_from_its_manifest(tmp_path: Path) -> None:
    short = panel(splits={"seen": [task(6)]})
    path = in_file(tmp_path / "short.json", short)
    runs = [make_run(tmp_path / name, eval__models="base", eval__splits="seen") for name in ("one", "two", "three")]
    for root in runs[:2]:
        perform("eval", root, eval__panel=path)
    perform("eval", runs[2])
    made = build_report(runs)
    assert titles(made) == [
        f"Table 2: average reward x100 (panel short, {short.hash})",
        "Table 2: average reward x100 (no panel)",
    ]
    assert [len(group.rows) for group in made.groups] == [2, 1]
    assert any(f"--panel {path} " in line for line in made.missing)
