"""Invented rooms for small games: their receptacles, their objects, and the tasks they allow.

What fits where, and what can be heated, cooled or cleaned, comes from `alfworld.gen.constants`.
"""

from random import Random
from typing import NamedTuple

from alfworld.gen import constants

from sandcli.envs.alfworld.files import Goal


class Room(NamedTuple):
    """A kind of room: how many receptacles of each kind, the objects it may contain, and its scene numbers."""

    receptacles: dict[str, int]
    things: list[str]
    scenes: range


class Chore(NamedTuple):
    """A task: an object, and either the receptacle to put it in or the lamp to look at it under."""

    type: str
    thing: str
    place: str
    lamp: str

    @property
    def goal(self) -> Goal:
        """The goal as the name of the game's folder states it."""
        return Goal(self.type, self.thing, "", self.place or self.lamp)

    @property
    def copies(self) -> int:
        """How many objects of this kind the task needs."""
        return 2 if self.type == "pick_two_obj_and_place" else 1


KITCHEN = Room(
    {
        "CounterTop": 2,
        "Cabinet": 2,
        "Drawer": 2,
        "Fridge": 1,
        "Microwave": 1,
        "SinkBasin": 1,
        "DiningTable": 1,
        "Shelf": 1,
    },
    ["Apple", "Bread", "Tomato", "Potato", "Egg", "Lettuce", "Mug", "Cup", "Plate", "Bowl", "Fork", "Spoon", "Spatula"],
    range(1, 31),
)
BEDROOM = Room(
    {"Bed": 1, "Desk": 1, "SideTable": 2, "Drawer": 2, "Shelf": 2, "Dresser": 1, "GarbageCan": 1},
    ["AlarmClock", "Book", "CD", "CellPhone", "CreditCard", "KeyChain", "Laptop", "Pen", "Pencil", "Mug", "Statue"],
    range(301, 331),
)
BATHROOM = Room(
    {"SinkBasin": 1, "BathtubBasin": 1, "Toilet": 1, "Cabinet": 2, "CounterTop": 1, "GarbageCan": 1, "Shelf": 1},
    ["SoapBar", "SoapBottle", "Cloth", "ToiletPaper", "SprayBottle", "Candle"],
    range(401, 431),
)
ROOMS = {
    "pick_and_place_simple": [KITCHEN, BEDROOM, BATHROOM],
    "look_at_obj_in_light": [BEDROOM],
    "pick_clean_then_place_in_recep": [KITCHEN, BATHROOM],
    "pick_heat_then_place_in_recep": [KITCHEN],
    "pick_cool_then_place_in_recep": [KITCHEN],
    "pick_two_obj_and_place": [KITCHEN, BEDROOM, BATHROOM],
}
TREATMENTS = {
    "pick_clean_then_place_in_recep": ("Cleanable", "SinkBasin"),
    "pick_heat_then_place_in_recep": ("Heatable", "Microwave"),
    "pick_cool_then_place_in_recep": ("Coolable", "Fridge"),
}
LAMP = "DeskLamp"
LAMP_PLACES = ("Desk", "SideTable", "Dresser")


def places_for(thing: str, room: Room) -> list[str]:
    """The kinds of receptacles in a room that can contain an object."""
    return [place for place in room.receptacles if thing in constants.VAL_RECEPTACLE_OBJECTS.get(place, ())]


def choose(kind: str, room: Room, draw: Random) -> Chore:
    """Choose a task of a type for a room. The object always has a place other than the one it must be brought to."""
    if kind == "look_at_obj_in_light":
        return Chore(kind, draw.choice([thing for thing in room.things if places_for(thing, room)]), "", LAMP)
    ability, tool = TREATMENTS.get(kind, ("", ""))
    options = [
        (thing, place)
        for thing in room.things
        if not ability or thing in constants.VAL_ACTION_OBJECTS[ability]
        for place in places_for(thing, room)
        if place != tool and len(places_for(thing, room)) > 1
    ]
    thing, place = draw.choice(sorted(options))
    return Chore(kind, thing, place, "")
