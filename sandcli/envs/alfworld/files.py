"""ALFWorld's games on disk: what a game file holds, and the index of a data folder.

A data folder is what `alfworld-download` brings: `json_2.1.1/SPLIT/TYPE-OBJECT-MOVABLE-RECEPTACLE-SCENE/TRIAL/` with a
`game.tw-pddl` in each. Every file is read once; later only names, sizes and times are looked at.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from sandcli.cache import cache_folder, keep
from sandcli.errors import PrerequisiteError, UsageError

TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
SPLITS = {"train": "train", "seen": "valid_seen", "unseen": "valid_unseen"}
FOLDER = "json_2.1.1"
FILE = "game.tw-pddl"

Verb = Literal["put", "move"]
"""How a game of the older or newer grammar says that a thing is laid down."""


class GameFile(msgspec.Struct, frozen=True):
    """A game as ALFWorld stores it."""

    pddl_domain: str
    grammar: str
    pddl_problem: str
    solvable: bool | None = None
    walkthrough: list[str] | None = None

    @property
    def verb(self) -> Verb:
        """The grammar's word for laying a thing down."""
        return "put" if "put {o} in/on {r}" in self.grammar else "move"


class Goal(NamedTuple):
    """What a folder's name tells of its games: `TYPE-OBJECT-MOVABLE-RECEPTACLE-SCENE`, with `None` for nothing."""

    type: str
    object: str
    movable: str
    receptacle: str

    @property
    def parameters(self) -> dict[str, str | bool]:
        """The same in the terms of ALFWorld's `traj_data.json`; the lamp of a look is what is toggled."""
        light = self.type == "look_at_obj_in_light"
        return {
            "object_target": self.object,
            "parent_target": "" if light else self.receptacle,
            "toggle_target": self.receptacle if light else "",
            "mrecep_target": self.movable,
            "object_sliced": False,
        }


class Entry(msgspec.Struct, frozen=True):
    """What the index knows of a game; `game` is `SPLIT/FOLDER/TRIAL`."""

    game: str
    size: int
    changed: int
    playable: bool
    verb: Verb


class _Index(msgspec.Struct, frozen=True):
    entries: list[Entry]


def data_folder(setting: str) -> Path:
    """The folder of games: the one that is set, $ALFWORLD_DATA, or where ALFWorld itself looks."""
    return Path(setting or os.environ.get("ALFWORLD_DATA") or "~/.cache/alfworld").expanduser()


def read_game(path: Path) -> GameFile:
    """One game. Raises `UsageError` for a file that is none, or not one of ALFWorld's."""
    fix = "bring the file anew, or take its folder away"
    try:
        game = msgspec.json.decode(path.read_bytes(), type=GameFile)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", fix) from None
    except msgspec.DecodeError as error:
        raise UsageError(f"{path}: no ALFWorld game: {error}", fix) from None
    if "(domain alfred)" not in game.pddl_domain or "(:domain alfred)" not in game.pddl_problem:
        raise UsageError(f"{path}: a game of another domain than ALFWorld's", fix)
    return game


def goal_of(game: str) -> Goal:
    """What the game with this `SPLIT/FOLDER/TRIAL` is about."""
    parts = game.split("/")[-2].split("-")
    kind, thing, movable, receptacle = (parts + [""] * 4)[:4]
    return Goal(kind, *("" if part == "None" else part for part in (thing, movable, receptacle)))


def index(root: Path) -> list[Entry]:
    """Every game below a data folder, sorted. Raises `PrerequisiteError` where there are none."""
    memo = cache_folder() / "alfworld" / f"index-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]}.json"
    known = {entry.game: entry for entry in _remembered(memo)}
    found = sorted(_scan(root / FOLDER))
    if not found:
        raise PrerequisiteError(
            f"no ALFWorld games below {root / FOLDER}",
            "alfworld-download brings them to $ALFWORLD_DATA; `sand games make DIR` makes small ones for env.games",
        )
    entries = list(_looked_at(root, found, known))
    if entries != list(known.values()):
        with suppress(OSError):  # then it is made again the next time
            keep(memo, msgspec.json.encode(_Index(entries)))
    return entries


def _remembered(memo: Path) -> list[Entry]:
    try:
        return msgspec.json.decode(memo.read_bytes(), type=_Index).entries
    except (OSError, msgspec.DecodeError):
        return []


def _scan(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    for path in folder.glob(f"*/*/*/{FILE}"):
        yield path.parent.relative_to(folder).as_posix(), path.stat()


def _looked_at(root: Path, found: list[tuple[str, os.stat_result]], known: Mapping[str, Entry]) -> Iterator[Entry]:
    from rich.console import Console
    from rich.progress import track

    new = [game for game, stat in found if _stale(known.get(game), stat)]
    told = Console(stderr=True)
    quiet = len(new) < 50 or not told.is_terminal
    for game, stat in track(found, "reading ALFWorld's games", console=told, transient=True, disable=quiet):
        entry = known.get(game)
        if entry is None or _stale(entry, stat):
            file = read_game(root / FOLDER / game / FILE)
            playable = bool(file.solvable) and goal_of(game).type in TYPES and not _unsupported(game)
            entry = Entry(game, stat.st_size, stat.st_mtime_ns, playable, file.verb)
        yield entry


def _stale(entry: Entry | None, stat: os.stat_result) -> bool:
    return entry is None or (entry.size, entry.changed) != (stat.st_size, stat.st_mtime_ns)


def _unsupported(game: str) -> bool:
    """Games that ALFWorld's own environment leaves out as well."""
    return "movable" in game or "Sliced" in game
