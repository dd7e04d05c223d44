"""Packing into pieces, and unpacking with a bare Python."""

import ensurepip
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from experiments.gpu.pieces import Source, folder_source, write_pieces
from experiments.gpu.unpack import unpack as unpack_here
from experiments.gpu.wheels import this_machine, this_python
from sandcli.errors import UsageError
from sandcli.files import write_atomic

HERE = {"python": this_python(), "machine": this_machine()}


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder of 2,508 bytes."""
    written(tmp_path / "m" / "config.json", b"{}      ")
    written(tmp_path / "m" / "weights" / "one.safetensors", bytes(range(250)) * 10)
    written(tmp_path / "m" / "empty", b"")
    return tmp_path / "m"


def packed(tmp_path: Path, model: Path, *others: Source) -> Path:
    write_pieces([folder_source("model-m", model, "models/m"), *others], tmp_path / "out", 1000, HERE)
    return tmp_path / "out"


def unpack(pieces: Path, into: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """With the standard library only, unless other options are given for Python."""
    command = [sys.executable, *(options or ("-I", "-S")), str(pieces / "unpack.py"), "--into", str(into)]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pieces_are_small_and_give_the_same_files(tmp_path: Path, model: Path) -> None:
    out = packed(tmp_path, model)
    assert sorted(path.stat().st_size for path in out.glob("model-m.*")) == [508, 1000, 1000]
    done = unpack(out, tmp_path / "far")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "far" / "models" / "m") == contents(model)


def test_piece_that_is_right_is_not_written_again(tmp_path: Path, model: Path) -> None:
    out = packed(tmp_path, model)
    damaged = written(out / "model-m.0002", b"?")
    (out / "model-m.0003").unlink()
    before = (out / "model-m.0001").stat().st_ino, damaged.stat().st_ino
    packed(tmp_path, model)
    assert ((out / "model-m.0001").stat().st_ino == before[0], damaged.stat().st_ino == before[1]) == (True, False)
    assert unpack(out, tmp_path / "far").returncode == 0


def test_pieces_of_an_earlier_call_go(tmp_path: Path, model: Path) -> None:
    run = written(tmp_path / "run" / "sand.toml", b"")
    written(tmp_path / "run" / "samples.lock", b"")
    out = packed(tmp_path, model, folder_source("run-x", run.parent, "runs/x"))
    (model / "weights" / "one.safetensors").write_bytes(b"small")
    written(out / "mine.0001", b"of somebody else")
    packed(tmp_path, model)
    assert {path.name for path in out.iterdir()} == {"model-m.0001", "mine.0001", "pieces.json", "unpack.py"}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs that share a model of 2,000 bytes, and have a file of their own."""
    shared = written(tmp_path / "x" / "a" / "sft" / "weights", bytes(range(200)) * 10)
    other = written(tmp_path / "x" / "b" / "sft" / "config.json", b"{}").with_name("weights")
    os.link(shared, other)
    written(tmp_path / "x" / "b" / "z.jsonl", b"of b")
    return tmp_path / "x"


def packed_runs(tmp_path: Path, runs: Path) -> Path:
    write_pieces([folder_source("run-x", runs, "runs/x")], tmp_path / "out", 1000, HERE)
    return tmp_path / "out"


def test_file_with_two_names_is_packed_once_and_linked_again(tmp_path: Path, runs: Path) -> None:
    out = packed_runs(tmp_path, runs)
    assert sum(path.stat().st_size for path in out.glob("run-x.*")) == 2006
    done = unpack(out, tmp_path / "far")
    assert done.returncode == 0, done.stderr
    far = tmp_path / "far" / "runs" / "x"
    assert contents(far) == contents(runs)
    assert (far / "a" / "sft" / "weights").samefile(far / "b" / "sft" / "weights")


def test_file_with_two_names_is_copied_where_there_are_no_links(
    tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    unpack_here(packed_runs(tmp_path, runs), tmp_path / "far")
    far = tmp_path / "far" / "runs" / "x"
    assert contents(far) == contents(runs)
    assert not (far / "a" / "sft" / "weights").samefile(far / "b" / "sft" / "weights")


def test_file_that_was_a_link_in_an_interrupted_call_is_one_of_its_own(tmp_path: Path, runs: Path) -> None:
    unpack(packed_runs(tmp_path, runs), tmp_path / "far")
    marks = tmp_path / "far" / ".unpacked"
    (marks / "run-x").rename(marks / "run-x.begun")
    (runs / "b" / "sft" / "weights").unlink()
    written(runs / "b" / "sft" / "weights", b"trained anew")
    assert unpack(packed_runs(tmp_path, runs), tmp_path / "far").returncode == 0
    assert contents(tmp_path / "far" / "runs" / "x") == contents(runs)


def test_interrupted_call_is_repeated_over_its_links(tmp_path: Path, runs: Path) -> None:
    out = packed_runs(tmp_path, runs)
    unpack(out, tmp_path / "far")
    marks = tmp_path / "far" / ".unpacked"
    (marks / "run-x").rename(marks / "run-x.begun")
    done = unpack(out, tmp_path / "far")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "far" / "runs" / "x") == contents(runs)


def test_file_that_grows_meanwhile_leaves_the_next_whole(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = contents(model)

    def write_while_growing(path: Path, chunks: list[bytes]) -> None:
        with (model / "config.json").open("ab") as file:
            file.write(b"more")
        write_atomic(path, chunks)

    monkeypatch.setattr("experiments.gpu.pieces.write_atomic", write_while_growing)
    assert unpack(packed(tmp_path, model), tmp_path / "far").returncode == 0
    assert contents(tmp_path / "far" / "models" / "m") == wanted


def test_pieces_that_are_missing_or_damaged_are_named(tmp_path: Path, model: Path) -> None:
    out = packed(tmp_path, model)
    written(out / "model-m.0002", b"?" * 1000)
    (out / "model-m.0003").unlink()
    done = unpack(out, tmp_path / "far")
    assert done.returncode == 1
    assert "damaged: model-m.0002\nmissing: model-m.0003\n1 of 3 pieces are right" in done.stdout
    assert not (tmp_path / "far").exists()
    packed(tmp_path, model)
    assert unpack(out, tmp_path / "far").returncode == 0


def test_run_that_is_there_stays(tmp_path: Path, model: Path) -> None:
    run = written(tmp_path / "run" / "samples.jsonl", b"old")
    out = packed(tmp_path, model, folder_source("run-x", run.parent, "runs/x"))
    far = tmp_path / "far" / "runs" / "x" / "samples.jsonl"
    assert unpack(out, tmp_path / "far").returncode == 0 and far.read_bytes() == b"old"
    far.write_bytes(b"continued there")
    run.write_bytes(b"continued here")
    packed(tmp_path, model, folder_source("run-x", run.parent, "runs/x"))
    assert "stays as it is" in unpack(out, tmp_path / "far").stdout
    assert far.read_bytes() == b"continued there"


def test_changed_model_keeps_no_old_file(tmp_path: Path, model: Path) -> None:
    out = packed(tmp_path, model)
    unpack(out, tmp_path / "far")
    (model / "empty").unlink()
    packed(tmp_path, model)
    assert unpack(out, tmp_path / "far").returncode == 0
    assert contents(tmp_path / "far" / "models" / "m") == contents(model)


@pytest.mark.parametrize("names", [["x/../../evil"], ["x/good", "x/../../evil"]])
def test_file_outside_the_target_is_refused(tmp_path: Path, model: Path, names: list[str]) -> None:
    packed(tmp_path, model, Source("bad", dict.fromkeys(names, model / "config.json")))
    done = unpack(tmp_path / "out", tmp_path / "far")
    assert done.returncode == 2 and "has a file outside" in done.stderr
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"python": "3", "machine": "x", "parts": [{"name": 1}]}'])
def test_damaged_list(tmp_path: Path, model: Path, text: str) -> None:
    out = packed(tmp_path, model)
    (out / "pieces.json").write_text(text)
    done = unpack(out, tmp_path / "far")
    assert done.returncode == 1 and "pieces.json is damaged" in done.stderr and "Traceback" not in done.stderr


def test_missing_list(tmp_path: Path, model: Path) -> None:
    out = packed(tmp_path, model)
    (out / "pieces.json").unlink()
    done = unpack(out, tmp_path / "far")
    assert done.returncode == 1 and "pieces.json is missing" in done.stderr


def test_wheels_for_another_python_are_refused(tmp_path: Path, model: Path) -> None:
    wheel = Source("wheels", {"wheels/a.whl": model / "config.json"})
    write_pieces([wheel], tmp_path / "out", 1000, {"python": "2.7", "machine": "x86_64"})
    done = unpack(tmp_path / "out", tmp_path / "far")
    assert done.returncode == 2 and "the wheels are for Python 2.7" in done.stderr


def test_folder_without_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder with files"):
        folder_source("model-x", tmp_path / "none", "models/x")


@pytest.mark.slow
def test_wheels_are_installed_once(tmp_path: Path) -> None:
    (pip,) = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    fake = fake_sand(tmp_path / "sandcli-1-py3-none-any.whl")
    wheels = Source("wheels", {f"wheels/{path.name}": path for path in (pip, fake)})
    write_pieces([wheels], tmp_path / "out", 2**20, HERE)
    made = set()
    for _ in range(2):
        done = unpack(tmp_path / "out", tmp_path / "far", "-I")
        assert done.returncode == 0, done.stderr
        assert "sand was called with doctor" in done.stdout
        made.add((tmp_path / "far" / "venv" / "installed").stat().st_mtime_ns)
    assert len(made) == 1
    python = tmp_path / "far" / "venv" / "bin" / "python"
    assert subprocess.run([python, "-I", "-c", "import msgspec"]).returncode == 0, "it sees the packages of this Python"


def fake_sand(path: Path) -> Path:
    """A wheel whose `sand` only says how it was called."""
    info = "sandcli-1.dist-info"
    files = {
        "sandcli.py": "import sys\ndef main():\n    print('sand was called with', *sys.argv[1:])\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: sandcli\nVersion: 1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nsand = sandcli:main\n",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]))
    return path
