"""ALFWorld's two grammars: `put X in/on Y` of the older game files, `move X to Y` of the newer ones.

A command of the wrong grammar is not admissible and would be answered with "Nothing happens." for ever.
"""

import re

from sandcli.envs.alfworld.files import Verb

_PUT = re.compile(r"^put (.+) in/on (.+)$")
_MOVE = re.compile(r"^move (.+) to (.+)$")
_ARRIVAL = re.compile(r"^You arrive at [^.]*\. ")


def spoken(command: str) -> Verb | None:
    """The grammar that a command belongs to; none where both have it."""
    if _PUT.match(command):
        return "put"
    return "move" if _MOVE.match(command) else None


def to_move(command: str) -> str:
    """A command of the older grammar in the newer one's words."""
    return _PUT.sub(r"move \1 to \2", command)


def to_put(command: str) -> str:
    """A command of the newer grammar in the older one's words."""
    return _MOVE.sub(r"put \1 in/on \2", command)


def translated(text: str, verb: Verb) -> str:
    """A command, or what the game says after it, in the words of a grammar."""
    said = text.removeprefix("You ")
    you = text[: len(text) - len(said)]
    ending = "." if you and said.endswith(".") else ""
    change = to_put if verb == "put" else to_move
    return you + change(said.removesuffix(ending)) + ending


def without_arrival(text: str) -> str:
    """An observation as the line of work shows it: `You arrive at loc 3. On the desk 1, ...` begins at `On`."""
    return _ARRIVAL.sub("", text)
