"""Writes docs/reference/cli.md and settings.md from the program itself: python docs/make_reference.py."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from msgspec import Meta

sys.path.insert(0, str(Path(__file__).parents[1]))

from sandcli.cli import app
from sandcli.fields import Field, fields
from sandcli.settings import Effect, Settings

FOLDER = Path(__file__).with_name("reference")

_EFFECTS = {
    Effect.CONTENT: "makes artifacts stale",
    Effect.SCOPE: "adds or leaves out units",
    Effect.REFERENCE: "the content that it names counts",
    Effect.COMPUTE: "changes no artifact",
}


def pages() -> dict[str, str]:
    """The text of each page, by file name."""
    return {"cli.md": "\n".join(_commands()) + "\n", "settings.md": "\n".join(_settings()) + "\n"}


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


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
