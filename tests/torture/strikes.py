"""Kills, power cuts and failing system calls at every change of a file, in every kind of stage run."""

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sandcli.core.artifact import StageName
from tests.helpers import artifact, units
from tests.torture.cases import Case, must, must_end_well
from tests.torture.faults import ERRORS, KILLS, Plan
from tests.torture.inside import Ended, forked
from tests.torture.runs import STAGES, Quiet, content, copied


class Scene(NamedTuple):
    """One command in a copy of the run `quiet`. `redoes`: what is recorded may be done again."""

    name: str
    quiet: Path
    stage: StageName
    more: tuple[str, ...] = ()
    redoes: bool = False


def scenes(quiet: Quiet) -> list[Scene]:
    """Every stage from scratch, and the ways to redo one."""
    finished = quiet.finished
    return [
        *(Scene(stage, quiet.at(stage), stage) for stage in STAGES),
        Scene("more", finished, "collect", ("--limit", "3")),
        Scene("wider", quiet.at("rollout"), "sample", ("--n", "3")),
        Scene("stale", finished, "sample", ("--seed", "1", "--accept-stale")),
        Scene("force", finished, "sample", ("--force",), redoes=True),
        Scene("force-model", finished, "sft", ("--force",), redoes=True),
    ]


class Strikes:
    """The cases of one set of quiet runs."""

    def __init__(self, quiet: Quiet, folder: Path) -> None:
        self._quiet = quiet
        self._scenes = {scene.name: scene for scene in scenes(quiet)}
        self._folder = folder
        self._expected = cache(self._undisturbed)

    def __iter__(self) -> Iterator[Case]:
        for act in (*KILLS, *ERRORS):
            for name in self._scenes:
                for at in range(1, self._expected(name)[0].points + 1):
                    yield self.case(f"{act}/{name}/{at}")

    def case(self, name: str) -> Case:
        """The case ACT/SCENE/POINT."""
        act, scene, at = name.split("/")
        return Case(name, lambda folder: self._strike(self._scenes[scene], Plan(act, int(at)), folder))

    def chain(self, name: str) -> Case:
        """The case chain/SCENE/SEED: one kill after another, at random points, until the command finishes."""
        scene = name.split("/")[1]
        return Case(name, lambda folder: self._strike_often(self._scenes[scene], random.Random(name), folder))

    def chains(self, seed: int) -> Iterator[Case]:
        """An endless series of chains."""
        while True:
            for scene in self._scenes:
                yield self.chain(f"chain/{scene}/{seed}")
            seed += 1

    def _command(self, scene: Scene, root: Path) -> tuple[str, ...]:
        return self._quiet.command(root, scene.stage, *scene.more)

    def _undisturbed(self, name: str) -> tuple[Ended, dict[str, bytes]]:
        scene = self._scenes[name]
        root = copied(scene.quiet, self._folder / f"quiet-{name}")
        ended = forked([self._command(scene, root)])
        must_end_well(ended, (0,))
        return ended, content(root)

    def _strike(self, scene: Scene, plan: Plan, folder: Path) -> bool:
        _, expected = self._expected(scene.name)
        root = copied(scene.quiet, folder)
        struck = forked([self._command(scene, root)], plan)
        if not struck.point:
            return False
        if plan.act in ERRORS:
            must_end_well(struck, (0, 3))
            must(struck.code != 0 or content(root) == expected, f"{struck.point}: wrong and exit code 0", struck)
        self._must_recover(scene, root, struck.point, expected)
        return True

    def _strike_often(self, scene: Scene, moments: random.Random, folder: Path) -> bool:
        quiet, expected = self._expected(scene.name)
        root = copied(scene.quiet, folder)
        points: list[str] = []
        for _ in range(moments.randint(2, 6)):
            kept = _recorded(scene, root)
            plan = Plan(moments.choice(KILLS), moments.randint(1, quiet.points))
            struck = forked([self._command(scene, root)], plan)
            _must_not_repeat(scene, struck, kept, " then ".join(points))
            must(struck.code in (None, 0), "it does not continue", struck)
            if not struck.point:
                break
            points.append(f"{plan.act} {plan.at} ({struck.point})")
        self._must_recover(scene, root, " then ".join(points), expected)
        return bool(points)

    def _must_recover(self, scene: Scene, root: Path, where: str, expected: dict[str, bytes]) -> None:
        """`sand status` answers, and the same command again gives the same bytes without repeating what is recorded."""
        kept, old = _recorded(scene, root), artifact(scene.quiet, scene.stage).path
        again = forked([("status", "--run", root), self._command(scene, root)])
        must(again.clean, f"{where}: internal error", again)
        must(again.code == 0, f"{where}: the same command again ends with {again.code}", again)
        _must_not_repeat(scene, again, kept, where)
        made = content(root)
        unlike = [name for name in sorted(expected | made) if expected.get(name) != made.get(name)]
        must(not unlike, f"{where}: other content: {', '.join(unlike)}", again)
        must(not list(root.glob("*.part")), f"{where}: a journal remains", again)
        if scene.redoes and old.is_file():
            kept_old = any(path.read_bytes() == old.read_bytes() for path in root.glob(f"aside/*/{old.name}"))
            must(kept_old, f"{where}: the old {old.name} is lost", again)


def _must_not_repeat(scene: Scene, ended: Ended, kept: set[str], where: str) -> None:
    repeated = kept & set(ended.begun)
    must(scene.redoes or not repeated, f"{where}: done again although recorded: {sorted(repeated)[:3]}", ended)


def _recorded(scene: Scene, root: Path) -> set[str]:
    """The units of the complete lines of a stage."""
    made = artifact(root, scene.stage)
    if made.record is None or scene.name == "wider":
        return set()
    path = made.journal if made.journal.exists() else made.path
    whole = path.read_bytes() if path.exists() else b""
    return set(units(scene.stage, whole[: whole.rfind(b"\n") + 1]))
