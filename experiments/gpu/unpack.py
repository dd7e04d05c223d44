"""Joins the pieces that `pack` made and installs `sand`: python3 unpack.py --into DIR [PIECES].

Needs only Python's standard library and no network. Call it after every transfer: it says which pieces are missing or
damaged, and installs once all are there.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

LIST = "pieces.json"
"""The list of all pieces, and of the files that they hold. It is written last."""

RUNS = "runs"
"""The folder of run directories. Those that are there already are never overwritten."""

MODELS = "models"
"""The folder of model folders."""

WHEELS = "wheels", "vllm"
"""The parts that are installed."""

_BLOCK = 2**20
_INCOMPLETE, _USAGE, _FAILED = 1, 2, 3


class Stop(Exception):
    """Ends the program: one line that says what is wrong, one that says how to fix it, and the exit code."""

    def __init__(self, code: int, what: str, fix: str) -> None:
        super().__init__(f"error: {what}\n  fix: {fix}")
        self.code = code


class Piece(NamedTuple):
    """One file of the transfer: the bytes of a part from some place on."""

    name: str
    size: int
    sha256: str

    def state(self, folder: Path) -> str:
        """`right`, `missing` or `damaged`."""
        path = folder / self.name
        if not path.is_file():
            return "missing"
        return "right" if path.stat().st_size == self.size and sha256(path) == self.sha256 else "damaged"


class Part(NamedTuple):
    """What belongs together, such as a model: files by their path below the target folder, and their sizes.

    The pieces in their order are the contents of the files in their order. `links` are further names of files: each
    with the file that it names.
    """

    name: str
    files: list[tuple[str, int]]
    links: list[tuple[str, str]]
    pieces: list[Piece]

    @property
    def mark(self) -> str:
        """A text that differs for other content."""
        return hashlib.sha256(repr((self.files, self.links, self.pieces)).encode()).hexdigest()


def sha256(path: Path) -> str:
    """The hash of a file."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def read_list(folder: Path) -> tuple[dict[str, str], list[Part]]:
    """For which machine the pieces were made (`python`, `machine`), and the parts."""
    try:
        content: dict[str, Any] = json.loads((folder / LIST).read_text())
        return {name: str(content[name]) for name in ("python", "machine")}, [_part(part) for part in content["parts"]]
    except FileNotFoundError:
        raise Stop(_INCOMPLETE, f"{folder / LIST} is missing", "copy it there; it lists all pieces") from None
    except (ValueError, KeyError, TypeError) as error:
        raise Stop(_INCOMPLETE, f"{folder / LIST} is damaged: {error}", "copy it there again") from None


def _part(part: dict[str, Any]) -> Part:
    files = [(str(name), int(size)) for name, size in part["files"]]
    links = [(str(name), str(file)) for name, file in part["links"]]
    pieces = [Piece(str(name), int(size), str(digest)) for name, size, digest in part["pieces"]]
    return Part(str(part["name"]), files, links, pieces)


def refuse_incomplete(folder: Path, parts: list[Part]) -> None:
    """Name the pieces that are missing or damaged, and stop if there are any."""
    pieces = [piece for part in parts for piece in part.pieces]
    states = {piece.name: piece.state(folder) for piece in pieces}
    wrong = {name: state for name, state in states.items() if state != "right"}
    for name, state in wrong.items():
        print(f"{state}: {name}")
    print(f"{len(pieces) - len(wrong)} of {len(pieces)} pieces are right", flush=True)
    if wrong:
        raise Stop(_INCOMPLETE, f"{len(wrong)} pieces are missing or damaged", "copy them, then run this again")


def join(folder: Path, part: Part, into: Path) -> None:
    """Write the files of a part, unless they were written before."""
    marks = into / ".unpacked"
    done, begun = marks / part.name, marks / f"{part.name}.begun"
    if done.is_file() and done.read_text() == part.mark:
        return
    kind, name = Path(part.files[0][0]).parts[:2]
    target = into / kind / name
    if kind == RUNS and target.exists() and not begun.exists():
        print(f"{target} is there already and stays as it is; move it away to get the packed one")
        return
    marks.mkdir(parents=True, exist_ok=True)
    begun.touch()
    if kind == MODELS:
        shutil.rmtree(target, ignore_errors=True)  # a file of another version would make it another model
    _write_files(folder, part, into)
    done.write_text(part.mark)
    begun.unlink()
    print(f"unpacked {part.name}", flush=True)


def _write_files(folder: Path, part: Part, into: Path) -> None:
    stream, rest = _bytes_of(folder, part), b""
    for name, size in part.files:
        rest = _write(_fresh(into, name), size, rest, stream)
    for name, file in part.links:
        _link(_inside(into, file), _fresh(into, name))


def _bytes_of(folder: Path, part: Part) -> Iterator[bytes]:
    for piece in part.pieces:
        with (folder / piece.name).open("rb") as content:
            while block := content.read(_BLOCK):
                yield block


def _inside(into: Path, name: str) -> Path:
    """The path of a file of a part. Stops if that is not below the target folder."""
    path = into / name
    if not path.resolve().is_relative_to(into.resolve()):
        raise Stop(_USAGE, f"the list has a file outside {into}: {name}", "get the pieces from someone you trust")
    return path


def _fresh(into: Path, name: str) -> Path:
    """A path without a file, in a folder that exists. What an interrupted call wrote there may be a link of another."""
    path = _inside(into, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return path


def _link(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:  # a file system without hard links
        shutil.copyfile(file, name)


def _write(path: Path, size: int, rest: bytes, stream: Iterator[bytes]) -> bytes:
    """Write a file from the stream; `rest` are bytes that were read before. Returns what was read beyond its end."""
    with path.open("wb") as file:
        while size:
            block = rest or next(stream)
            file.write(block[:size])
            rest, size = block[size:], max(0, size - len(block))
    return rest


def refuse_other_python(made_for: dict[str, str]) -> None:
    """Stop if the wheels are for another version of Python or another processor."""
    here = {"python": ".".join(map(str, sys.version_info[:2])), "machine": platform.machine()}
    if here != made_for:
        wanted, found = (f"Python {each['python']} on {each['machine']}" for each in (made_for, here))
        raise Stop(_USAGE, f"the wheels are for {wanted}, and this is {found}", "pack again with --python or --machine")


def install(into: Path, wheels: list[Path], mark: str) -> Path:
    """Make the virtual environment, which sees the packages of this Python too. Returns its `sand`."""
    home, python = into / "venv", into / "venv" / "bin" / "python"
    done = home / "installed"
    if not (done.is_file() and done.read_text() == mark):
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, system_site_packages=True, with_pip=False)
        if sys.prefix != sys.base_prefix:
            _see_outer_environment(home)
        _pip(python, wheels)
        done.write_text(mark)
    return home / "bin" / "sand"


def _see_outer_environment(home: Path) -> None:
    """If this Python is itself in a virtual environment, the new one would see only the Python below that."""
    lines = [f"import site; site.addsitedir({folder!r})\n" for folder in site.getsitepackages()]
    (found,) = home.glob("lib/python*/site-packages")
    (found / "outer.pth").write_text("".join(lines))


def _pip(python: Path, wheels: list[Path]) -> None:
    """Install wheels with the packed pip: this machine may have none."""
    (pip,) = (wheel for wheel in wheels if wheel.name.startswith("pip-"))
    command = [str(python), f"{pip}/pip"]
    options = ["install", "--quiet", "--no-index", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"]
    packages = [str(wheel) for wheel in wheels if wheel != pip]
    if subprocess.run([*command, *options, *packages]).returncode:
        raise Stop(_FAILED, "pip could not install the wheels; its output is above", "see docs/gpu.md")
    print("packages whose versions do not fit together, if any:", flush=True)
    subprocess.run([*command, "check"])


def unpack(pieces: Path, into: Path) -> None:
    """Check the pieces, join them, install `sand` and print what `sand doctor` finds."""
    made_for, parts = read_list(pieces)
    refuse_incomplete(pieces, parts)
    with_wheels = [part for part in parts if part.name in WHEELS]
    if with_wheels:
        refuse_other_python(made_for)
    for part in parts:
        join(pieces, part, into)
    if not with_wheels:
        return
    wheels = [into / name for part in with_wheels for name, _ in (*part.files, *part.links)]
    sand = install(into.absolute(), [wheel.absolute() for wheel in wheels], repr([part.mark for part in with_wheels]))
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if subprocess.run([sand, "doctor"], env=offline).returncode:
        print("note: `sand doctor` says that something is missing; the embedded model is needed by default runs only")
    print(f"next: cd {into} && venv/bin/python -m experiments.gpu.check --model models/NAME")


def main() -> int:
    """Read the command line; returns 0, 1 (pieces are missing), 2 (wrong use) or 3 (the installation failed)."""
    parser = argparse.ArgumentParser(description="Join the pieces and install sand; no network is needed.")
    parser.add_argument("pieces", nargs="?", type=Path, default=Path(__file__).parent, help="default: beside this file")
    parser.add_argument("--into", type=Path, required=True, help="the folder to unpack into")
    given = parser.parse_args()
    try:
        unpack(given.pieces, given.into)
    except Stop as stop:
        print(stop, file=sys.stderr)
        return stop.code
    except OSError as error:
        print(f"error: {error}\n  fix: free space, or use another folder for --into", file=sys.stderr)
        return _FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
