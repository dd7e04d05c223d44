"""Identity is opt-out: a changed setting makes a stage stale, or settings.py marks why it does not."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest

from sandcli.core.artifact import StageName
from sandcli.core.context import Context
from sandcli.core.planner import inspect
from sandcli.core.run import D_KNOW, D_PLANS, D_RFT, PREAMBLE, Run
from sandcli.core.runner import run_stage
from sandcli.core.stage import Options
from sandcli.engines.base import Model
from sandcli.fields import Field, fields
from sandcli.pipeline import TABLE, row, stages_of
from sandcli.settings import Settings
from sandcli.tables import Effect
from tests.helpers import context, make_run
from tests.trainer import Trainer

JSONL: tuple[StageName, ...] = (
    *("collect", "plan", "explore", "knowledge", "sample", "rollout", "critique", "synthesize", "pairs"),
    *("eval", "counterfactual"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, words: Model) -> Path:
    """A run with every stage done; the trainings have a stand-in."""
    root = make_run(tmp_path_factory.mktemp("identity") / "run", sample__n=2, model__base=str(words.folder))
    with pytest.MonkeyPatch.context() as patch:
        Trainer().put_in_place(patch)
        for stage in (line.name for line in TABLE):
            at = before_training(root) if stage == "prefer" else root
            asyncio.run(run_stage(row(stage).stage(context(at, 2)), Options()))
            if stage == "pairs":
                shutil.copytree(root, before_training(root))
    return root


def before_training(root: Path) -> Path:
    """The same run, trained by `prefer`, which makes model/ as `train` does."""
    return root.parent / "preferred"


def changed(field: Field, settings: Settings) -> Settings:
    """The settings with one of them changed to another legal value."""
    table = getattr(settings, field.table)
    value = next(v for v in _others(field, getattr(table, field.key)) if v != getattr(table, field.key))
    return msgspec.structs.replace(settings, **{field.table: msgspec.structs.replace(table, **{field.key: value})})


def _others(field: Field, value: Any) -> Iterator[Any]:
    kind = field.hint.__origin__
    if get_origin(kind) is Literal:
        yield from get_args(kind)
    elif kind is bool:
        yield not value
    elif kind is int:
        yield value + 1
    elif kind is float:
        yield value / 2 if value else 0.5
    elif kind is str:
        yield f"{value}x"
    else:
        yield [*value, "x"]


def stale(root: Path, settings: Settings) -> list[str]:
    """The stages that are stale under some settings."""
    found: list[str] = []
    for stage in (line.name for line in TABLE):
        there = Context(Run(before_training(root) if stage == "prefer" else root), settings, 2)
        if inspect(row(stage).stage(there)).kind == "stale":
            found.append(stage)
    return found


CONTENT = [field for field in fields() if field.effect is Effect.CONTENT]
SILENT = [field for field in fields() if field.effect in (Effect.COMPUTE, Effect.SCOPE)]


@pytest.mark.slow
@pytest.mark.parametrize("field", CONTENT, ids=lambda field: field.name)
def test_content_setting_makes_a_stage_stale(finished: Path, field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = context(finished).settings
    if field.name == "env.name":  # another world of the same kind
        monkeypatch.setattr("tests.toyworld.ToyWorldx", _toy(), raising=False)
    if field.name == "collect.expert":
        monkeypatch.setattr(_toy(), "experts", ("gold", "goldx", "x"))
    if field.table == "retrieval":  # an evaluation with a knowledge base reads it
        told: dict[str, Any] = {"method__name": "wkm", "eval__planner": "wkm", "retrieval__weight": 0.5}
        settings = context(finished, **told).settings
        before, after = (
            row("eval").stage(Context(Run(finished), each, 2)).identity()
            for each in (settings, changed(field, settings))
        )
        assert before != after
        return
    other = changed(field, settings)
    reader: dict[str, StageName] = {"method.without": "synthesize", "method.name": "explore"}
    if field.name in reader:  # later stages of ablations and baselines need other inputs
        assert inspect(row(reader[field.name]).stage(Context(Run(finished), other, 2))).kind == "stale"
    else:
        assert stale(finished, other), f"no stage notices a change of {field.name}"


def _toy() -> Any:
    from tests.toyworld import ToyWorld

    return ToyWorld


@pytest.mark.slow
@pytest.mark.parametrize("field", SILENT, ids=lambda field: field.name)
def test_marked_setting_makes_no_stage_stale(finished: Path, field: Field) -> None:
    if field.name in ("engine.kind", "env.tasks", "eval.splits", "eval.models", "eval.deliberation"):
        pytest.skip("its other values name something that this run does not have")
    assert stale(finished, changed(field, context(finished).settings)) == []


MACHINERY = tuple(f"{table}.{key}" for table in ("sft", "wkm", "train", "prefer") for key in ("method", "lora_rank"))
"""Read to reserve memory for adapters in the engine."""


INSTRUCTION = {field.name for field in fields() if field.table == "env"}
"""A stage that does not play reads only the world's instruction, whose text is part of the identity."""


class Watched:
    """Settings that note which of them are read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.read: set[str] = set()

    def __getattr__(self, table: str) -> Any:
        return _WatchedTable(getattr(self._settings, table), table, self.read)


class _WatchedTable:
    def __init__(self, values: Any, name: str, read: set[str]) -> None:
        self._values, self._name, self._read = values, name, read

    def __getattr__(self, key: str) -> Any:
        self._read.add(f"{self._name}.{key}")
        return getattr(self._values, key)

    def replaced(self, **changes: Any) -> Any:
        """A plain table, for a reader that takes the table as a whole: every setting in it counts as read."""
        self._read.update(f"{self._name}.{key}" for key in self._values.__struct_fields__)
        return msgspec.structs.replace(self._values, **changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant",
    [
        *({"method__without": without} for without in ("none", "critique", "sampling", "deliberations")),
        {"method__name": "rft"},
        {"method__name": "knowagent", "agent__knowledge": ""},
        {"method__name": "early-experience", "rollout__max_steps": 1},
        {"method__name": "mpo-sft", "eval__models": "base", "eval__planner": "base"},
        {"method__name": "eto"},
        {"method__name": "eto", "pairs__source": "rollouts"},
        {"method__name": "mpo", "eval__models": "base", "eval__planner": "base"},
        {"method__name": "wkm"},
        {"eval__temperature": 0.5},
    ],
)
def test_stage_reads_no_content_setting_outside_its_identity(
    tmp_path: Path, variant: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandcli.core.context.replace", lambda table, **changes: table.replaced(**changes))
    root = make_run(tmp_path / "run", sample__n=2, **variant)
    for name in JSONL:
        greedy = "eval__temperature" not in variant
        if name not in stages_of(context(root).settings) and not (name == "counterfactual" and greedy):
            continue
        watched = Watched(context(root).settings)
        stage = row(name).stage(Context(Run(root), watched, 2))  # type: ignore[arg-type]
        asyncio.run(run_stage(stage, Options()))
        content = {field.name for field in CONTENT} - set(MACHINERY) - (set() if stage.plays else INSTRUCTION)
        assert watched.read & content <= set(stage.identity().settings), name


@pytest.mark.slow
def test_table_lists_what_stages_read_and_write(tmp_path: Path, words: Model, trainer: Trainer) -> None:
    root = make_run(tmp_path / "run", sample__n=2, model__base=str(words.folder))
    for line in TABLE:
        if line.name == "prefer":
            shutil.move(root / "model", tmp_path / "trained")
        before = {path.name for path in root.iterdir()}
        stage = line.stage(context(root, 2))
        assert {path.name for path in stage.reads()} <= set(line.reads)
        asyncio.run(run_stage(stage, Options()))
        made = {path.name for path in root.iterdir()} - before - {"logs"}
        assert made == set(line.writes) - {PREAMBLE, D_RFT, D_KNOW, D_PLANS}  # of recorded data, and of other methods
