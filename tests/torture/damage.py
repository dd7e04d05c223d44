"""Damage to the files of a run: every file cut at every offset, a bit flipped in every byte, and more.

A damaged file is refused with one line that names it, or the damage is harmless: the result has the same bytes.
"""

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sandcli.config import FILE, resolve
from sandcli.core.artifact import StageName
from sandcli.errors import SandError
from sandcli.pipeline import TABLE
from tests.helpers import artifact
from tests.torture.cases import Case, must, must_end_well
from tests.torture.inside import sand
from tests.torture.runs import STAGES, Quiet, copied, tree

READERS: dict[StageName, StageName] = {
    "collect": "sample",
    "sft": "train",
    "sample": "rollout",
    "rollout": "critique",
    "critique": "synthesize",
    "synthesize": "train",
    "train": "eval",
}
"""A stage that reads what another stage made."""


def _lines(change: Callable[[list[bytes], int], list[bytes]]) -> Callable[[bytes, int], bytes]:
    return lambda whole, at: b"".join(change(whole.splitlines(keepends=True), whole[:at].count(b"\n")))


WAYS: dict[str, Callable[[bytes, int], bytes]] = {
    "cut": lambda whole, at: whole[:at],
    "flip": lambda whole, at: whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :],
    "zeros": lambda whole, at: whole[:at] + bytes(min(512, len(whole) - at)) + whole[at + 512 :],
    "line-lost": _lines(lambda lines, n: lines[:n] + lines[n + 1 :]),
    "line-twice": _lines(lambda lines, n: lines[: n + 1] + lines[n : n + 1] + lines[n + 1 :]),
    "line-moved": _lines(lambda lines, n: lines[:n] + lines[n + 1 :] + lines[n : n + 1]),
}
"""The kinds of damage at an offset. The last four depend only on the line or the block."""

EVERY_BYTE = ("cut", "flip")


_STATUS_EVERY = 8
"""`sand status` is checked only at every so many offsets: it inspects a file in the same way as its stage."""


class Place(NamedTuple):
    """One file of a run in which the stage `reader` comes next; `maker` made it."""

    runs: Quiet
    quiet: Path
    file: str
    maker: StageName
    reader: StageName

    @property
    def result(self) -> Path:
        """The undisturbed run."""
        return self.runs.finished

    @property
    def content(self) -> bytes:
        """The file as it was written."""
        return (self.quiet / self.file).read_bytes()

    @property
    def in_progress(self) -> bool:
        """Whether the file belongs to an unfinished stage; nothing can vouch for its content yet."""
        return self.quiet.parent.name == "unfinished"

    @property
    def names(self) -> tuple[str, ...]:
        """What an error may name: the file, the artifact that a note belongs to, or the folder of the file."""
        return (self.file, artifact(self.quiet, self.maker).name)


def places(quiet: Quiet) -> dict[str, Place]:
    """Every artifact, manifest and note of a run, and sand.toml."""
    found: dict[str, Place] = {}
    for stage in STAGES:
        reader = READERS.get(stage, stage)
        root = quiet.at(reader) if stage in READERS else quiet.finished
        files = [f"manifests/{stage}.{kind}" for kind in ("json", "units.json")]
        written = next(row.writes for row in TABLE if row.name == stage)
        for name in filter(lambda name: (root / name).exists(), written):
            files += [name] if (root / name).is_file() else [f"{name}/{path.name}" for path in (root / name).iterdir()]
        found |= {name: Place(quiet, root, name, stage, reader) for name in sorted(files)}
    for file in ("samples.jsonl.part", "manifests/sample.json.part"):
        found[file] = Place(quiet, quiet.unfinished, file, "sample", "sample")
    return found | {FILE: Place(quiet, quiet.finished, FILE, "eval", "eval")}


class Damages:
    """The cases of one set of quiet runs. They share a folder for each file, and restore it."""

    def __init__(self, quiet: Quiet, folder: Path) -> None:
        self._folder, self._places = folder, places(quiet)
        self._known = cache(_listing)

    def __iter__(self) -> Iterator[Case]:
        for way in WAYS:
            for file, place in self._places.items():
                for at in range(len(place.content)) if way in EVERY_BYTE else _starts(place.content):
                    yield self.case(f"{way}/{file}/{at}")

    def case(self, name: str) -> Case:
        """The case WAY/FILE/OFFSET."""
        way, rest = name.split("/", 1)
        file, at = rest.rsplit("/", 1)
        return Case(name, lambda _: self._damage(self._places[file], WAYS[way], int(at)))

    def _damage(self, place: Place, way: Callable[[bytes, int], bytes], at: int) -> bool:
        damaged = way(place.content, at)
        if damaged == place.content:
            return False
        for judge in _judges(place, at):
            root = self._restored(place)
            (root / place.file).write_bytes(damaged)
            judge(place, root)
        return True

    def _restored(self, place: Place) -> Path:
        """A copy of a file's run: the last one if it is unchanged."""
        to = self._folder / f"{place.maker}-{place.reader}-{place.in_progress}"
        root = to / place.quiet.name
        if root.exists():
            shutil.copy2(place.quiet / place.file, root / place.file)
            if _listing(root) == self._known(place.quiet):
                return root
        return copied(place.quiet, to)


def _judges(place: Place, at: int) -> list[Callable[[Place, Path], None]]:
    if place.file == FILE:
        return [_must_be_refused_or_read]
    if at % _STATUS_EVERY:
        return [_must_not_deceive_its_reader, _must_not_upset_its_maker]
    return [_must_not_deceive_its_reader, _must_not_upset_its_maker, _must_not_silence_status]


def _starts(whole: bytes) -> Iterator[int]:
    """The offset at which each line starts."""
    at = 0
    for line in whole.splitlines(keepends=True):
        yield at
        at += len(line)


def _listing(root: Path) -> dict[str, tuple[int, int]]:
    """Sizes and times of all files; copies keep the times."""
    stats = ((path, path.stat()) for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(root)): (stat.st_size, stat.st_mtime_ns) for path, stat in stats}


def _must_be_refused_or_read(place: Place, root: Path) -> None:
    """Settings: a different value is not damage."""
    try:
        resolve(root, {}, {})
    except SandError as error:
        must("\n" not in error.what and bool(error.fix), f"not one line: {error.what!r}")


def _must_not_silence_status(place: Place, root: Path) -> None:
    must_end_well(sand("status", "--run", root), (0,))


def _must_not_deceive_its_reader(place: Place, root: Path) -> None:
    """The next stage refuses it, or makes the same as from the undamaged file."""
    if place.reader == place.maker:
        return
    ended = sand(*place.runs.command(root, place.reader))
    must_end_well(ended, (0, 2, 3), place.names)
    made, expected = (artifact(where, place.reader).path for where in (root, place.result))
    if ended.code != 0:
        must(not made.exists(), f"{place.reader} refuses it after it has finished", ended)
    elif made.is_file():
        must(made.read_bytes() == expected.read_bytes(), f"{place.reader} makes something else of it", ended)
    elif made.is_dir():
        must(tree(made) == tree(expected), f"{place.reader} makes something else of it", ended)


def _must_not_upset_its_maker(place: Place, root: Path) -> None:
    """Its own stage refuses it, repairs it, or says that it accepts an edit. Every stage can read what it leaves."""
    ended = sand(*place.runs.command(root, place.maker))
    must_end_well(ended, (0, 2, 3), place.names)
    made, expected = (artifact(where, place.maker) for where in (root, place.result))
    if ended.code != 0:
        return
    said = " changed; " in ended.said or place.in_progress
    if made.record is None:
        same = tree(made.path) == tree(expected.path)
    else:
        made.records().find_damage()
        same = made.path.read_bytes() == expected.path.read_bytes()
    must(same or said, f"{place.maker} keeps it and says nothing", ended)
