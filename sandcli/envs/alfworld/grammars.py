"""ALFWorld's two grammars: older game files say `put X in/on Y`, newer ones `move X to Y`.

A command in the wrong grammar is not admissible: the game would always answer "Nothing happens."
"""

import re

from sandcli.envs.alfworld.files import Verb

_PUT = re.compile(r"^put (.+) in/on (.+)$")
_MOVE = re.compile(r"^move (.+) to (.+)$")
_ARRIVAL = re.compile(r"^You arrive at [^.]*\. ")


def verb_of(command: str) -> Verb | None:
    """The grammar that a command belongs to; None if it belongs to both."""
    if _PUT.match(command):
        return "put"
    return "move" if _MOVE.match(command) else None


def to_move(command: str) -> str:
    """Translate a command from the older grammar to the newer one."""
    return _PUT.sub(r"move \1 to \2", command)


def to_put(command: str) -> str:
    """Translate a command from the newer grammar to the older one."""
    return _MOVE.sub(r"put \1 in/on \2", command)


def to_grammar(text: str, verb: Verb) -> str:
    """Translate a command, or its feedback, to a grammar."""
    command = text.removeprefix("You ")
    you = text[: len(text) - len(command)]
    ending = "." if you and command.endswith(".") else ""
    translate = to_put if verb == "put" else to_move
    return you + translate(command.removesuffix(ending)) + ending


def without_arrival(text: str) -> str:
    """An observation in the literature's form: `You arrive at loc 3. On the desk 1, ...` starts at `On`."""
    return _ARRIVAL.sub("", text)
