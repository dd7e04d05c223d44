"""Where the values of a run's settings come from: every layer read and checked, each value with its origin.

Precedence: defaults < `sand.toml` in the run directory < `SAND_*` environment variables < command-line flags:
`sample.n` is `n` under `[sample]`, `SAND_SAMPLE_N` and, on `sand sample`, `--n`.
"""

import contextlib
import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from sandcli.errors import UsageError
from sandcli.settings import Settings

FILE = "sand.toml"
Scalar = str | int | float | bool | list[str]


class Setting(NamedTuple):
    """One setting as `sand config` shows it."""

    name: str
    value: Scalar
    origin: str
    meaning: str


class Resolved(NamedTuple):
    """Settings and where each came from."""

    settings: Settings
    origins: dict[str, str]

    def listing(self) -> list[Setting]:
        """Every setting in the order of the tables."""
        return [
            Setting(name, getattr(getattr(self.settings, table), key), self.origins[name], meaning)
            for name, table, key, meaning in _fields()
        ]


def resolve(folder: Path, environment: Mapping[str, str], flags: Mapping[str, Scalar | None]) -> Resolved:
    """Merge all layers for the run in `folder`. Raises `UsageError` for unknown keys and wrong types."""
    values: dict[str, dict[str, Any]] = {}
    origins = {name: "default" for name, *_ in _fields()}
    layers = [_from_file(folder / FILE), _from_environment(environment), _from_flags(flags)]
    for layer in layers:
        for name, (value, origin) in layer.items():
            table, key = name.split(".")
            values.setdefault(table, {})[key] = _checked(name, value, origin)
            origins[name] = origin
    settings = msgspec.convert(values, Settings)
    if settings.method.switch != "never" and settings.method.without != "none":
        raise UsageError(
            f"method.switch compares rollouts, and without {settings.method.without} there are none",
            "set method.switch to never",
        )
    if settings.synthesize.form == "guided" and settings.method.without == "sampling":
        raise UsageError(
            "synthesize.form guided asks about the sampled actions, and without sampling there are none",
            "set synthesize.form to free",
        )
    return Resolved(settings, origins)


def template(values: Mapping[str, Scalar]) -> str:
    """The text of a new sand.toml: the given settings set, all others as comments with default and meaning."""
    lines = ["# Settings of this run. `sand config --run DIR` shows each value in force and where it came from."]
    seen = ""
    for item in Resolved(Settings(), {name: "" for name, *_ in _fields()}).listing():
        table, key = item.name.split(".")
        if table != seen:
            lines += ["", f"[{table}]"]
            seen = table
        given = item.name in values
        # The JSON of a scalar or list is TOML too.
        value = json.dumps(values.get(item.name, item.value), ensure_ascii=False)
        lines.append(f"{'' if given else '# '}{key} = {value}  # {item.meaning}")
    return "\n".join(lines) + "\n"


def _fields() -> Iterator[tuple[str, str, str, str]]:
    for table, kind in get_type_hints(Settings).items():
        for key, hint in get_type_hints(kind, include_extras=True).items():
            meaning = next((m.description for m in hint.__metadata__ if m.description), "")
            yield f"{table}.{key}", table, key, meaning


def _from_file(path: Path) -> dict[str, tuple[Any, str]]:
    try:
        text = path.read_text()
        tables = tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}", "correct the file at that place") from None
    layer = {}
    for table, content in tables.items():
        if not isinstance(content, dict):
            _unknown(table, f"{path}:{_line(text, '', table)}")
        if not content and table not in get_type_hints(Settings):
            _unknown(table, f"{path}:1")
        for key, value in content.items():
            layer[f"{table}.{key}"] = (value, f"{path}:{_line(text, table, key)}")
    return layer


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    names = {f"SAND_{table}_{key}".upper(): name for name, table, key, _ in _fields()}
    layer = {}
    for variable in sorted(v for v in environment if v.startswith("SAND_")):
        if variable not in names:
            raise UsageError(f"unknown environment variable {variable}", _nearest(variable, list(names)))
        layer[names[variable]] = (read_text(names[variable], environment[variable], variable), variable)
    return layer


def _from_flags(flags: Mapping[str, Scalar | None]) -> dict[str, tuple[Any, str]]:
    return {name: (value, _flag(name)) for name, value in flags.items() if value is not None}


def _flag(name: str) -> str:
    return "--engine" if name == "engine.kind" else f"--{name.split('.')[1].replace('_', '-')}"


def _hint(name: str) -> Any:
    table, _, key = name.partition(".")
    return get_type_hints(get_type_hints(Settings)[table], include_extras=True)[key]


def read_text(name: str, text: str, origin: str) -> Any:
    """A setting's value from text, as on a command line; a list is separated by commas."""
    if name not in {known for known, *_ in _fields()}:
        _unknown(name, origin)
    kind = _hint(name).__origin__
    if kind == list[str]:
        return [part.strip() for part in text.split(",") if part.strip()]
    value: Any = text
    with contextlib.suppress(msgspec.ValidationError):  # of what cannot be read the check tells more
        value = msgspec.convert(text, kind, strict=False)
    return _checked(name, value, origin)


def _checked(name: str, value: Any, origin: str) -> Any:
    if name not in {known for known, *_ in _fields()}:
        _unknown(name, origin)
    try:
        return msgspec.convert(value, _hint(name))
    except msgspec.ValidationError as error:
        raise UsageError(f"{origin}: {name} = {value!r}: {error}", _choices(name)) from None


def _choices(name: str) -> str:
    known = get_args(_hint(name).__origin__)
    values = f"one of {', '.join(known)}; " if known and get_origin(_hint(name).__origin__) is Literal else ""
    return f"{values}it means: {_meaning(name)}"


def _unknown(name: str, origin: str) -> None:
    raise UsageError(f"{origin}: unknown setting {name}", _nearest(name, [known for known, *_ in _fields()]))


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else "`sand config` lists all settings"


def _meaning(name: str) -> str:
    return next(meaning for known, _, _, meaning in _fields() if known == name)


def _line(text: str, table: str, key: str) -> int:
    """The line of a key, for messages; 1 where it cannot be found."""
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([\w.]+)\s*\]", line):
            current = header[1]
        elif current == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return number
    return 1
