"""`sand games make`: small valid ALFWorld games, for machines without ALFWorld's data.

The domain, the grammar, the goals and the task sentences come from the alfworld package; the rooms are invented. The
planner must solve every game, and its plan must win, before the game is written.
"""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alfworld.agents.utils.misc import get_templated_task_desc
from alfworld.gen import constants, goal_library
from alfworld.info import ALFRED_PDDL_PATH, ALFRED_TWL2_PATH
from fast_downward import load_lib

from sandcli.cache import keep
from sandcli.envs.alfworld.files import FILE, FOLDER, SPLITS, TYPES, GameFile
from sandcli.envs.alfworld.game import Game
from sandcli.envs.alfworld.rooms import LAMP, LAMP_PLACES, ROOMS, Chore, Room, choose, places_for
from sandcli.errors import MachineryError

_ABILITIES = {"cleanable": "Cleanable", "heatable": "Heatable", "coolable": "Coolable", "sliceable": "Sliceable"}
_DISTRACTORS = 6
"""Objects in a room that the task does not need."""

_BASINS = ("SinkBasin", "BathtubBasin")


class Thing(NamedTuple):
    """An object or a receptacle. `where` is the id of an object's receptacle, or of a receptacle's location."""

    kind: str
    id: str
    where: str


class MadeGame(NamedTuple):
    """A game that was written: its `SPLIT/FOLDER/TRIAL`, and the planner's solution."""

    game: str
    walkthrough: list[str]


def make_games(root: Path, per_type: int, seed: int) -> Iterator[MadeGame]:
    """Write `per_type` games of each type to every split in `root`. Existing games of other seeds stay.

    The same seed makes the same games. Raises `MachineryError` if a game cannot be won.
    """
    library = load_lib()
    for split in SPLITS.values():
        for kind in TYPES:
            for number in range(per_type):
                yield _make(root, split, kind, random.Random(f"{seed} {split} {kind} {number}"), library)


def _make(root: Path, split: str, kind: str, draw: random.Random, library: Any) -> MadeGame:
    room = draw.choice(ROOMS[kind])
    chore = choose(kind, room, draw)
    trial = f"trial_T{draw.randrange(10**8):08}_{draw.randrange(10**6):06}_{draw.randrange(10**6):06}"
    folder = f"{kind}-{chore.thing}-None-{chore.goal.receptacle}-{draw.choice(room.scenes)}"
    file = GameFile(
        pddl_domain=Path(ALFRED_PDDL_PATH).read_text(encoding="utf-8"),
        grammar=_grammar(chore, draw),
        pddl_problem=_problem(trial, chore, room, draw),
    )
    made = MadeGame(f"{split}/{folder}/{trial}", _solve(file, library))
    content = {
        "pddl_domain": file.pddl_domain,
        "grammar": file.grammar,
        "pddl_problem": file.pddl_problem,
        "solvable": True,
        "walkthrough": made.walkthrough,
    }
    folder_of_trial = root / FOLDER / made.game
    about = {"task_id": trial, "task_type": kind, "pddl_params": chore.goal.parameters}
    # ALFWorld's own environment also needs this file.
    keep(folder_of_trial / "traj_data.json", json.dumps(about).encode(), private=False)
    keep(folder_of_trial / FILE, json.dumps(content).encode(), private=False)
    return made


def _solve(file: GameFile, library: Any) -> list[str]:
    game = Game(file, library)
    plan, position = game.plan(), game.start
    for command in plan:
        position, _ = game.apply(position, game.commands(position)[command])
    if not plan or not game.won(position):
        raise MachineryError("environment", f"a new game cannot be won: {game.intro()!r}")
    return plan


def _grammar(chore: Chore, draw: random.Random) -> str:
    """The package's grammar with the task's sentence. The package picks its words with Python's global generator."""
    state = random.getstate()
    random.seed(draw.randrange(2**32))
    try:
        sentence = get_templated_task_desc({"task_type": chore.type, "pddl_params": chore.goal.parameters})
    finally:
        random.setstate(state)
    return Path(ALFRED_TWL2_PATH).read_text(encoding="utf-8").replace("UNKNOWN GOAL", sentence)


def _problem(trial: str, chore: Chore, room: Room, draw: random.Random) -> str:
    """The room in PDDL, in terms of ALFWorld's domain."""
    ids, locations = _Ids(draw), _Ids(draw)
    receptacles = [
        Thing(kind, ids.thing(kind), locations.location())
        for kind, count in room.receptacles.items()
        for _ in range(count)
    ]
    things = list(_things(chore, room, receptacles, ids, draw))
    start = locations.location()
    places = [start, *(receptacle.where for receptacle in receptacles)]
    goal = goal_library.gdict[chore.type]["pddl"].replace("#", "-")  # the library writes `#` in its types
    goal = goal.format(obj=chore.thing, recep=chore.place, toggle=chore.lamp)
    return "\n".join(
        [
            f"(define (problem plan_{trial})",
            "(:domain alfred)",
            "(:objects",
            *_declared(things, receptacles, places),
            ")",
            "(:init",
            f"(atLocation agent1 {start})",
            *_receptacle_facts(receptacles),
            *_thing_facts(things, {receptacle.id: receptacle for receptacle in receptacles}),
            *_capacity_facts(things, receptacles),
            ")",
            goal,  # its last bracket closes (define
        ]
    )


def _things(chore: Chore, room: Room, receptacles: list[Thing], ids: "_Ids", draw: random.Random) -> Iterator[Thing]:
    def put(kind: str, places: list[str]) -> Thing:
        return Thing(kind, ids.thing(kind), draw.choice([r.id for r in receptacles if r.kind in places]))

    elsewhere = [place for place in places_for(chore.thing, room) if place != chore.place]
    for _ in range(chore.copies):
        yield put(chore.thing, elsewhere)
    if chore.lamp:
        yield put(LAMP, list(LAMP_PLACES))
    others = [thing for thing in room.things if thing != chore.thing and places_for(thing, room)]
    for kind in draw.sample(others, min(_DISTRACTORS, len(others))):
        yield put(kind, places_for(kind, room))


def _declared(things: list[Thing], receptacles: list[Thing], places: list[str]) -> Iterator[str]:
    yield "agent1 - agent"
    yield from (f"{thing.id} - object" for thing in things)
    yield from (f"{receptacle.id} - receptacle" for receptacle in receptacles)
    # The domain's actions refer to knives, and to the receptacles that heat, cool and clean.
    yield from (f"{kind}Type - otype" for kind in sorted({thing.kind for thing in things} | {"Knife", "ButterKnife"}))
    yield from (f"{kind}Type - rtype" for kind in _receptacle_types(receptacles))
    yield from (f"{place} - location" for place in places)


def _receptacle_types(receptacles: list[Thing]) -> list[str]:
    return sorted({receptacle.kind for receptacle in receptacles} | {"Microwave", "Fridge", "SinkBasin"})


def _receptacle_facts(receptacles: list[Thing]) -> Iterator[str]:
    for receptacle in receptacles:
        yield f"(receptacleType {receptacle.id} {receptacle.kind}Type)"
        yield f"(receptacleAtLocation {receptacle.id} {receptacle.where})"
        if receptacle.kind in constants.OPENABLE_CLASS_LIST:
            yield f"(openable {receptacle.id})"


def _thing_facts(things: list[Thing], receptacles: dict[str, Thing]) -> Iterator[str]:
    for thing in things:
        yield f"(objectType {thing.id} {thing.kind}Type)"
        yield f"(inReceptacle {thing.id} {thing.where})"
        yield f"(objectAtLocation {thing.id} {receptacles[thing.where].where})"
        yield f"({'toggleable' if thing.kind == LAMP else 'pickupable'} {thing.id})"
        if thing.kind in constants.MOVABLE_RECEPTACLES:
            yield f"(isReceptacleObject {thing.id})"
        for predicate, ability in _ABILITIES.items():
            if thing.kind in constants.VAL_ACTION_OBJECTS[ability]:
                yield f"({predicate} {thing.id})"


def _capacity_facts(things: list[Thing], receptacles: list[Thing]) -> Iterator[str]:
    for place in _receptacle_types(receptacles):
        for kind in sorted({thing.kind for thing in things}):
            if kind in constants.VAL_RECEPTACLE_OBJECTS.get(place, ()):
                yield f"(canContain {place}Type {kind}Type)"


class _Ids:
    """Ids in the form of ALFWorld's data: a kind and coordinates. ALFWorld numbers entities by sorted id."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._used: set[str] = set()

    def thing(self, kind: str) -> str:
        """An id for an object or a receptacle; a basin's id ends in its kind again."""
        base, suffix = (kind.removesuffix("Basin"), f"_bar_{kind}") if kind in _BASINS else (kind, "")
        return self._fresh(lambda: base + "".join(f"_bar_{_coordinate(self._draw)}" for _ in range(3)) + suffix)

    def location(self) -> str:
        """An id for a location."""
        return self._fresh(lambda: "loc" + "".join(f"_bar_{self._draw.randrange(100)}" for _ in range(4)))

    def _fresh(self, make: Callable[[], str]) -> str:
        while (name := make()) in self._used:
            pass
        self._used.add(name)
        return name


def _coordinate(draw: random.Random) -> str:
    value = draw.uniform(-3, 3)
    sign = "minus" if value < 0 else "plus"
    return f"_{sign}_{abs(value):05.2f}".replace(".", "_dot_")
