"""One loaded ALFWorld game: fast-downward's state machine, the facts that its texts mention, and its positions.

TextWorld's environment renders every admissible command and copies every fact at each step. Here a position is an
immutable value, so a snapshot costs nothing, and each operator's command is rendered once. Feedback, admissible
commands and victory are identical to the stock environment's.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import fast_downward
from alfworld.agents.utils.misc import Demangler
from textworld.generator.game import EntityInfo
from textworld.logic import Placeholder, Proposition, Signature, State, Type, TypeHierarchy, Variable

from sandcli.envs.alfworld.files import GameFile, Verb
from sandcli.envs.alfworld.grammar import Grammar, Scene
from sandcli.envs.alfworld.translation import Translation, planning_task, translate
from sandcli.errors import MachineryError

NOTHING = "Nothing happens."
"""The game's answer to a command that is not admissible."""

_NEGATED = "NegatedAtom"
_NOT = "not_"

_MAX_CACHED = 2048
"""Positions of a game whose admissible commands are cached."""

Facts = Mapping[Signature, frozenset[Proposition]]


class Position(NamedTuple):
    """A state of a game: fast-downward's number for it, and the facts that hold in it. Valid for its game only."""

    number: int
    facts: Facts


class Operator(NamedTuple):
    """What a command does: fast-downward's name and id, the number of effects, and how to render its feedback."""

    name: bytes
    id: int
    effects: int
    command: str
    feedback: str
    mapping: Mapping[Placeholder, Variable]


class Game:
    """A loaded game. It holds one instance of fast-downward's library and is not thread-safe."""

    def __init__(self, file: GameFile, library: Any) -> None:
        self._file = file
        self._library = library
        self._translation = translate(file.pddl_domain, file.pddl_problem)
        self._grammar = Grammar(file.grammar)
        self._operators: dict[int, Operator] = {}
        self._commands: OrderedDict[int, dict[str, Operator]] = OrderedDict()
        self._types = _hierarchy(self._translation)
        library.load_sas(self._translation.sas.encode())
        self.start = Position(library.get_state_id(), _grouped(self._first_facts()))
        self._entities = _entities(self.start.facts)

    def _first_facts(self) -> Iterable[Proposition]:
        for name, arguments in self._translation.facts:
            yield self._fact(name, arguments)
        atoms = (fast_downward.Atom * self._library.get_state_size())()
        self._library.get_state(atoms)
        yield from (self._read(atom) for atom in atoms if not atom.name.startswith(_NEGATED))

    def _read(self, atom: Any) -> Proposition:
        """Parse `Atom name(argument, ...)`, or `NegatedAtom name(argument, ...)` for a fact that does not hold."""
        kind, text = atom.name.split(" ", 1)
        name, arguments = text.removesuffix(")").split("(", 1)
        return self._fact(_NOT * (kind == _NEGATED) + name, [part for part in arguments.split(", ") if part])

    def _fact(self, name: str, arguments: Iterable[str]) -> Proposition:
        kinds = self._translation.objects
        return _proposition(name, [Variable(argument, kinds[argument]) for argument in arguments])

    @property
    def verb(self) -> Verb:
        """The grammar's verb for placing an object."""
        return self._file.verb

    def intro(self) -> str:
        """The text at the start of the game."""
        return self._grammar.render("#intro#", self._scene(self.start, {}))

    def commands(self, position: Position) -> Mapping[str, Operator]:
        """The admissible commands, in fast-downward's order."""
        if position.number in self._commands:
            self._commands.move_to_end(position.number)
            return self._commands[position.number]
        found: dict[str, Operator] = {}
        for operator in self._applicable(position):
            found.setdefault(operator.command, operator)
        self._commands[position.number] = found
        if len(self._commands) > _MAX_CACHED:
            self._commands.popitem(last=False)
        return found

    def _applicable(self, position: Position) -> list[Operator]:
        self._library.set_state_id(position.number)
        raw = (fast_downward.Operator * self._library.get_applicable_operators_count())()
        self._library.get_applicable_operators(raw)
        unique: dict[bytes, Operator] = {}
        for operator in raw:
            if operator.id not in self._operators:
                self._operators[operator.id] = self._operator(operator, position)
            unique.setdefault(operator._name, self._operators[operator.id])
        return list(unique.values())

    def _operator(self, raw: Any, position: Position) -> Operator:
        name, *arguments = raw.name.split()
        text = self._grammar.actions[name]
        mapping = {
            Placeholder(parameter, kind): Variable(argument, kind)
            for (parameter, kind), argument in zip(self._translation.actions[name], arguments, strict=False)
        }
        command = self._grammar.render(text.template, self._scene(position, mapping))
        return Operator(raw._name, raw.id, raw.nb_effect_atoms, command, text.feedback, mapping)

    def apply(self, position: Position, operator: Operator) -> tuple[Position, str]:
        """The position after an admissible command, and its feedback."""
        self._library.set_state_id(position.number)
        effects = (fast_downward.Atom * operator.effects)()
        self._library.apply_operator(operator.id, effects)
        facts = _changed(position.facts, [self._read(effect) for effect in effects])
        after = Position(self._library.get_state_id(), facts)
        return after, self._grammar.render(operator.feedback, self._scene(after, operator.mapping))

    def won(self, position: Position) -> bool:
        """Whether the goal is reached."""
        self._library.set_state_id(position.number)
        return bool(self._library.check_goal())

    def plan(self) -> list[str]:
        """The planner's solution as commands; empty if it finds none."""
        self._library.set_state_id(self.start.number)
        task = planning_task(self._file.pddl_domain, self._file.pddl_problem)
        self._library.load_sas_replan(task.sas.encode())
        if not self._library.replan(False):
            return []
        raw = (fast_downward.Operator * self._library.get_last_plan_length())()
        self._library.get_last_plan(raw)
        return self._to_commands([operator._name for operator in raw])

    def _to_commands(self, plan: list[bytes]) -> list[str]:
        commands, position = [], self.start
        for name in plan:
            operator = next((one for one in self._applicable(position) if one.name == name), None)
            if operator is None:
                raise MachineryError("environment", f"step {name.decode()!r} of the plan is not applicable")
            commands.append(operator.command)
            position, _ = self.apply(position, operator)
        return commands

    def named_facts(self, position: Position) -> list[tuple[str, ...]]:
        """Every fact as the predicate and its arguments, under the names that the player sees. Sorted."""
        return sorted(
            (fact.name, *(self._entities[variable.name].name for variable in fact.arguments))
            for group in position.facts.values()
            for fact in group
        )

    def _scene(self, position: Position, mapping: Mapping[Placeholder, Variable]) -> Scene:
        return Scene(_State(self._types, position.facts), mapping, self._entities)


class _State(State):  # type: ignore[misc]
    """TextWorld's queries on our own facts."""

    def __init__(self, types: TypeHierarchy, facts: Facts) -> None:
        self._logic = SimpleNamespace(types=types)
        self._facts = facts


def _hierarchy(translation: Translation) -> TypeHierarchy:
    hierarchy = TypeHierarchy()
    for name, parents in translation.types.items():
        hierarchy.add(Type(name, parents))
    return hierarchy


def _grouped(facts: Iterable[Proposition]) -> Facts:
    groups: dict[Signature, set[Proposition]] = {}
    for fact in facts:
        groups.setdefault(fact.signature, set()).add(fact)
    return {signature: frozenset(group) for signature, group in groups.items()}


def _changed(facts: Facts, effects: Iterable[Proposition]) -> Facts:
    """The facts after an action's effects; unchanged groups are shared."""
    changed = dict(facts)
    for effect in effects:
        opposite = _opposite(effect)
        changed[opposite.signature] = changed.get(opposite.signature, frozenset()) - {opposite}
        changed[effect.signature] = changed.get(effect.signature, frozenset()) | {effect}
    return changed


def _opposite(fact: Proposition) -> Proposition:
    name = fact.name.removeprefix(_NOT) if fact.name.startswith(_NOT) else _NOT + fact.name
    return _proposition(name, fact.arguments)


def _proposition(name: str, arguments: Iterable[Variable]) -> Proposition:
    """Make a proposition outside TextWorld's cache of all propositions, which would grow with every game."""
    return type.__call__(Proposition, name, arguments)


def _entities(facts: Facts) -> dict[str, EntityInfo]:
    """Every entity with the name that ALFWorld gives it, such as `apple 1`."""
    found = {v.name: EntityInfo(v.name, v.type) for group in facts.values() for f in group for v in f.arguments}
    names = Demangler(game_infos=found)
    for info in found.values():
        info.name = names.demangle_alfred_name(info.id)
        info.indefinite, info.definite = "a", "the"
    return found
