"""Rows from every kind of data source, and errors that name the file, the line and the fix."""

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandcli.errors import PrerequisiteError, SandError
from sandcli.importers import rows
from sandcli.importers.rows import locate_data, read_rows
from sandcli.models import nothing_fetched

ROWS = [{"id": "a", "conversations": []}, {"id": "b", "messages": [{"role": "user", "content": "\u2028é"}]}]
TEXT = json.dumps(ROWS)
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n"
FORMS: dict[str, bytes] = {
    "rows.json": TEXT.encode(),
    "rows.jsonl": LINES.encode(),
    "lines-called.json": LINES.encode(),
    "marked.json": TEXT.encode("utf-8-sig"),
    "marked.jsonl": LINES.encode("utf-16"),
    "rows.json.gz": gzip.compress(TEXT.encode()),
    "rows.jsonl.xz": lzma.compress(LINES.encode()),
}


def contents(path: Path) -> list[Any]:
    return [row.content for row in read_rows(path)]


def parquet(path: Path, table: dict[str, list[Any]]) -> Path:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow.parquet import write_table

    write_table(arrow.table(table), path)
    return path


def fails(call: Callable[[], object]) -> str:
    with pytest.raises(SandError) as caught:
        call()
    assert caught.value.fix
    assert "\n" not in caught.value.what
    return caught.value.what


@pytest.mark.parametrize("name", FORMS)
def test_file_of_any_format_gives_its_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FORMS[name])
    assert contents(tmp_path / name) == ROWS


def test_characters_that_utf8_cannot_hold_are_replaced_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"id": "You \udc80 go \U0001f4a1."}]))
    assert contents(path) == [{"id": "You \ufffd go \U0001f4a1."}]
    assert capsys.readouterr().err == f"{path}: 1 characters that UTF-8 cannot hold were replaced\n"


def test_row_names_its_place(tmp_path: Path) -> None:
    for name, where in (("rows.json", "row 2"), ("rows.jsonl", "line 2")):
        (tmp_path / name).write_bytes(FORMS[name])
        assert [row.where for row in read_rows(tmp_path / name)][1] == where


def test_folder_gives_the_rows_of_all_its_data_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "b.jsonl").write_text('{"id": "b"}\n')
    (tmp_path / "a.json").write_text('[{"id": "a"}]')
    (tmp_path / "README.md").write_text("# Data")
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert contents(tmp_path) == [{"id": "a"}, {"id": "b"}]


def test_folder_without_data_is_an_error(tmp_path: Path) -> None:
    assert fails(lambda: contents(tmp_path)) == f"{tmp_path} holds no data files"


def test_parquet_gives_its_rows(tmp_path: Path) -> None:
    path = parquet(tmp_path / "rows.parquet", {"id": ["a"], "conversations": [[{"from": "gpt", "value": "OK"}]]})
    assert contents(path) == [{"id": "a", "conversations": [{"from": "gpt", "value": "OK"}]}]


def test_parquet_without_the_column_of_messages_is_an_error_that_names_its_columns(tmp_path: Path) -> None:
    path = parquet(tmp_path / "rows.parquet", {"id": ["a"], "text": ["b"]})
    assert fails(lambda: contents(path)) == f"{path}: no column conversations or messages; it has id, text"


def test_damaged_parquet_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 or not")
    assert fails(lambda: contents(path)).startswith(f"{path}: not parquet: ")


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b'[\n{"id": "a",\n oops}]', ":3"),
        (b'{"id": "a"}\n\n{"id": oops}\n', ":3"),
        (b'{\n  "id": "a"\n}', ":1"),
        (b'["\xff"]', ""),
        (b"[" * 100_000, ""),
        (b"[" + b"1" * 5000 + b"]", ""),
    ],
)
def test_invalid_json_is_an_error_with_its_line(tmp_path: Path, content: bytes, where: str) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    assert fails(lambda: contents(path)).startswith(f"{path}{where}: not JSON: ")


@pytest.mark.parametrize("content", ["", "[]", "3", '"rows"', "[1, 2]"])
def test_file_without_rows_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(content)
    assert fails(lambda: contents(path)) == f"{path}: not a list of rows"


def test_damaged_archive_is_an_error(tmp_path: Path) -> None:
    for name, content in (("a.json.gz", FORMS["rows.json.gz"][:-9]), ("a.json.xz", b"no archive")):
        (tmp_path / name).write_bytes(content)
        assert fails(lambda name=name: contents(tmp_path / name)).startswith(f"{tmp_path / name}: ")  # type: ignore[misc]


@pytest.mark.parametrize("name", ["none.json", "data/none.jsonl", "a/b/c", "./a/b", "~no-such-user/rows.json"])
def test_missing_file_is_named(name: str) -> None:
    assert fails(lambda: locate_data(name)) == f"{name}: No such file or directory"


def test_hub_data_set_or_one_of_its_files_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(name: str, **more: Any) -> str:
        asked.append((name, more))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    rows._from_hub.cache_clear()
    (tmp_path / "a.json").write_text("[]")
    assert locate_data("owner/name") == tmp_path
    assert locate_data("owner/name:a.json") == tmp_path / "a.json"
    assert asked[0][0] == "owner/name" and "*.parquet" in asked[0][1]["allow_patterns"]
    assert asked[1][1] == {"repo_type": "dataset", "allow_patterns": ["a.json"], "local_files_only": False}
    with nothing_fetched():
        locate_data("owner/name")
    assert asked[2][1]["local_files_only"] is True
    assert fails(lambda: locate_data("owner/name:b.json")) == "the data set owner/name has no file b.json"
    rows._from_hub.cache_clear()


def test_unreachable_hub_is_one_line_that_says_what_to_do_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str, **more: object) -> str:
        raise ConnectionError("no route to the hub\nand more lines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    rows._from_hub.cache_clear()
    with pytest.raises(PrerequisiteError, match=r"owner/name is not a file here.*: no route to the hub$") as caught:
        locate_data("owner/name")
    assert "without a network, download the data set elsewhere" in caught.value.fix
    with nothing_fetched():
        assert fails(lambda: locate_data("owner/name")) == "data set owner/name is not on this machine yet"
