"""Trajectories and preference pairs in the forms that other trainers read: `sand export`."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec

from sandcli.agent.conversation import pair_prompt, training_messages
from sandcli.core.context import Context
from sandcli.core.store import Records
from sandcli.errors import UsageError, unknown_name
from sandcli.files import must_be_free, rename_durably, write_atomic
from sandcli.messages import Message, as_messages
from sandcli.models import require_package
from sandcli.parameters import ExportData, ExportForm
from sandcli.records import Trajectory

_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}

Row = dict[str, Any]


class Wanted(NamedTuple):
    """Which rows: see `ExportData` and `ExportForm`. The other two leave out trajectories, or single turns."""

    data: str
    form: str
    min_reward: float | None
    only_deliberated: bool


def write_rows(context: Context, file: Path, wanted: Wanted) -> int:
    """Write rows to a new file: JSON lines, or parquet if its name ends in .parquet. Returns their number.

    Raises `UsageError` for an unknown `data` or `form`, if the file exists or if nothing is left to write, and
    `PrerequisiteError` if the data is not made.
    """
    _refuse_other_form(wanted)
    must_be_free(file, "rows.jsonl")
    if file.suffix not in (".jsonl", ".parquet"):
        raise UsageError(f"{file.name} is no name of a file to export to", "let it end in .jsonl or .parquet")
    rows = (_pairs if wanted.data == "pairs" else _turns)(context, wanted)
    first = next(rows, None)
    if first is None:
        fix = "lower --min-reward, or leave out --only-deliberated"
        raise UsageError(f"no row of {wanted.data} is left to export", fix)
    file.parent.mkdir(parents=True, exist_ok=True)
    return _write(file, chain([first], rows))


def _refuse_other_form(wanted: Wanted) -> None:
    if wanted.form not in get_args(ExportForm):
        raise unknown_name("form", wanted.form, get_args(ExportForm))
    if (wanted.data == "pairs") != (wanted.form == "preference"):
        forms = ", ".join(form for form in get_args(ExportForm) if form != "preference")
        fix = "leave out --form" if wanted.data == "pairs" else f"use {forms}, or --data pairs"
        raise UsageError(f"{wanted.data} cannot be exported in the form {wanted.form}", fix)
    if wanted.data == "pairs" and wanted.only_deliberated:
        raise UsageError("pairs do not say which of their turns are deliberated", "leave out --only-deliberated")


def _turns(context: Context, wanted: Wanted) -> Iterator[Row]:
    """The rows of all trajectories."""
    chosen = (each for each in _trajectories(context, wanted.data) if each.reward >= _least(wanted))
    return chain.from_iterable(rows_of(context.preamble, each, wanted) for each in chosen)


def _pairs(context: Context, wanted: Wanted) -> Iterator[Row]:
    """The rows of all pairs: the columns that TRL's `DPOTrainer` reads, and what the pair is about."""
    for pair in context.run.pairs():
        if pair.chosen_reward >= _least(wanted):
            yield {
                "id": pair.id,
                "place": pair.place,
                "prompt": _openai(pair_prompt(context.preamble, pair)),
                "chosen": _openai(as_messages(pair.chosen)),
                "rejected": _openai(as_messages(pair.rejected)),
                "chosen_reward": pair.chosen_reward,
                "rejected_reward": pair.rejected_reward,
            }


def _least(wanted: Wanted) -> float:
    return -math.inf if wanted.min_reward is None else wanted.min_reward


def _trajectories(context: Context, data: str) -> Iterable[Trajectory]:
    run = context.run
    match data:
        case "expert":
            return run.trajectories()
        case "deliberations":
            return run.deliberations()
        case "rft" | "knowagent" | "wkm":
            return Records(run.training_data(data), Trajectory)
    raise unknown_name("data", data, get_args(ExportData))


def rows_of(preamble: Sequence[Message], trajectory: Trajectory, wanted: Wanted) -> Iterator[Row]:
    """The rows of a trajectory."""
    deliberated = [step.deliberated for step in trajectory.steps]
    about = {"id": trajectory.id, "reward": trajectory.reward}
    messages = training_messages(preamble, trajectory)
    if wanted.form == "prompt-completion":
        first = len(messages) - 2 * len(deliberated) + 1
        for t, chosen in enumerate(deliberated):
            turn = first + 2 * t
            if chosen or not wanted.only_deliberated:
                yield {**about, "step": t, "prompt": _openai(messages[:turn]), "completion": _openai([messages[turn]])}
    elif messages and (any(deliberated) or not wanted.only_deliberated):
        if wanted.form == "messages":
            yield {**about, "messages": _openai(messages)}
        else:
            said = [{"from": _SPEAKERS[message.role], "value": message.content} for message in messages]
            yield {**about, "conversations": said}


def _openai(messages: Sequence[Message]) -> list[Row]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _write(file: Path, rows: Iterator[Row]) -> int:
    if file.suffix == ".jsonl":
        written = 0

        def lines() -> Iterator[bytes]:
            nonlocal written
            for row in rows:
                yield msgspec.json.encode(row) + b"\n"
                written += 1

        write_atomic(file, lines())
        return written
    require_package("datasets", "a parquet file")
    from datasets import Dataset

    table = Dataset.from_list(list(rows))
    temporary = file.with_name(file.name + ".tmp")
    table.to_parquet(temporary)
    rename_durably(temporary, file)
    return len(table)
