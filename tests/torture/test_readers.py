"""A fuzz target: whatever a file holds, its reader reads it, or refuses it in one line with a fix."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandcli.config import FILE, resolve
from sandcli.core import estimates
from sandcli.core.artifact import Artifact
from sandcli.core.store import Journal, Records
from sandcli.engines.adapters import adapter_config
from sandcli.engines.configs import stop_ids
from sandcli.engines.scripted import ScriptedEngine
from sandcli.envs.alfworld.files import read_game
from sandcli.errors import SandError
from sandcli.importers.rows import read_rows
from sandcli.models import differences, locate
from sandcli.panels.files import read_panel
from sandcli.panels.panel import written
from sandcli.records import Critique, Failure, Trajectory
from sandcli.stages.recorded import wanted_rows
from tests.panels.made_up import panel
from tests.toyworld import ToyWorld

NO_TOKENIZER = SimpleNamespace(eos_token_id=None)

WHOLE: dict[str, Any] = {
    "rows": [
        {"id": "fetch_0", "conversations": [{"from": "human", "value": "Go."}, {"from": "gpt", "value": "Action: go"}]}
    ],
    "rules": [{"when": "x", "replies": ["a", "b"]}],
    "manifest": {"stage": "sample", "identity": {"settings": {"a": "b"}, "inputs": {}, "scope": {"limit": "2"}}},
    "units": {'["fetch_0"]': "0123456789abcdef"},
    "failure": {"unit": ["fetch_0", 1], "reason": "engine", "detail": "out of order", "attempts": 3},
    "critique": {"id": "a", "step": 0, "candidate": 1, "action": "go", "reward": 0.5, "critique": "So.", "tokens": 3},
    "model": {"model_type": "llama", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1},
    "generation": {"eos_token_id": [1, 2], "temperature": 0.6},
    "adapter": {"base_model_name_or_path": "/base", "r": 8, "rank_pattern": {"layer": 4}},
    "game": {"pddl_domain": "(domain alfred)", "pddl_problem": "(:domain alfred)", "grammar": "x", "solvable": True},
    "panel": json.loads(written(panel())),
    "past": {
        "kind": {"stage": "sample", "world": "toy", "engine": "scripted", "model": 0},
        "spent": {},
        "finished": "",
    },
}


def _artifact(path: Path) -> Artifact[Critique]:
    """The artifact that a note belongs to."""
    return Artifact(path.parent.parent, "critique", "critiques.jsonl", Critique, ())


def _journal(path: Path) -> None:
    journal = Journal(path, Critique)
    list(journal)
    journal.close()


class Reader(NamedTuple):
    """`read` reads the file `name`; `whole` is a valid example."""

    name: str
    whole: str
    read: Callable[[Path], object]


READERS = [
    Reader("rows.json", "rows", lambda path: wanted_rows(ToyWorld(), path, read_rows(path))),
    Reader("rules.json", "rules", ScriptedEngine.load),
    Reader("manifests/critique.json", "manifest", lambda path: _artifact(path).manifest()),
    Reader("manifests/critique.json.part", "manifest", lambda path: _artifact(path).manifest(part=True)),
    Reader("manifests/critique.units.json", "units", lambda path: _artifact(path).digests()),
    Reader("manifests/critique.failures.jsonl", "failure", lambda path: _artifact(path).failures()),
    Reader("failures.jsonl", "failure", lambda path: list(Records(path, Failure))),
    Reader("critiques.jsonl", "critique", lambda path: list(Records(path, Critique))),
    Reader("damage.jsonl", "critique", lambda path: Records(path, Critique).find_damage()),
    Reader("expert.jsonl", "critique", lambda path: list(Records(path, Trajectory))),
    Reader("critiques.jsonl.part", "critique", _journal),
    Reader("model/config.json", "model", lambda path: differences(locate(str(path.parent)), path.parent)),
    Reader("model/generation_config.json", "generation", lambda path: stop_ids(path.parent, NO_TOKENIZER)),
    Reader("model/adapter_config.json", "adapter", lambda path: adapter_config(path.parent).rank),
    Reader("game.tw-pddl", "game", read_game),
    Reader("panel.json", "panel", lambda path: read_panel(str(path))),
    Reader("cache/sand/history.jsonl", "past", lambda path: estimates._past_runs()),
    Reader(FILE, "model", lambda path: resolve(path.parent, {}, {})),
]

PIECES = st.sampled_from(
    [
        b"",
        b"null",
        b"NaN",
        b"1e400",
        b"-1",
        b'"',
        b"\\ud800",
        b"\x00",
        b"\xff",
        b"\n",
        b"[",
        b"{}",
        b"[[]]",
        b"\xef\xbb\xbf",
    ]
)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The file with up to three pieces replaced, or arbitrary content."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=30) | st.just(b"[" * 100_000) | st.just(whole.decode().encode("utf-16")))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(whole)))
        end = draw(st.integers(start, min(len(whole), start + 12)))
        whole = whole[:start] + draw(PIECES | st.binary(max_size=3)) + whole[end:]
    return whole


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_content_is_read_or_refused_in_one_line(tmp_path: Path, reader: Reader, data: st.DataObject) -> None:
    path = tmp_path / reader.name
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = b"[sample]\nn = 3\n" if reader.name == FILE else json.dumps(WHOLE[reader.whole]).encode() + b"\n"
    path.write_bytes(data.draw(damaged(whole)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        try:
            reader.read(path)
        except SandError as error:
            assert "\n" not in error.what and error.fix
            assert path.name in error.what or str(path.parent) in error.what


@pytest.mark.parametrize("reader", READERS[:-1], ids=lambda reader: reader.name)
def test_key_with_half_a_character_is_read_or_refused_in_one_line(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON can hold one, and UTF-8 cannot."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / reader.name
    path.parent.mkdir(parents=True, exist_ok=True)
    before, *after = json.dumps(WHOLE[reader.whole]).split('": ')
    for place in range(len(after)):
        keys = [r'\ud800": ' if place == number else '": ' for number in range(len(after))]
        path.write_text(before + "".join(key + rest for key, rest in zip(keys, after, strict=True)) + "\n")
        try:
            reader.read(path)
        except SandError as error:
            assert "\n" not in error.what and error.fix


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_folder_in_place_of_a_file_is_refused_in_one_line(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / reader.name
    path.mkdir(parents=True)
    try:
        reader.read(path)
    except SandError as error:
        assert "\n" not in error.what and error.fix
    except OSError as error:  # the command line reports these with the path
        assert str(path) in str(error)
