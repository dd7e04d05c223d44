"""Every setting with its type, its meaning and what a change of it affects, as `sandcli.settings` declares them."""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, get_type_hints

from msgspec import Meta

from sandcli.settings import Settings
from sandcli.tables import Effect


class Field(NamedTuple):
    """One setting: its table and key, its type, its meaning, and what a change of it affects."""

    table: str
    key: str
    hint: Any
    meaning: str
    effect: Effect

    @property
    def name(self) -> str:
        """`table.key`."""
        return f"{self.table}.{self.key}"


@cache
def fields() -> tuple[Field, ...]:
    """Every setting, in the order of the tables."""
    return tuple(_fields())


def _fields() -> Iterator[Field]:
    for table, kind in get_type_hints(Settings).items():
        for key, hint in get_type_hints(kind, include_extras=True).items():
            meaning = next(m.description or "" for m in hint.__metadata__ if isinstance(m, Meta))
            effect = next((m for m in hint.__metadata__ if isinstance(m, Effect)), Effect.CONTENT)
            yield Field(table, key, hint, meaning, effect)


def values_with(settings: Settings, tables: tuple[str, ...], effect: Effect) -> dict[str, str]:
    """The values, as text, of all settings in some tables that have one effect, by `table.key`."""
    chosen = (field for field in fields() if field.table in tables and field.effect is effect)
    return {field.name: _text(getattr(getattr(settings, field.table), field.key)) for field in chosen}


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
