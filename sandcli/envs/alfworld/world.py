"""ALFWorld: six types of household tasks in a text world defined by PDDL."""

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import finalize

from sandcli.envs.alfworld import files, grammars
from sandcli.envs.base import DEFAULTS, Outcome, Reset, interleave, select_types
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.install import install_command
from sandcli.prompts import load
from sandcli.records import Task
from sandcli.settings import EnvSettings

if TYPE_CHECKING:
    from sandcli.envs.alfworld.game import Game, Position

STEP_LIMIT = 40
"""Steps in an episode if `env.step_limit` is 0, as in ETO and WKM; MPO has 30."""

_LIVE_GAMES = 16
"""Recently used games that a worker process keeps loaded; each takes about 10 MB."""


class Alfworld:
    """ALFWorld's tasks. Its games come from `env.games` or $ALFWORLD_DATA."""

    name = "alfworld"
    experts = ("handcoded", "planner")

    def __init__(self, settings: EnvSettings = DEFAULTS) -> None:
        self.system = load("alfworld/instruction")
        self._types = select_types("ALFWorld", settings.tasks, files.TYPES, files.TYPES)
        self._limit = settings.step_limit or STEP_LIMIT
        self._root = files.data_folder(settings.games)
        self._translate = settings.translate

    def tasks(self, split: str) -> list[Task]:
        """The playable games of a split, interleaved so that any first N cover as many types as possible."""
        if split not in files.SPLITS:
            raise UsageError(f"unknown split {split!r} of ALFWorld", "use train, seen or unseen")
        games: dict[str, list[Task]] = {kind: [] for kind in self._types}
        for entry in self._index:
            task = _task(entry.game)
            if entry.playable and task.name in games and entry.game.startswith(f"{files.SPLITS[split]}/"):
                games[task.name].append(task)
        return interleave(games.values())

    @cached_property
    def _index(self) -> list[files.GameEntry]:
        return files.index(self._root)

    @cached_property
    def _by_trial(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for entry in self._index:
            found.setdefault(entry.game.partition("/")[2], []).append(entry.game)
        return found

    def task_of(self, identifier: str) -> Task:
        """The game whose path ends with the `FOLDER/TRIAL` (AgentGym: `FOLDER_TRIAL`) of this path from expert data."""
        identifier = identifier.replace("_trial_", "/trial_")
        trial = "/".join(identifier.removesuffix(f"/{files.FILE}").split("/")[-2:])
        found = self._by_trial.get(trial, [])
        if len(found) == 1:
            return _task(found[0])
        if found:
            raise UsageError(f"{identifier!r} names several games: {', '.join(found)}", "remove all but one of them")
        raise UsageError(
            f"{identifier!r} names no game in {self._root / files.FOLDER}",
            "use a path such as train/pick_and_place_simple-Mug-None-Desk-308/trial_T20190906_195547_338431",
        )

    def step_limit(self, task: Task) -> int:
        """The same limit for all tasks."""
        return self._limit

    def content(self, task: Task) -> str:
        """A hash of the game as it is played. Raises `UsageError` if there is no such game, or it cannot be played."""
        if task not in self._playable:
            raise UsageError(f"{self._root / files.FOLDER} has no game {task}", "get the games of the panel")
        return self._file(task).digest

    @cached_property
    def _playable(self) -> set[Task]:
        return {_task(entry.game) for entry in self._index if entry.playable}

    def observations_match(self, observed: str, recorded: str) -> bool:
        """Whether the words are equal; white space may differ."""
        return observed.split() == recorded.split()

    def to_game_grammar(self, task: Task, actions: list[str], observations: list[str]) -> tuple[list[str], list[str]]:
        """Recorded actions and observations in the grammar of the game.

        Raises `UsageError` if they are in the other grammar and `env.translate` is off.
        """
        verb = self._file(task).verb
        other = next((a for a in actions if grammars.verb_of(a) not in (None, verb)), None)
        if other is None:
            return actions, [grammars.without_arrival(text) for text in observations]
        if not self._translate:
            raise UsageError(
                f"{other!r} is in another grammar than the game {task}, which uses `{verb}`",
                "set env.translate = true in sand.toml, or use the games that the data was recorded on",
            )
        translated = [grammars.without_arrival(grammars.to_grammar(text, verb)) for text in observations]
        return [grammars.to_grammar(action, verb) for action in actions], translated

    def _file(self, task: Task) -> files.GameFile:
        return files.read_game(_path(self._root, task))

    def versions(self) -> dict[str, str]:
        """The versions of the packages that make texts and plans, and the grammars of the games.

        Raises `PrerequisiteError` if ALFWorld is not installed.
        """
        self.check_available()
        packages = ("alfworld", "textworld", "fast-downward-textworld")
        verbs = ",".join(sorted({entry.verb for entry in self._index}))
        return {**{name: metadata.version(name) for name in packages}, "grammar": verbs}

    def check_available(self) -> str:
        """The folder of games."""
        missing = [name for name in ("alfworld", "textworld", "fast_downward") if util.find_spec(name) is None]
        if missing:
            raise PrerequisiteError(f"ALFWorld needs {missing[0]}, which is not installed", install_command("alfworld"))
        return f"the games of {self._root}"

    def start(self) -> "AlfworldSimulator":
        """Nothing heavy: a game is loaded when it is first played."""
        self.check_available()
        return AlfworldSimulator(lambda task: _path(self._root, task), self._translate)


class AlfworldSimulator:
    """Opens episodes. A game stays loaded while an episode plays it, and the last few games stay loaded after that.

    With `translate`, commands in the grammar of other games are translated.
    """

    def __init__(self, path: Callable[[Task], Path], translate: bool = False) -> None:
        self._path = path
        self._translate = translate
        self._games: OrderedDict[Task, Game] = OrderedDict()
        self._libraries: list[Any] = []  # free for reuse; unloading a library can crash the process when it exits

    def open(self, task: Task) -> "AlfworldEpisode":
        """A new episode."""
        game = self._game(task)
        # The literature shows the room and the task, without the game's welcome.
        reset = Reset("\n".join(game.intro().split("\n\n")[1:]), 0.0)
        return AlfworldEpisode(game, game.start, reset, self._translate)

    def expert(self, task: Task, kind: str, seed: int) -> list[str]:
        """The actions of an expert; empty if it gives up."""
        from sandcli.envs.alfworld.experts import handcoded

        game = self._game(task)
        if kind == "planner":
            return game.plan()
        return handcoded(game, files.goal_of(task.game or ""), seed)

    def _game(self, task: Task) -> "Game":
        from fast_downward import load_lib

        from sandcli.envs.alfworld.game import Game

        if task not in self._games:
            file = files.read_game(self._path(task))
            library = self._libraries.pop() if self._libraries else load_lib()
            self._games[task] = game = Game(file, library)
            finalize(game, self._libraries.append, library)
        self._games.move_to_end(task)
        if len(self._games) > _LIVE_GAMES:
            self._games.popitem(last=False)
        return self._games[task]

    def close(self) -> None:
        """Nothing to stop."""


class AlfworldEpisode:
    """One episode: a game and a position in it."""

    def __init__(self, game: "Game", position: "Position", reset: Reset, translate: bool = False) -> None:
        self._game = game
        self._position = position
        self._translate = translate
        self.reset = reset

    def step(self, action: str) -> Outcome:
        """Execute one action. The score is 1 if the task is done, else 0."""
        from sandcli.envs.alfworld.game import NOTHING

        command = action.strip()
        if self._translate:
            command = grammars.to_grammar(command, self._game.verb)
        operator = self._game.commands(self._position).get(command)
        if operator is None:
            return Outcome(NOTHING, 0.0, False, False)
        self._position, text = self._game.apply(self._position, operator)
        won = self._game.won(self._position)
        return Outcome(grammars.without_arrival(text), float(won), won, True)

    def fork(self) -> "AlfworldEpisode":
        """An independent episode in the same position."""
        return AlfworldEpisode(self._game, self._position, self.reset, self._translate)

    def close(self) -> None:
        """Nothing to free: a position is a plain value."""


def _task(game: str) -> Task:
    return Task(name=files.goal_of(game).type, game=game)


def _path(root: Path, task: Task) -> Path:
    return root / files.FOLDER / (task.game or "") / files.FILE
