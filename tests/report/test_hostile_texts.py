"""Hostile text in every field of a report: it neither controls a terminal nor becomes part of a page."""

import base64
import gzip
import io
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from sandcli.episodes import Episode
from sandcli.records import Candidate, Critique, Rollout, Sample, Step, Task, Thought, Trajectory
from sandcli.report.build import Report, report_of, tables_as, tables_for_terminal, write_files
from sandcli.report.critics import Critics, Opinion
from sandcli.report.diagnostics import Diagnostics
from sandcli.report.funnel import Filter, Funnel
from sandcli.report.page import Page, RunData, TrainingTrajectory, page_of
from sandcli.report.rows import short_names
from sandcli.report.scores import Decisions, Evaluation
from sandcli.terminal import visible
from tests.report.made_up import evaluation, everywhere

HOSTILE = (
    "</script><script>alert(1)</script><!-- --></style></title><img src=x onerror=alert(1)>\"'&"
    "<!-- tables -->/* script */ [/INST] [red] $x^2$ \\ \x1b[2J\x1b]52;c;aGk=\x07 \u202e ]]>"
)
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")


def hostile_report() -> Report:
    name = HOSTILE.replace("/", "|") + "\udcff"
    scores: dict[str, Any] = {
        HOSTILE: everywhere(0.1, 0.9),
        "base": everywhere(0.2, 0.4),
        "model": [one._replace(decisions=Decisions(1, 1, 1)) for one in everywhere(1.0, 0.0)],
    }
    settings = [{"env.x": HOSTILE}, {"env.x": "y"}]
    runs: list[Evaluation] = [
        evaluation(
            f"{name}{number}",
            base=name,
            world=HOSTILE,
            iteration=number,
            scores=scores,
            settings=chosen,
            failed=1,
            panel="0123456789ab",
            panel_name=f"{name}.json",
        )
        for number, chosen in enumerate(settings, 1)
    ]
    return report_of([Path(run.run) for run in runs], runs, [hostile_diagnostics(run) for run in runs])


def hostile_diagnostics(run: Evaluation) -> Diagnostics:
    """The diagnostics of a run whose names, reasons and notes are hostile."""
    name = short_names([run.run])[run.run]
    funnel = Funnel([Filter("expert steps", 2, {}), Filter("deliberated", 1, {visible(HOSTILE): 1})], [HOSTILE])
    return Diagnostics(name, name, Critics({Opinion(HOSTILE, "advanced", "hindered", "less"): 1}), funnel)


def test_tables_print_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    from sandcli.cli.output import print_json, print_text

    report, stream = hostile_report(), io.StringIO()
    for table in tables_for_terminal(report):
        Console(file=stream, width=300, force_terminal=True, color_system=None).print(table)
    print_text(tables_as(report, "markdown"))
    print_text(tables_as(report, "csv"))
    print_text(tables_as(report, "latex"))
    print_json(report.plain())
    for printed in (stream.getvalue(), capsys.readouterr().out):
        assert "[/INST] [red]" in printed and not CONTROL.search(printed)


@pytest.mark.slow
def test_files_are_written_and_hold_no_halves_of_characters(tmp_path: Path) -> None:
    report = hostile_report()
    for path in write_files(report, tmp_path):
        if path.suffix != ".png":
            path.read_text(encoding="utf-8")
    assert "script>" not in (tmp_path / "figure3.svg").read_text().replace("&lt;script&gt;", "")
    ET.fromstring((tmp_path / "funnel.svg").read_bytes())


class Tags(HTMLParser):
    """The elements of a page, and every attribute that runs a script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.comments: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.scripts += [name for name, _ in attrs if name.startswith("on")]

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def everything(text: str) -> RunData:
    """A run with this text in every field."""
    step = Step(thought=text, action=text, observation=text, score=0.5, deliberated=True)
    task = Task(name=text, game=text)
    unit: dict[str, Any] = {"id": text, "step": 0}
    expert = Trajectory(
        env=text, task=task, instruction=text, steps=[step], reward=1.0, success=True, source=text, id=text
    )
    candidate = Candidate(action=text, count=1)
    sample = Sample(
        **unit, expert_action=text, samples=[], drawn=1, unparsable=0, candidates=[candidate], deliberate=True
    )
    outcome: dict[str, Any] = {"reward": 0.5, "success": False, "end": "done", "tokens": 1, "steps": [step]}
    rollout = Rollout(**unit, candidate=0, action=text, thought=text, expert=True, count=1, **outcome)
    critique = Critique(**unit, candidate=0, action=text, reward=0.5, critique=text, tokens=1)
    thought = Thought(**unit, thought=text, attempts=1, rejected=[text], tokens=1)
    episode = Episode(split=text, task=task, model=text, instruction=text, deliberated=1, **outcome)
    training = TrainingTrajectory(expert, expert, [sample], [rollout], [critique], [thought])
    return RunData(text, {text: text}, [episode], [training])


def page(text: str) -> str:
    report = hostile_report() if text == HOSTILE else None
    grids, figures = (report.grids, report.figures) if report else ([], [])
    parts = page_of(Page(text, grids, figures, [text]), [everything(text)])
    return b"".join(parts).decode()


@pytest.mark.slow
def test_a_page_has_no_elements_but_its_own() -> None:
    plain, hostile = Tags(page("text")), Tags(page(HOSTILE))
    assert (hostile.scripts, hostile.comments) == ([], [])
    assert hostile.tags.count("script") == plain.tags.count("script")
    assert hostile.tags.count("style") == plain.tags.count("style") == 1
    images = [tag for tag in hostile.tags if tag == "img"]
    assert len(images) == len(hostile_report().figures)


@pytest.mark.slow
def test_the_records_of_a_page_hold_the_text_as_it_is() -> None:
    blocks = re.findall(r'id="(?:episodes|training)-0">([^<]*)<', page(HOSTILE))
    records = [msgspec.json.decode(gzip.decompress(base64.b64decode(block)))[0] for block in blocks]
    assert [records[0]["instruction"], records[1]["expert"]["instruction"]] == [HOSTILE, HOSTILE]
