"""Writes the pages of docs/reference from the program itself: python docs/make_reference.py."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer
from msgspec import Meta

sys.path.insert(0, str(Path(__file__).parents[1]))

from sandcli import episodes, records
from sandcli.cli import app
from sandcli.core.manifest import Identity, Manifest, Spent
from sandcli.fields import Field, fields
from sandcli.settings import Settings
from sandcli.tables import Effect

FOLDER = Path(__file__).with_name("reference")

_EFFECTS = {
    Effect.CONTENT: "makes artifacts stale",
    Effect.SCOPE: "a larger value adds units",
    Effect.REFERENCE: "the content that it names counts",
    Effect.COMPUTE: "changes no artifact",
}


def pages() -> dict[str, str]:
    """The text of each page, by file name."""
    texts = {"cli.md": _commands(), "settings.md": _settings(), "records.md": _records()}
    return {name: "\n".join(lines) + "\n" for name, lines in texts.items()}


def _commands() -> Iterator[str]:
    yield "# Commands\n\nGenerated from the program. `sand COMMAND --help` shows the same.\n"
    root = typer.main.get_command(app)
    yield f"{(root.help or '').strip()} {root.epilog}\n"
    yield from _group("sand", root)


def _group(name: str, command: Any) -> Iterator[str]:
    for title, child in command.commands.items():
        full = f"{name} {title}"
        if hasattr(child, "commands"):
            yield from _group(full, child)
        else:
            yield f"## {full}\n\n{_paragraphs(child.help or '')}\n"
            yield "| option | value | default | meaning |\n|---|---|---|---|"
            yield from (_option(option) for option in child.params)
            yield ""


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _option(option: Any) -> str:
    argument = option.param_type_name == "argument"
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if argument:
        names = f"`{option.metavar or option.name.upper()}`"
    value = "" if argument or getattr(option, "is_flag", False) else option.metavar or option.bare_type()
    if value.startswith("typing.Literal"):
        value = " or ".join(re.findall(r"'([^']+)'", value))
    default = option.default if not callable(option.default) else None
    shown = "required" if option.required else "" if default in (None, False, (), []) else f"`{default}`"
    return f"| {names} | {_cell(str(value))} | {shown} | {_cell(option.help or '')} |"


def _settings() -> Iterator[str]:
    yield (
        "# Settings\n\nGenerated from the program. `sand.toml` in the run directory holds them; `SAND_TABLE_KEY` in "
        "the environment and command-line options override it. `sand config --run DIR` shows each value in force.\n"
    )
    defaults, table = Settings(), ""
    for field in fields():
        values = getattr(defaults, field.table)
        if field.table != table:
            table = field.table
            yield f"\n## [{table}]\n\n{_paragraphs(type(values).__doc__ or '')}\n"
            yield "| setting | type | default | meaning | a change |\n|---|---|---|---|---|"
        default = getattr(values, field.key)
        shown = f'`"{default}"`' if isinstance(default, str) else f"`{str(default).lower()}`"
        yield f"| `{field.name}` | {_type(field)} | {shown} | {_cell(field.meaning)} | {_EFFECTS[field.effect]} |"


def _type(field: Field) -> str:
    kind = field.hint.__origin__
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    meta = next(m for m in field.hint.__metadata__ if isinstance(m, Meta))
    bounds = [
        f"{sign} {value}" for sign, value in ((">=", meta.ge), (">", meta.gt), ("<=", meta.le)) if value is not None
    ]
    name = (
        "list of texts"
        if kind == list[str]
        else {"str": "text", "int": "integer", "float": "number"}.get(kind.__name__, kind.__name__)
    )
    return ", ".join([name, *bounds])


_RECORDS = (
    *(records.Trajectory, records.Sample, records.Rollout, records.Critique, records.Thought, episodes.Episode),
    *(
        records.Pair,
        records.Plan,
        episodes.GivenPlan,
        records.Knowledge,
        episodes.Counterfactual,
        records.Step,
        records.Task,
        records.Draw,
        records.Candidate,
    ),
    *(Manifest, Identity, Spent),
)


def _records() -> Iterator[str]:
    yield "# Records\n\nGenerated from the program. A record is a JSON object with these fields, in this order.\n"
    for kind in _RECORDS:
        yield f"## {kind.__name__}\n\n{_paragraphs(kind.__doc__ or '')}\n"
        yield "| field | type |\n|---|---|"
        hints = get_type_hints(kind)
        yield from (f"| `{name}` | {_cell(_hint(hints[name]))} |" for name in kind.__struct_fields__)
        yield ""


def _hint(hint: Any) -> str:
    """A type as JSON users know it."""
    if hint is type(None):
        return "null"
    name, parts = getattr(hint, "__name__", str(hint)), get_args(hint)
    if get_origin(hint) is Literal:
        return " or ".join(f"`{value}`" for value in parts)
    if get_origin(hint) is list:
        return f"list of {_hint(parts[0])}"
    if get_origin(hint) is dict:
        return f"object: text to {_hint(parts[1])}"
    if get_origin(hint) is tuple:
        return f"pair of {' and '.join(map(_hint, parts))}"
    if parts:
        return " or ".join(map(_hint, parts))
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(name, name)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
