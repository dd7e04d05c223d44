"""Ways to damage files: cut them short, flip bits, drop or duplicate lines, put a folder in their place."""

from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], None]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\0" * 40 + content[len(content) // 2 + 40 :])


def delete_a_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))


def double_a_line(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines(keepends=True)[0])


def flip(path: Path) -> None:
    """Flip one bit in the middle, so that the file may still have a valid form."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def not_text(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x80
    path.write_bytes(content)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def other(path: Path) -> None:
    path.write_text("[1, 2]\n")


DAMAGE: list[Damage] = [cut, empty, zeros, flip, not_text, folder, other, Path.unlink]
"""Every kind of damage, whatever the file holds."""
