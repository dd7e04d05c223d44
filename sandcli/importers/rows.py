"""Reads rows of recorded trajectories from JSON, JSON lines, parquet, or a data set on the hub.

JSON files may be compressed (.gz, .xz). A folder means all such files in it.
"""

import functools
import gzip
import json
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sandcli.errors import PrerequisiteError, UsageError
from sandcli.models import may_fetch, require_package
from sandcli.progress import notice
from sandcli.records import storable

CONVERSATIONS = ("conversations", "messages")
"""The fields that may hold a row's messages."""

_JSON = (".json", ".jsonl", ".ndjson")
_OPENERS: dict[str, Callable[[Path, Any], Any]] = {".gz": gzip.open, ".xz": lzma.open}
_PATTERNS = [f"*{suffix}{packed}" for suffix in _JSON for packed in ("", *_OPENERS)] + ["*.parquet"]
_NO_ROWS = "dataset_infos.json"
_HUB = re.compile(r"(?P<id>[\w-][\w.-]*/[\w.-]+)(:(?P<file>.+))?")
_FORMS = "use a JSON list, JSON lines or parquet, with one trajectory per row"


class Row(NamedTuple):
    """One row as it was read, and its place in the data."""

    where: str
    content: Any


def locate_data(name: str) -> Path:
    """The file or folder of a data source: a path, or `OWNER/NAME` or `OWNER/NAME:FILE` on the hub, downloaded once.

    Raises `UsageError` if there is no such file, `PrerequisiteError` if the hub does not provide the data set.
    """
    path = Path(os.path.expanduser(name))  # noqa: PTH111  (Path.expanduser raises if there is no such home)
    if path.exists():
        return path
    found = _HUB.fullmatch(name)
    if found and not _is_data(Path(found["id"])):
        return _from_hub(found["id"], found["file"], may_fetch())
    raise UsageError(
        f"{name}: No such file or directory",
        "use the path of a JSON file, JSON lines or parquet, or the id of a hub data set (OWNER/NAME)",
    )


@functools.cache  # stages call this often, and the hub is slow
def _from_hub(name: str, file: str | None, fetch: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = [file] if file else _PATTERNS
        folder = Path(snapshot_download(name, repo_type="dataset", allow_patterns=patterns, local_files_only=not fetch))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        if not fetch:
            raise PrerequisiteError(
                f"data set {name} is not on this machine yet", "sand collect downloads it"
            ) from error
        why = str(error).strip().splitlines()[0]
        raise PrerequisiteError(
            f"{name} is not a file here, and the hub does not provide it as a data set: {why}",
            "check the id; without a network, download the data set elsewhere, copy it here and name its file",
        ) from error
    if file and not (folder / file).exists():
        raise UsageError(
            f"the data set {name} has no file {file}", "name one of its files, or no file to take all of them"
        )
    return folder / file if file else folder


def read_rows(path: Path) -> Iterator[Row]:
    """Every row of a file, or of all files in a folder. Raises `UsageError` with the line or column at fault."""
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if _is_data(file) and file.name != _NO_ROWS)
    if not files:
        raise UsageError(f"{path} holds no data files", _FORMS)
    for file in files:
        try:
            yield from _parquet(file) if file.suffix == ".parquet" else _json(file)
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise UsageError(f"{file}: {getattr(error, 'strerror', None) or error}", _FORMS) from None


def _is_data(path: Path) -> bool:
    return any(path.match(pattern) for pattern in _PATTERNS)


def _parquet(path: Path) -> Iterator[Row]:
    require_package("pyarrow", "reading parquet")
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import read_table

    try:
        table = read_table(path)
    except ArrowInvalid as error:
        raise UsageError(f"{path}: not parquet: {str(error).splitlines()[0]}", _FORMS) from None
    if not set(CONVERSATIONS) & set(table.column_names):
        raise UsageError(
            f"{path}: no column {' or '.join(CONVERSATIONS)}; it has {', '.join(table.column_names)}",
            "rename the column of messages, or choose another file",
        )
    for number, content in enumerate(table.to_pylist(), 1):
        yield Row(f"row {number}", content)


def _json(path: Path) -> list[Row]:
    with _OPENERS.get(path.suffix, open)(path, "rb") as file:
        content = file.read()
    try:
        text = content.decode(json.detect_encoding(content))  # any form of Unicode, with or without a mark
        whole = text.lstrip().startswith("[")
        rows = [Row(f"row {n}", row) for n, row in enumerate(json.loads(text), 1)] if whole else _json_lines(text)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, numbers too long, lists too deep
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UsageError(f"{path}{line}: not JSON: {error}", _FORMS) from None
    if not any(isinstance(row.content, dict) for row in rows):
        raise UsageError(f"{path}: not a list of rows", _FORMS)
    return _storable(path, rows)


def _storable(path: Path, rows: list[Row]) -> list[Row]:
    """The rows with every character replaced that UTF-8 cannot hold; a notice says how many."""
    text, replaced = storable(json.dumps([row.content for row in rows], ensure_ascii=False))
    if not replaced:
        return rows
    notice(f"{path}: {replaced} characters that UTF-8 cannot hold were replaced")
    return [row._replace(content=content) for row, content in zip(rows, json.loads(text), strict=True)]


def _json_lines(text: str) -> list[Row]:
    rows, at = [], 0
    for number, line in enumerate(text.split("\n"), 1):
        try:
            if line.strip():
                rows.append(Row(f"line {number}", json.loads(line)))
        except json.JSONDecodeError as error:
            raise json.JSONDecodeError(error.msg, text, at + error.pos) from None
        at += len(line) + 1
    return rows
