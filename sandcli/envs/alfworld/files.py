"""ALFWorld's games on disk: game files, and the index of a data folder.

`alfworld-download` makes a data folder of `json_2.1.1/SPLIT/TYPE-OBJECT-MOVABLE-RECEPTACLE-SCENE/TRIAL/game.tw-pddl`.
The index reads every file once; after that it reads a file again only if its size or modification time changed.
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
"""The verb for placing an object: `put` in the older grammar, `move` in the newer one."""


class GameFile(msgspec.Struct, frozen=True):
    """A game as ALFWorld stores it."""

    pddl_domain: str
    grammar: str
    pddl_problem: str
    solvable: bool | None = None
    walkthrough: list[str] | None = None

    @property
    def verb(self) -> Verb:
        """The grammar's verb for placing an object."""
        return "put" if "put {o} in/on {r}" in self.grammar else "move"

    @property
    def digest(self) -> str:
        """A short hash of the domain, the grammar and the problem. It ignores how they are written to the file."""
        parts = msgspec.json.encode([self.pddl_domain, self.grammar, self.pddl_problem])
        return hashlib.sha256(parts).hexdigest()[:12]


class Goal(NamedTuple):
    """A task's goal, as in its folder's name `TYPE-OBJECT-MOVABLE-RECEPTACLE-SCENE`; empty for `None` there."""

    type: str
    object: str
    movable: str
    receptacle: str

    @property
    def parameters(self) -> dict[str, str | bool]:
        """The goal in the terms of ALFWorld's `traj_data.json`, which calls the lamp to look under `toggle_target`."""
        light = self.type == "look_at_obj_in_light"
        return {
            "object_target": self.object,
            "parent_target": "" if light else self.receptacle,
            "toggle_target": self.receptacle if light else "",
            "mrecep_target": self.movable,
            "object_sliced": False,
        }


class GameEntry(msgspec.Struct, frozen=True):
    """A game in the index; `game` is `SPLIT/FOLDER/TRIAL`."""

    game: str
    size: int
    modified: int
    playable: bool
    verb: Verb


class _Index(msgspec.Struct, frozen=True):
    entries: list[GameEntry]


def data_folder(setting: str) -> Path:
    """The folder of games: the setting, else $ALFWORLD_DATA, else ALFWorld's own default."""
    given = setting or os.environ.get("ALFWORLD_DATA") or "~/.cache/alfworld"
    return Path(os.path.expanduser(given))  # noqa: PTH111  (Path.expanduser raises if there is no such home)


def read_game(path: Path) -> GameFile:
    """Read one game. Raises `UsageError` if the file is not a game of ALFWorld's."""
    fix = "download the file again, or remove its folder"
    try:
        game = msgspec.json.decode(path.read_bytes(), type=GameFile)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", fix) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not an ALFWorld game: {error}", fix) from None
    if "(domain alfred)" not in game.pddl_domain or "(:domain alfred)" not in game.pddl_problem:
        raise UsageError(f"{path}: not an ALFWorld game: its PDDL domain is not alfred", fix)
    return game


def goal_of(game: str) -> Goal:
    """The goal of the game `SPLIT/FOLDER/TRIAL`."""
    parts = game.split("/")[-2].split("-")
    kind, target, movable, receptacle = (parts + [""] * 4)[:4]
    return Goal(kind, *("" if part == "None" else part for part in (target, movable, receptacle)))


def index(root: Path) -> list[GameEntry]:
    """Every game in a data folder, sorted. Raises `PrerequisiteError` if there are none."""
    cache = cache_folder() / "alfworld" / f"index-{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]}.json"
    known = {entry.game: entry for entry in _cached(cache)}
    found = sorted(_scan(root / FOLDER))
    if not found:
        raise PrerequisiteError(f"no ALFWorld games in {root / FOLDER}", _where_else(root))
    entries = list(_entries(root, found, known))
    if entries != list(known.values()):
        with suppress(OSError):  # without the cache, the next call reads the files again
            keep(cache, msgspec.json.encode(_Index(entries)))
    return entries


def _where_else(root: Path) -> str:
    """How to get games: from another folder, if the given one is a part of it or holds it, else by a download."""
    here = Path(os.path.abspath(root))  # noqa: PTH100  (links stay as the user named them)
    near = [*here.parents[:3], *(path.parent for path in sorted(here.glob(f"*/{FOLDER}")))]
    for folder in near:
        if next(_scan(folder / FOLDER), None):
            return f"point env.games or $ALFWORLD_DATA to {folder}, which has games in {FOLDER}"
    return "alfworld-download"


def _cached(cache: Path) -> list[GameEntry]:
    try:
        return msgspec.json.decode(cache.read_bytes(), type=_Index).entries
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return []


def _scan(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    for path in folder.glob(f"*/*/*/{FILE}"):
        yield path.parent.relative_to(folder).as_posix(), path.stat()


def _entries(
    root: Path, found: list[tuple[str, os.stat_result]], known: Mapping[str, GameEntry]
) -> Iterator[GameEntry]:
    from rich.console import Console
    from rich.progress import track

    new = {game for game, stat in found if _stale(known.get(game), stat)}
    console = Console(stderr=True)
    quiet = len(new) < 50 or not console.is_terminal
    for game, stat in track(found, "reading ALFWorld's games", console=console, transient=True, disable=quiet):
        if game not in new:
            yield known[game]
        else:
            file = read_game(root / FOLDER / game / FILE)
            playable = bool(file.solvable) and goal_of(game).type in TYPES and not _unsupported(game)
            yield GameEntry(game, stat.st_size, stat.st_mtime_ns, playable, file.verb)


def _stale(entry: GameEntry | None, stat: os.stat_result) -> bool:
    return entry is None or (entry.size, entry.modified) != (stat.st_size, stat.st_mtime_ns)


def _unsupported(game: str) -> bool:
    """Whether ALFWorld's own environment leaves this game out."""
    return "movable" in game or "Sliced" in game
