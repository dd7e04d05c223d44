"""Small runs on the toy world: made once without any fault, and copied for every case."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from sandcli.core.artifact import StageName
from tests.helpers import artifact, artifacts, make_run
from tests.torture.faults import Plan
from tests.torture.inside import forked, sand

STAGES: tuple[StageName, ...] = (
    *("collect", "sft", "plan", "explore", "sample", "rollout", "critique", "synthesize", "pairs"),
    *("train", "eval"),
)

Made = dict[str, bytes]


class Quiet:
    """Undisturbed runs of some trajectories of a task: `at(stage)` is one in which that stage comes next."""

    def __init__(self, folder: Path, task: str = "fetch", limit: int = 2) -> None:
        self.folder, self._task, self._limit = folder, task, limit
        base = folder / "base"
        base.mkdir(parents=True)
        built = {"model_type": "llama", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1}
        (base / "config.json").write_text(json.dumps(built))
        (base / "model.safetensors").write_bytes(b"base")
        self.at = cache(self._at)

    def _at(self, stage: StageName) -> Path:
        place = STAGES.index(stage)
        root = self.folder / f"{place}-{stage}" / "run"
        if place == 0:
            root.parent.mkdir()
            return make_run(
                root,
                env__tasks=self._task,
                sample__n=2,
                explore__n=2,
                model__base=str(self.folder / "base"),
                run__in_flight=3,
                eval__splits="train",
                eval__models="model",
            )
        before = STAGES[place - 1]
        shutil.copytree(self.at(before).parent, root.parent)
        self.do(root, before)
        return root

    @property
    def finished(self) -> Path:
        """A run in which every stage is done."""
        root = self.folder / "finished" / "run"
        if not root.exists():
            shutil.copytree(self.at("eval").parent, root.parent)
            self.do(root, "eval")
        return root

    @property
    def unfinished(self) -> Path:
        """A run in which `sample` was killed half-way."""
        root = self.folder / "unfinished" / "run"
        if not root.exists():
            shutil.copytree(self.at("sample").parent, root.parent)
            assert forked([self.command(root, "sample")], Plan("kill", 18)).code is None
        return root

    def command(self, root: Path, stage: str, *more: str) -> tuple[str, ...]:
        """A stage of a run like these."""
        return (stage, "--run", str(root), "--limit", str(self._limit), *more)

    def do(self, root: Path, stage: str) -> None:
        """Run a stage without any fault. It runs here and not in a fork, so that later forks find everything loaded."""
        ended = sand(*self.command(root, stage))
        assert ended.code == 0, ended.said


def copied(quiet: Path, to: Path) -> Path:
    """A copy of a run, to be disturbed. It has the same name, so that messages are the same."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(quiet.parent, to)
    return to / quiet.name


def content(root: Path) -> Made:
    """The results of a run: finished files and folders, and what their manifests say about their content."""
    made = artifacts(root)
    for stage in STAGES:
        made[f"manifest of {stage}"] = json.dumps(_figures(root, stage)).encode()
    return made | tree(root / "sft") | tree(root / "model")


def tree(folder: Path) -> Made:
    """The files of a folder."""
    return {str(path.relative_to(folder.parent)): path.read_bytes() for path in sorted(folder.rglob("*"))}


def _figures(root: Path, stage: StageName) -> Any:
    try:
        known = json.loads(artifact(root, stage).note("json").read_bytes())
    except FileNotFoundError:
        return None
    names = ("identity", "counts", "figures", "tokens", "left_out", "accepted", "artifact", "derived")
    return {name: known.get(name) for name in names}
