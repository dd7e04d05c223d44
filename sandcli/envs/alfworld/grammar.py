"""The text of a game: TextWorld parses its grammar, and this module renders it.

TextWorld's own derivation copies the whole context at every symbol and parses every string again, which takes a tenth
of a second a step. This one parses once and copies nothing. The tests compare the two word by word.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from textworld.envs.pddl.logic import _parse_and_convert as parse_document
from textworld.envs.pddl.textgen import (
    ConditionalSymbol,
    EvalSymbol,
    ListSymbol,
    NonterminalSymbol,
    Symbol,
    TerminalSymbol,
)
from textworld.envs.pddl.textgen import _parse_and_convert as parse_text
from textworld.logic import Rule, State

from sandcli.errors import MachineryError

_TASK = re.compile(r'(?<="rhs": ")Your task is to: (?:[^"\\]|\\.)*(?=")')


class Scene(NamedTuple):
    """What a text is rendered from: the facts, the entity of each placeholder, and all entities by id."""

    state: State
    mapping: Mapping[Any, Any]
    entities: Mapping[str, Any]


class ActionText(NamedTuple):
    """An action's command and its feedback, in the grammar's language."""

    template: str
    feedback: str


class Grammar:
    """One game's grammar. Games differ only in the sentence that states the task, so the rest is parsed once."""

    def __init__(self, source: str) -> None:
        found = _TASK.search(source)
        self._task = str(json.loads(f'"{found.group()}"')) if found else ""
        self.actions, self._productions = _parsed(_TASK.sub("", source))

    def render(self, text: str, scene: Scene) -> str:
        """Render a string of the grammar's language."""
        return "".join(self._render(symbol, scene) for symbol in _symbols(text))

    def _render(self, symbol: Symbol, scene: Scene) -> str:
        match symbol:
            case TerminalSymbol():
                return str(symbol)
            case NonterminalSymbol(symbol="task") if self._task:
                return self._task
            case NonterminalSymbol():
                return self._expand(str(symbol), scene)
            case ListSymbol():
                return self._join(list(self._items(symbol.symbol, scene)), scene)
            case _:
                return "".join(self._items(symbol, scene))

    def _items(self, symbol: Symbol, scene: Scene) -> Iterator[str]:
        """The expansions of a symbol: one for each way to satisfy its query."""
        match symbol:
            case ConditionalSymbol(given=given):
                for inner in _matches(given, scene) if given else [scene]:
                    yield self._render(symbol.expression, inner)
            case EvalSymbol():
                yield _value(_expression(symbol.expression), scene)
            case _:
                raise MachineryError("environment", f"the game's grammar has an unknown symbol {symbol!r}")

    def _join(self, items: list[str], scene: Scene) -> str:
        if not items:
            return self._expand("list_empty", scene)
        *first, last = items
        if not first:
            return last
        return self._expand("list_separator", scene).join(first) + self._expand("list_last_separator", scene) + last

    def _expand(self, name: str, scene: Scene) -> str:
        """A nonterminal as text."""
        return "".join(self._render(part, scene) for part in self._production(name, scene))

    def _production(self, name: str, scene: Scene) -> list[Symbol]:
        for production in self._productions.get(name, ()):
            if not production.condition or any(_matches(production.condition, scene)):
                return list(production.rhs)
        raise MachineryError("environment", f"the game's grammar has no production for #{name}#")


@lru_cache(maxsize=16)
def _parsed(source: str) -> tuple[dict[str, ActionText], Mapping[str, list[Any]]]:
    try:
        actions, grammar = parse_document(source, rule_name="pddlStart")
    except Exception as error:  # tatsu and json raise errors of many kinds
        detail = f"{type(error).__name__}: {error}".splitlines()[0]
        raise MachineryError("environment", f"the game's grammar does not parse: {detail}") from error
    return {name: ActionText(a.template, a.feedback_rule) for name, a in actions.items()}, grammar._rules


@lru_cache(maxsize=4096)
def _symbols(text: str) -> list[Symbol]:
    return list(parse_text(text, rule_name="symbols"))


@lru_cache(maxsize=1024)
def _query(text: str) -> Rule:
    return Rule.parse_conjunctive_query(text)


def _matches(query: str, scene: Scene) -> Iterator[Scene]:
    for mapping in scene.state.all_assignments(_query(query), scene.mapping):
        yield scene._replace(mapping={**scene.mapping, **mapping})


@lru_cache(maxsize=1024)
def _expression(text: str) -> ast.expr:
    return ast.parse(text.strip(), mode="eval").body


def _value(expression: ast.expr, scene: Scene) -> str:
    """Evaluate an expression of the grammar: names, their attributes, strings, `+` and `or`.

    TextWorld evaluates any Python in a game file. Games need no more than these, so everything else is refused.
    """
    match expression:
        case ast.Constant(value=str() as text):
            return text
        case ast.Name(id=name):
            return str(_entity(name, scene).name)
        case ast.Attribute(value=ast.Name(id=name), attr=attribute) if attribute in ("name", "id", "indefinite"):
            return str(getattr(_entity(name, scene), attribute) or "")
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left, scene) + _value(right, scene)
        case ast.BoolOp(op=ast.Or(), values=values):
            return next((text for text in (_value(v, scene) for v in values) if text), "")
    raise MachineryError("environment", f"the game's grammar has an unsupported expression: {ast.unparse(expression)}")


def _entity(name: str, scene: Scene) -> Any:
    for placeholder, variable in scene.mapping.items():
        if placeholder.name == name:
            return scene.entities[variable.name]
    raise MachineryError("environment", f"the game's grammar mentions {name!r}, which is not defined")
