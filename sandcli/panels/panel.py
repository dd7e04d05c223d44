"""What a panel holds, its hash, and its text: JSON with one task a line."""

import hashlib
import json
from functools import cache
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from sandcli.fields import fields
from sandcli.messages import Said
from sandcli.records import Key, Record, Task
from sandcli.settings import Settings
from sandcli.tables import Effect

Split = Annotated[str, Meta(pattern=r"^[\w-]+$")]
"""The name of a split."""

Value = str | int | float | bool
"""The value of a setting that a panel can hold."""


class PanelTask(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One task with its step limit; `content` is the hash of its files, if the world has any (`World.content`)."""

    name: str
    variation: int | None = None
    game: str | None = None
    step_limit: Annotated[int, Meta(ge=1)]
    content: str = ""

    @property
    def task(self) -> Task:
        """The task itself."""
        return Task(name=self.name, variation=self.variation, game=self.game)

    @property
    def key(self) -> Key:
        """The task's place among the other tasks of its world."""
        return self.task.key


class Panel(Record, frozen=True, kw_only=True):
    """Everything about an evaluation except the agent's weights, and its knowledge of actions (`agent.knowledge`).

    `world` is an `env.name`; `versions` are those of its simulator. `settings` are by `table.key`, see
    `fixed_settings`. `preamble` are the messages before the task, and `splits` the tasks.
    """

    world: str
    versions: dict[str, str]
    settings: dict[str, Value]
    preamble: list[Said]
    splits: Annotated[dict[Split, Annotated[list[PanelTask], Meta(min_length=1)]], Meta(min_length=1)]

    @property
    def hash(self) -> str:
        """A short hash of the content. It does not depend on the order of tasks, on formatting or on a file's name."""
        content = msgspec.to_builtins(self)
        for tasks in content["splits"].values():
            tasks.sort(key=_canonical)
        return hashlib.sha256(_canonical(content).encode()).hexdigest()[:12]

    def applied_to(self, settings: Settings) -> Settings:
        """The settings with those that the panel fixes in place of their own.

        A setting that is newer than the panel gets its default: what the program did before.
        """
        for name, value in (fixed_values(Settings()) | self.settings).items():
            table, key = name.split(".")
            settings = replace(settings, **{table: replace(getattr(settings, table), **{key: value})})
        return settings


class NamedPanel(NamedTuple):
    """A panel and what the user calls it: the name of a published one, or a path."""

    panel: Panel
    name: str


@cache
def fixed_settings() -> tuple[str, ...]:
    """The settings that a panel fixes: all of `env`, `agent` and `eval` that change what is recorded, by `table.key`.

    The world's name, the tasks and the preamble have their own fields.
    """
    played = (field for field in fields() if field.table in ("env", "agent", "eval"))
    content = (field.name for field in played if field.effect is Effect.CONTENT)
    return ("env.simplifications", *(name for name in content if name != "env.name"))


def fixed_values(settings: Settings) -> dict[str, Value]:
    """The values of the settings that a panel fixes."""
    names = (name.split(".") for name in fixed_settings())
    return {f"{table}.{key}": getattr(getattr(settings, table), key) for table, key in names}


def written(panel: Panel) -> bytes:
    """The panel as a file that begins with its hash and has one task a line."""
    content = msgspec.to_builtins(panel)
    splits = [f"    {json.dumps(split)}: [\n{_lines(tasks)}\n    ]" for split, tasks in content.pop("splits").items()]
    begin = json.dumps({"hash": panel.hash, **content}, indent=2, ensure_ascii=False).removesuffix("\n}")
    text = f'{begin},\n  "splits": {{\n' + ",\n".join(splits) + "\n  }\n}\n"
    return text.encode(errors="backslashreplace")  # a lone surrogate becomes its escape in JSON


def _lines(tasks: list[dict[str, Any]]) -> str:
    return ",\n".join(f"      {json.dumps(task)}" for task in tasks)


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
