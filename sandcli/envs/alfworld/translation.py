"""What fast-downward makes of a game, kept between runs.

TextWorld translates PDDL into planning tasks (SAS) twice at every load and reset, which is nearly all they cost. Here
it happens once a game. What is kept is plain data in a folder of the user's own: reading it cannot run code.
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

_FORM = "1"
"""The form of the files; another number makes every file anew."""

Data = TypeVar("Data", bound=msgspec.Struct)


class Translation(msgspec.Struct, frozen=True):
    """A planning task and what the game's text needs to know of its PDDL.

    `types` maps names to supertypes, `objects` ids to types, `actions` map names to (parameter, type) pairs, and
    `facts` are the predicates and arguments that hold at the start.
    """

    sas: str
    types: dict[str, list[str]]
    objects: dict[str, str]
    actions: dict[str, list[tuple[str, str]]]
    facts: list[tuple[str, list[str]]]


class PlanningTask(msgspec.Struct, frozen=True):
    """The planning task with everything left out that a plan does not need."""

    sas: str


def translate(domain: str, problem: str) -> Translation:
    """The planning task of a game. Raises `MachineryError` where the translator refuses it."""
    return _kept("full", domain, problem, Translation, _translate)


def planning_task(domain: str, problem: str) -> PlanningTask:
    """The same, reduced to what the planner needs."""
    return _kept("plan", domain, problem, PlanningTask, lambda d, p: PlanningTask(_pddl2sas(d, p, optimize=True)[1]))


def _kept(kind: str, domain: str, problem: str, form: type[Data], make: Callable[[str, str], Data]) -> Data:
    path = _path(kind, domain, problem)
    try:
        return msgspec.json.decode(zlib.decompress(path.read_bytes()), type=form)
    except (OSError, zlib.error, msgspec.DecodeError):  # not there yet, or damaged
        made = make(domain, problem)
        with suppress(OSError):  # then it is made again the next time
            keep(path, zlib.compress(msgspec.json.encode(made), 1))
        return made


def _path(kind: str, domain: str, problem: str) -> Path:
    version = metadata.version("fast-downward-textworld")
    name = hashlib.sha256("\0".join((_FORM, kind, version, domain, problem)).encode()).hexdigest()[:32]
    return cache_folder() / "alfworld" / name[:2] / f"{name}.z"


def _translate(domain: str, problem: str) -> Translation:
    task, sas = _pddl2sas(domain, problem, optimize=False)
    types: dict[str, list[str]] = {}
    for kind in task.types:  # ALFWorld's domain names `object` again, after the one that every domain has
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
    """A predicate of the start; none for equalities, costs and distances, which no text speaks of."""
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

    arguments, output = sys.argv, sys.stdout  # the translator overwrites both, and leaves them so where it fails
    try:
        return fast_downward.pddl2sas(domain, problem, optimize=optimize)  # type: ignore[no-any-return]
    except (Exception, SystemExit) as error:
        detail = f"{type(error).__name__}: {error}".splitlines()[0]
        raise MachineryError("environment", f"the game's PDDL does not translate: {detail}") from error
    finally:
        sys.argv, sys.stdout = arguments, output
