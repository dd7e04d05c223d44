"""What `sand status` and a finished stage print at 80 columns."""

import json
import time
from pathlib import Path

import pytest

from sandcli.cli.output import print_data
from sandcli.core.cluster.notes import CrewNote, note
from sandcli.core.manifest import Identity, Manifest
from sandcli.core.run import ARTIFACTS
from sandcli.pipeline import stages_of
from sandcli.records import Failure
from sandcli.status import StageStatus, failures_view, status_of, status_view, summary_view
from tests.helpers import artifact, context, make_run, perform, sand

UNIT = "train/pick_and_place_simple-Mug-None-Desk-308/trial_T20190906_195547_338431_x"
HOSTILE = "[red]worker[/] \x1b[2J ended :lamp:"
HOSTILE_PRINTED = r"[red]worker[/] \x1b[2J ended :lamp:"
AT_80 = {"COLUMNS": "80"}


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")]


@pytest.mark.slow
def test_names_and_states_are_whole_at_80_columns(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    perform("collect", root, limit=1)
    ran = sand("status", "--run", root, extra=AT_80)
    assert ran.returncode == 0, ran.stderr
    rows = {found[0]: found[1:] for line in ran.stdout.splitlines() if len(found := cells(line)) > 1}
    assert rows["stage"] == ["artifact", "state", "recorded", "to do", "failed"]
    assert rows["collect"] == ["expert.jsonl", "done", "1", "0", "0"]
    assert {stage: row[:2] for stage, row in rows.items() if row[1:2] == ["missing"]} == {
        stage: [ARTIFACTS[stage].name, "missing"] for stage in stages_of(context(root).settings) if stage != "collect"
    }
    assert "…" not in ran.stdout and max(map(len, ran.stdout.splitlines())) <= 80
    assert "collect: with --limit 1" in ran.stdout.splitlines()


@pytest.mark.slow
def test_stage_on_request_is_shown_once_it_was_begun(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    assert "counterfactual" not in [line.stage for line in status_of(context(root))]
    perform("eval", root, limit=1)
    perform("counterfactual", root, limit=1)
    last = status_of(context(root))[-1]
    assert (last.stage, last.artifact, last.state) == ("counterfactual", "counterfactuals.jsonl", "done")


def test_stages_with_the_same_note_share_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    states = [StageStatus(name, f"{name}s.jsonl", "missing", 0, 0, {}, HOSTILE) for name in ("sample", "rollout")]
    print_data(status_view(states))
    assert capsys.readouterr().out.splitlines()[-1] == f"sample, rollout: {HOSTILE_PRINTED}"


def test_failures_are_counted_and_everything_still_fits(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = {"environment": 123, "replay_diverged": 45}
    states = [
        StageStatus(stage, written.name, "partial", 1234567, 1234567, reasons if stage == "rollout" else {}, "")
        for stage, written in ARTIFACTS.items()
    ]
    print_data(status_view(states))
    text = capsys.readouterr().out
    for stage, written in ARTIFACTS.items():
        row = [stage, written.name, "partial", "1234567", "1234567", "168" if stage == "rollout" else "0"]
        assert row in map(cells, text.splitlines())
    assert text.splitlines()[-1] == "rollout: failed units: 123 environment, 45 replay_diverged"


def test_failed_units_are_listed_literally_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    failures = [Failure(unit=[UNIT, n], reason="environment", detail=HOSTILE, attempts=n + 1) for n in range(12)]
    print_data(failures_view(failures))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "12 failed units" and lines[-1] == "and 2 more"
    assert lines[1:5] == [
        f"{UNIT} 0",
        f"    environment, 1 attempt: {HOSTILE_PRINTED}",
        f"{UNIT} 1",
        f"    environment, 2 attempts: {HOSTILE_PRINTED}",
    ]


def test_a_summary_counts_what_was_left_out_and_what_differs_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    left_out = {'["a b",2]': "too long: 90 tokens", "b": f"{HOSTILE}: why", "c": "too long: 80 tokens", "d": "no step"}
    made = Manifest(
        stage="collect",
        identity=Identity({}, {}, {}),
        counts={"units": 3},
        left_out=left_out,
        differences={"order": (1234, f"e: {HOSTILE}")},
    )
    print_data(summary_view(made))
    lines = capsys.readouterr().out.splitlines()
    found = [cells(line) for line in lines if line.startswith("│") and len(cells(line)) == 3]
    assert [row[0] for row in found if row[0]] == ["2", "1", "1", "1,234"]
    text = "\n".join(" ".join(row) for row in found)
    assert "left out" in text and "2 too long a b 2 90 tokens" in text and "1 no step d" in text
    assert "\x1b" not in text and r"\x1b[2J" in text and max(map(len, lines)) <= 80


def test_status_of_a_new_run(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    items = json.loads(sand("status", "--run", root, "--json").stdout)
    assert [item["state"] for item in items] == ["missing"] * 8
    assert (items[0]["stage"], items[0]["todo"]) == ("collect", 6)


@pytest.mark.slow
def test_a_limited_stage_is_done_within_its_limit(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    perform("collect", root, limit=1)
    collect = json.loads(sand("status", "--run", root, "--json").stdout)[0]
    assert (collect["state"], collect["todo"], collect["note"]) == ("done", 0, "with --limit 1")


@pytest.mark.slow
def test_status_neither_converts_nor_downloads_a_model(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    perform("collect", root)
    settings = {
        "SAND_ENGINE_KIND": "transformers",
        "SAND_COLLECT_THOUGHTS": "base",
        "SAND_MODEL_POLICY": "no-such-organisation/no-such-model",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hub"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    ran = sand("status", "--run", root, "--json", extra=settings)
    assert ran.returncode == 0, ran.stderr
    notes = {item["stage"]: item["note"] for item in json.loads(ran.stdout)}
    assert notes["collect"] == "model smollm2-135m-instruct is not on this machine yet"
    assert not (tmp_path / "cache" / "sand" / "models").exists()
    assert not list((tmp_path / "hub").rglob("*model*"))


def test_crews_at_work_are_shown_until_their_driver_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_run(tmp_path / "run")
    perform("collect", root, limit=1)
    made = artifact(root, "sample")
    note(made, [CrewNote("10.0.0.1", 30), CrewNote("10.0.0.2", 20), CrewNote("10.0.0.2", 10)])
    told = {stage.stage: stage.note for stage in status_of(context(root))}
    assert told["sample"] == "crews at work: 1 on 10.0.0.1, 2 on 10.0.0.2; 60 units in progress"
    an_hour_later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: an_hour_later)
    assert "crews" not in {stage.stage: stage.note for stage in status_of(context(root))}["sample"]
    note(made, [])
    assert not made.note("crews.json").exists()


def test_begun_model_is_listed_once(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", method__name="eto")
    (root / "model.part").mkdir()
    listed = [stage.stage for stage in status_of(context(root))]
    assert "prefer" in listed and "train" not in listed
