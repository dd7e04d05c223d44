"""Made-up rooms for small games: what stands in them, what lies there, and what a task can ask for.

What fits into what, and what can be heated, cooled or cleaned, is ALFWorld's own knowledge (`alfworld.gen.constants`).
"""

from random import Random
from typing import NamedTuple

from alfworld.gen import constants

from sandcli.envs.alfworld.files import Goal


class Room(NamedTuple):
    """A kind of room: its receptacles with their numbers, things that may lie about, and its scenes' numbers."""

    receptacles: dict[str, int]
    things: list[str]
    scenes: range


class Chore(NamedTuple):
    """What a task is about: one thing or two of a kind, the place for it, or the lamp to look at it under."""

    type: str
    thing: str
    place: str
    lamp: str

    @property
    def goal(self) -> Goal:
        """The same as the name of a game's folder tells it."""
        return Goal(self.type, self.thing, "", self.place or self.lamp)

    @property
    def copies(self) -> int:
        """How many things of the kind are wanted."""
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
    """The kinds of receptacles in a room that may hold a thing."""
    return [place for place in room.receptacles if thing in constants.VAL_RECEPTACLE_OBJECTS.get(place, ())]


def choose(kind: str, room: Room, draw: Random) -> Chore:
    """A task of a type for a room. There is always a place to find the thing other than the one it is wanted at."""
    if kind == "look_at_obj_in_light":
        return Chore(kind, draw.choice([thing for thing in room.things if places_for(thing, room)]), "", LAMP)
    ability, tool = TREATMENTS.get(kind, ("", ""))
    wanted = [
        (thing, place)
        for thing in room.things
        if not ability or thing in constants.VAL_ACTION_OBJECTS[ability]
        for place in places_for(thing, room)
        if place != tool and len(places_for(thing, room)) > 1
    ]
    thing, place = draw.choice(sorted(wanted))
    return Chore(kind, thing, place, "")
