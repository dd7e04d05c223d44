"""Cuts files into pieces of a limited size. Pieces that are already right are left alone."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.gpu import unpack
from experiments.gpu.unpack import LIST, Part, Piece
from sandcli.errors import UsageError
from sandcli.files import write_atomic


class Source(NamedTuple):
    """What a part is made of: files, by their path below the target folder."""

    name: str
    files: Mapping[str, Path]


def folder_source(name: str, folder: Path, target: str) -> Source:
    """All files of a folder but locks. Raises `UsageError` if it has none."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    if not found:
        raise UsageError(f"{folder} is no folder with files", "correct --model or --run")
    return Source(name, {f"{target}/{path.relative_to(folder)}": path for path in found})


def write_pieces(sources: Sequence[Source], out: Path, piece_bytes: int, made_for: Mapping[str, str]) -> list[Part]:
    """Write the pieces of all parts, the list of them, and `unpack.py`. Pieces of an earlier call go if not needed."""
    out.mkdir(parents=True, exist_ok=True)
    before = _listed(out)
    parts = [_cut(source, out, piece_bytes) for source in sources]
    for name in before - {piece.name for part in parts for piece in part.pieces}:
        (out / name).unlink(missing_ok=True)
    shutil.copy(unpack.__file__, out / "unpack.py")
    write_atomic(out / LIST, [json.dumps({**made_for, "parts": [part._asdict() for part in parts]}).encode()])
    return parts


def _listed(out: Path) -> set[str]:
    try:
        return {piece.name for part in unpack.read_list(out)[1] for piece in part.pieces}
    except unpack.Stop:  # there is no list yet
        return set()


def _cut(source: Source, out: Path, piece_bytes: int) -> Part:
    """Every part begins with a new piece, so a change in one part does not change the pieces of others."""
    files, links = _distinct(source.files)
    sizes: dict[str, int] = {}
    pieces = []
    for number, content in enumerate(_pieces(files, piece_bytes, sizes), 1):
        piece = Piece(f"{source.name}.{number:04}", len(content), hashlib.sha256(content).hexdigest())
        if piece.state(out) != "right":
            write_atomic(out / piece.name, [content])
        pieces.append(piece)
    return Part(source.name, list(sizes.items()), links, pieces)


def _distinct(files: Mapping[str, Path]) -> tuple[dict[str, Path], list[tuple[str, str]]]:
    """The files without further names of the same file, and these names, each with the first one.

    The runs of an experiment share models as hard links.
    """
    first: dict[tuple[int, int], str] = {}
    links = []
    for name, path in files.items():
        found = path.stat()
        other = first.setdefault((found.st_dev, found.st_ino), name)
        if other != name:
            links.append((name, other))
    return {name: files[name] for name in first.values()}, links


def _pieces(files: Mapping[str, Path], size: int, sizes: dict[str, int]) -> Iterator[bytes]:
    """The contents of all files as pieces of `size` bytes, the last one smaller.

    Sets in `sizes` how many bytes were read of each file, which may be growing.
    """
    piece = bytearray()
    for name, path in files.items():
        with path.open("rb") as content:
            while block := content.read(size - len(piece)):
                piece += block
                if len(piece) == size:
                    yield bytes(piece)
                    piece.clear()
            sizes[name] = content.tell()
    if piece:
        yield bytes(piece)
