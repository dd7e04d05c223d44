"""Where the values of a run's settings come from: every layer read and checked, each value with its origin.

Precedence: defaults < `sand.toml` in the run directory < `SAND_*` environment variables < command-line flags:
`sample.n` is `n` under `[sample]`, `SAND_SAMPLE_N` and, on `sand sample`, `--n`.
"""

import contextlib
import difflib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, get_args, get_origin

import msgspec

from sandcli.errors import UsageError
from sandcli.fields import Field, fields
from sandcli.settings import Settings

FILE = "sand.toml"

_SHOWN = 80
"""How many characters of an invalid value a message quotes."""

_ADDRESS = re.compile(r"[\w.-]+:\d+|\[[0-9a-fA-F:]+\]:\d+")
"""A host, or an IPv6 address in brackets, and a port."""

_CLEAN = re.compile(r"[^\ud800-\udfff]*")
"""The text without lone surrogates, which stand for bytes that are not UTF-8."""

_FLAGS = {"engine.kind": "--engine", "cluster.address": "--cluster"}
"""The flags that are not named after their setting's key."""

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
        """Every setting, in the order of the tables."""
        return [
            Setting(f.name, getattr(getattr(self.settings, f.table), f.key), self.origins[f.name], f.meaning)
            for f in fields()
        ]


def resolve(folder: Path, environment: Mapping[str, str], flags: Mapping[str, Scalar | None]) -> Resolved:
    """Merge all layers for the run in `folder`. Raises `UsageError` for unknown keys, wrong types and bad pairs."""
    values: dict[str, dict[str, Any]] = {}
    origins = {field.name: "default" for field in fields()}
    for layer in (_from_file(folder / FILE), _from_environment(environment), _from_flags(flags)):
        for name, (value, origin) in layer.items():
            field = _field(name, origin)
            values.setdefault(field.table, {})[field.key] = _checked(field, value, origin)
            origins[name] = origin
    settings = msgspec.convert(values, Settings)
    refuse_contradictions(settings)
    return Resolved(settings, origins)


def refuse_contradictions(settings: Settings) -> None:
    """Raise `UsageError` for settings that exclude each other, and for an address that is none."""
    address = settings.cluster.address
    if address not in ("", "auto", "local") and not _ADDRESS.fullmatch(address):
        raise UsageError(
            f"cluster.address {address!r} is not the address of a Ray cluster",
            "use auto, local, or HOST:PORT (not ray://)",
        )
    method = settings.method
    if method.name != "sand" and (method.switch, method.without) != ("never", "none"):
        raise UsageError(
            f"method.switch and method.without are variants of sand, and method.name is {method.name}",
            "set method.switch to never and method.without to none",
        )
    if method.switch != "never" and method.without in ("sampling", "critique"):
        raise UsageError(
            f"method.switch compares rollouts, and without {method.without} there are none",
            "set method.switch to never",
        )
    _refuse_planners(settings)
    if settings.agent.thought == "required" and "never" in settings.eval.deliberation:
        raise UsageError(
            "eval.deliberation never gives turns without a thought, and agent.thought is required",
            "set agent.thought to optional, or leave out never",
        )
    _refuse_equal_episodes("eval", settings.eval.n, settings.eval.temperature)
    _refuse_equal_episodes("explore", settings.explore.n, settings.explore.temperature)
    if settings.synthesize.form == "guided" and settings.method.without == "sampling":
        raise UsageError(
            "synthesize.form guided asks about the sampled actions, and without sampling there are none",
            "set synthesize.form to free",
        )


def _refuse_planners(settings: Settings) -> None:
    plans = settings.method.name in ("mpo", "mpo-sft")
    makes = {"model": plans, "wkm": settings.method.name == "wkm"}
    if not makes.get(settings.eval.planner, True):
        raise UsageError(
            f"eval.planner is {settings.eval.planner}, which is no planner if method.name is {settings.method.name}",
            "set eval.planner to base or a folder, or leave it empty",
        )
    if settings.retrieval.weight < 1 and settings.eval.planner != "wkm":
        raise UsageError(
            f"retrieval.weight is {settings.retrieval.weight:g}, which needs knowledge, and eval.planner is not wkm",
            "set retrieval.weight to 1, or, if method.name is wkm, eval.planner to wkm",
        )
    if plans and settings.plan.n == 1:
        raise UsageError("plan.n is 1, and mpo compares the plans of a task", "set plan.n to 2 or more (MPO: 5)")
    if plans and "model" in settings.eval.models:
        raise UsageError(
            f"eval.models names model, which is a planner if method.name is {settings.method.name}",
            "set eval.models to policy, and eval.planner to model",
        )


def _refuse_equal_episodes(table: str, n: int, temperature: float) -> None:
    if n > 1 and temperature == 0:
        raise UsageError(
            f"{table}.n is {n} and {table}.temperature 0: all {n} episodes of a task would be the same",
            f"set {table}.n to 1, or {table}.temperature above 0, such as 0.7",
        )


def template(values: Mapping[str, Scalar]) -> str:
    """The text of a new sand.toml: the given settings set, all others commented out with default and meaning."""
    lines = ["# Settings of this run. `sand config --run DIR` shows each value in force and where it came from."]
    defaults, seen = Settings(), ""
    for field in fields():
        if field.table != seen:
            lines += ["", f"[{field.table}]"]
            seen = field.table
        value = values.get(field.name, getattr(getattr(defaults, field.table), field.key))
        text = f"{field.key} = {_toml(value)}  # {field.meaning}"
        lines.append(text if field.name in values else f"# {text}")
    return "\n".join(lines) + "\n"


def _toml(value: Scalar) -> str:
    """A scalar or list as TOML: its JSON is also TOML, except for one control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _from_file(path: Path) -> dict[str, tuple[Any, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        tables = tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number of thousands of digits, deep nesting
        raise UsageError(f"{path}: not valid TOML: {error}", "correct the file at that position") from None
    layer = {}
    known = {field.table for field in fields()}
    for table, content in tables.items():
        if not isinstance(content, dict):
            _refuse_unknown(table, f"{path}:{_line(text, '', table)}")
        if not content and table not in known:
            _refuse_unknown(table, f"{path}:1")
        for key, value in content.items():
            layer[f"{table}.{key}"] = (value, f"{path}:{_line(text, table, key)}")
    return layer


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    names = {f"SAND_{field.table}_{field.key}".upper(): field.name for field in fields()}
    layer = {}
    for variable in sorted(v for v in environment if v.startswith("SAND_")):
        if variable not in names:
            raise UsageError(f"unknown environment variable {variable}", _nearest(variable, list(names)))
        layer[names[variable]] = (read_text(names[variable], environment[variable], variable), variable)
    return layer


def _from_flags(flags: Mapping[str, Scalar | None]) -> dict[str, tuple[Any, str]]:
    return {name: (value, _flag(name)) for name, value in flags.items() if value is not None}


def _flag(name: str) -> str:
    return _FLAGS.get(name, f"--{name.split('.')[1].replace('_', '-')}")


def _field(name: str, origin: str) -> Field:
    found = next((field for field in fields() if field.name == name), None)
    return found or _refuse_unknown(name, origin)


def read_text(name: str, text: str, origin: str) -> Any:
    """A setting's value from text, as on a command line. A list is written as in TOML, or with commas alone."""
    field = _field(name, origin)
    kind = field.hint.__origin__
    if kind == list[str]:
        return _checked(field, _list(text, origin, name), origin)
    value: Any = text
    with contextlib.suppress(msgspec.ValidationError, UnicodeEncodeError):  # the check below gives the better message
        value = msgspec.convert(text, kind, strict=False)
    return _checked(field, value, origin)


def check_value(name: str, value: Any, origin: str) -> None:
    """Raise `UsageError` if there is no such setting, or if it cannot have the value."""
    _checked(_field(name, origin), value, origin)


def _list(text: str, origin: str, name: str) -> Any:
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        (value,) = tomllib.loads(f"x = {text}").values()
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{origin}: {name} = {shown(name, text)}: not a list of TOML: {error}", """write a,b or ["a", "b"]"""
        ) from None
    return value


def _checked(field: Field, value: Any, origin: str) -> Any:
    try:
        if isinstance(value, str):
            _refuse_unwritable(value)  # msgspec fails otherwise if it compares the text with a list of choices
        converted = msgspec.convert(value, field.hint)
        _refuse_unwritable(converted)
    except msgspec.ValidationError as error:
        raise UsageError(f"{origin}: {field.name} = {shown(field.name, value)}: {error}", _choices(field)) from None
    return converted


def _refuse_unwritable(value: Scalar) -> None:
    """Raise `ValidationError` for a value that sand.toml or a manifest could not hold."""
    if isinstance(value, float) and not math.isfinite(value):
        raise msgspec.ValidationError("Expected a finite number")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise msgspec.ValidationError("Expected a number of at most 64 bits")
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and not _CLEAN.fullmatch(text):
            raise msgspec.ValidationError("Expected text that UTF-8 can hold")


def without_password(url: str) -> str:
    """A text that was meant as one or several URLs, made safe to show."""
    return re.sub(r"^([^/@]*//)?.*@", r"\1***@", url, flags=re.DOTALL)


def showable(name: str, value: Any) -> Any:
    """A setting's value without passwords in URLs."""
    if name != "engine.urls":
        return value
    return [without_password(str(url)) for url in value] if isinstance(value, list) else without_password(str(value))


def shown(name: str, value: Any) -> str:
    """A setting's value for a message: without passwords, and short."""
    try:
        text = repr(showable(name, value))
    except ValueError:
        text = "a number of more than 4,300 digits"  # which Python does not write
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _choices(field: Field) -> str:
    kind = field.hint.__origin__
    values = f"one of {', '.join(get_args(kind))}; " if get_origin(kind) is Literal else ""
    return f"{values}it means: {field.meaning}"


def _refuse_unknown(name: str, origin: str) -> NoReturn:
    raise UsageError(f"{origin}: unknown setting {name}", _nearest(name, [field.name for field in fields()]))


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else "`sand config` lists all settings"


def _line(text: str, table: str, key: str) -> int:
    """The line of a key, for messages; 1 if it cannot be found."""
    current = ""
    for number, line in enumerate(text.split("\n"), 1):
        if header := re.match(r"\s*\[\s*([\w.]+)\s*\]", line):
            current = header[1]
        elif current == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return number
    return 1
