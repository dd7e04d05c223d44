"""The diagnostics of runs as part of a report."""

import csv
import json
from pathlib import Path

import pytest

from sandcli.report.build import build_report, write_files
from sandcli.report.diagnostics import diagnostic_sheets, diagnostics_of
from sandcli.report.html import write_html
from tests.helpers import make_run, perform, sand
from tests.report.made_run import make_complete
from tests.report.made_up import evaluation


def test_a_run_has_a_funnel_and_a_row_of_critics(tmp_path: Path) -> None:
    make_complete(tmp_path)
    (found,) = diagnostics_of([evaluation(str(tmp_path))])
    assert (found.group, found.name, found.warnings) == ("tiny", tmp_path.name, ())
    critics, funnel = diagnostic_sheets([found])
    assert (critics.name, funnel.name) == ("critics", "funnel")
    assert funnel.title.endswith(f": {tmp_path.name}")


def test_several_runs_have_numbered_funnels_and_share_the_table_of_critics(tmp_path: Path) -> None:
    for name in ("it1", "it2", "empty"):
        (tmp_path / name).mkdir()
    make_complete(tmp_path / "it1")
    make_complete(tmp_path / "it2")
    found = diagnostics_of([evaluation(str(tmp_path / name)) for name in ("it1", "empty", "it2")])
    critics, *funnels = diagnostic_sheets(found)
    assert list(dict.fromkeys(row.label for row in critics.rows)) == ["it1", "it2"]
    assert [(sheet.name, sheet.title.rpartition(": ")[2]) for sheet in funnels] == [
        ("funnel-1", "it1"),
        ("funnel-2", "it2"),
    ]


def test_unreadable_critiques_are_a_warning(tmp_path: Path) -> None:
    make_complete(tmp_path)
    (tmp_path / "rollouts.jsonl").unlink()
    (found,) = diagnostics_of([evaluation(str(tmp_path))])
    assert found.critics is None and found.funnel is not None
    (line,) = found.warnings
    assert line.startswith(f"{tmp_path}: its critiques are not compared with the rewards")
    assert line.endswith(f"sand rollout --run {tmp_path}")


def test_a_run_without_artifacts_has_no_diagnostics(tmp_path: Path) -> None:
    assert diagnostic_sheets(diagnostics_of([evaluation(str(tmp_path))])) == []


@pytest.mark.slow
def test_a_report_has_all_diagnostics_in_every_format(tmp_path: Path) -> None:
    root = make_run(tmp_path / "it1")
    for stage in ("collect", "sample", "rollout", "critique", "synthesize"):
        perform(stage, root)
    perform("eval", root, eval__models=["base", "model"])
    report = build_report([root])
    assert {"decisions", "critics", "funnel"} <= {sheet.name for sheet in report.sheets}
    assert [figure.name for figure in report.figures] == ["figure3", "figure4", "funnel"]
    assert "Spearman's rho" in report.figures[1].caption
    names = {path.name for path in write_files(report, tmp_path / "out")}
    wanted = {f"{name}.{form}" for name in ("decisions", "critics", "funnel") for form in ("md", "csv", "tex")}
    assert wanted | {"funnel.svg", "funnel.png"} <= names
    with (tmp_path / "out" / "funnel.csv").open() as file:
        rows = list(csv.DictReader(file))
    steps = sum(len(json.loads(line)["steps"]) for line in (root / "expert.jsonl").read_text().splitlines())
    assert int(rows[0]["steps"]) == steps
    write_html(tmp_path / "report.html", report)
    assert "<b>From expert steps to training data.</b>" in (tmp_path / "report.html").read_text()
    ran = sand("report", root, extra={"COLUMNS": "80"})
    assert max(map(len, ran.stdout.splitlines())) <= 80
