"""Games translated to planning tasks by fast-downward, and cached.

TextWorld translates PDDL to a planning task (SAS) twice at every load and reset, which is nearly their whole cost. Here
each game is translated once. The cache holds plain data in the user's own folder: reading it cannot run code.
"""

import hashlib
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sandcli.cache import cache_folder, keep
from sandcli.errors import MachineryError

_FORMAT = "1"
"""The format of the cached files; changing it invalidates them all."""

Data = TypeVar("Data", bound=msgspec.Struct)


class Translation(msgspec.Struct, frozen=True):
    """A planning task, and the parts of its PDDL that the game's text needs.

    `types` maps names to supertypes, `objects` maps ids to types, `actions` maps names to (parameter, type) pairs, and
    `facts` lists the predicates and arguments that hold at the start.
    """

    sas: str
    types: dict[str, list[str]]
    objects: dict[str, str]
    actions: dict[str, list[tuple[str, str]]]
    facts: list[tuple[str, list[str]]]


class PlanningTask(msgspec.Struct, frozen=True):
    """A planning task reduced to what a plan needs."""

    sas: str


def translate(domain: str, problem: str) -> Translation:
    """The planning task of a game. Raises `MachineryError` if the translator refuses it."""
    return _cached("full", domain, problem, Translation, _translate)


def planning_task(domain: str, problem: str) -> PlanningTask:
    """The planning task of a game, reduced to what the planner needs."""
    return _cached("plan", domain, problem, PlanningTask, lambda d, p: PlanningTask(_pddl2sas(d, p, optimize=True)[1]))


def _cached(kind: str, domain: str, problem: str, form: type[Data], make: Callable[[str, str], Data]) -> Data:
    path = _path(kind, domain, problem)
    try:
        return msgspec.json.decode(zlib.decompress(path.read_bytes()), type=form)
    except (OSError, zlib.error, msgspec.DecodeError, UnicodeDecodeError):  # missing or damaged
        made = make(domain, problem)
        with suppress(OSError):  # without the cache, the next load translates again
            keep(path, zlib.compress(msgspec.json.encode(made), 1))
        return made


def _path(kind: str, domain: str, problem: str) -> Path:
    version = metadata.version("fast-downward-textworld")
    name = hashlib.sha256("\0".join((_FORMAT, kind, version, domain, problem)).encode()).hexdigest()[:32]
    return cache_folder() / "alfworld" / name[:2] / f"{name}.z"


def _translate(domain: str, problem: str) -> Translation:
    task, sas = _pddl2sas(domain, problem, optimize=False)
    types: dict[str, list[str]] = {}
    for kind in task.types:  # ALFWorld's domain repeats `object`, which every domain has
        types.setdefault(kind.name, list(kind.supertype_names))
    objects = {thing.name: thing.type_name for thing in task.objects}
    return Translation(
        sas=sas,
        types=types,
        objects=objects,
        actions={a.name: [(p.name.strip("?"), p.type_name) for p in a.parameters] for a in task.actions},
        facts=[fact for fact in map(_fact, task.init) if fact is not None],
    )


def _fact(atom: object) -> tuple[str, list[str]] | None:
    """A predicate that holds at the start; None for equalities, costs and distances, which no text mentions."""
    from fast_downward.translate.pddl.conditions import Atom
    from fast_downward.translate.pddl.f_expression import Assign

    if isinstance(atom, Atom) and atom.predicate != "=":
        return atom.predicate, list(atom.args)
    if isinstance(atom, Assign) and atom.fluent.symbol != "total-cost":
        name = str(atom.expression.value)
        return None if name.isdigit() else (name, list(atom.fluent.args))
    return None


def _pddl2sas(domain: str, problem: str, optimize: bool) -> tuple[Any, str]:
    import fast_downward

    arguments, output = sys.argv, sys.stdout  # the translator overwrites both, and does not restore them if it fails
    try:
        return fast_downward.pddl2sas(domain, problem, optimize=optimize)  # type: ignore[no-any-return]
    except (Exception, SystemExit) as error:
        detail = f"{type(error).__name__}: {error}".splitlines()[0]
        raise MachineryError("environment", f"the translator refuses the game's PDDL: {detail}") from error
    finally:
        sys.argv, sys.stdout = arguments, output
