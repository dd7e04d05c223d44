"""Faults below the store: this process dies, or one system call fails, at the n-th change of a file.

Every call that changes files is a *point*: open for writing, write, fsync, rename, unlink, mkdir, truncate, lock. The
points of a stage have the same numbers in every run, since everything runs in one thread (see `tests.torture.inside`).
"""

import _io
import builtins
import errno
import fcntl
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from tests.torture.power import Unsynced

KILLS = ("kill", "half", "power")
"""Die before the call; die half-way through a write; die and lose everything that was not synced."""

ERRORS = ("EIO", "ENOSPC", "EDQUOT")
"""One call fails with EIO; from one call onwards, the disk or the quota is full."""

_ADDS = ("open", "write", "mkdir")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Plan(NamedTuple):
    """Which fault happens at which point; the first point is 1."""

    act: str
    at: int


NO_FAULT = Plan("", 0)


class Faults:
    """Counts the points of this process and carries out the plan. `told` is called with the point where it did."""

    def __init__(self, plan: Plan, told: Callable[[str], None], power: Unsynced | None) -> None:
        self._plan, self._told, self._power = plan, told, power
        self._real_write = os.write
        self.points = 0

    def install(self) -> None:
        """Intercept this process's system calls, permanently."""
        for name in ("fsync", "unlink", "remove", "rmdir", "mkdir", "ftruncate", "rename", "replace"):
            self._wrap(os, name)
        self._wrap(fcntl, "flock")
        os.write = self._write  # type: ignore[assignment]
        os.open = self._opening(os.open)
        builtins.open = io.open = _io.open = self._file_opening(io.open)

    def _wrap(self, module: Any, name: str) -> None:
        real = getattr(module, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.point(name, _name(arguments[0]))
            if self._power:
                self._power.before(name, *arguments, **named)
            return real(*arguments, **named)

        setattr(module, name, wrapped)

    def point(self, call: str, path: str, rest: Callable[[], object] = lambda: None) -> None:
        """A change of a file is about to happen; `rest` does half of it."""
        self.points += 1
        act, at = self._plan
        if not act or self.points < at or (self.points > at and (act not in ("ENOSPC", "EDQUOT") or call not in _ADDS)):
            return
        if self.points == at:
            self._told(f"{call} {Path(path).name}")
        if act in ERRORS:
            self._fail(act, call, path)
        else:
            self._die(act, rest)

    def _fail(self, act: str, call: str, path: str) -> None:
        number = getattr(errno, act)
        if act == "EIO" or call in _ADDS:
            raise OSError(number, os.strerror(number), path)

    def _die(self, act: str, rest: Callable[[], object]) -> NoReturn:
        if act == "half":
            rest()
        if act == "power" and self._power:
            self._power.cut()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def _write(self, descriptor: int, data: bytes) -> int:
        if descriptor > 2:
            self.point("write", _name(descriptor), lambda: self._real_write(descriptor, data[: len(data) // 2]))
            if self._power:
                self._power.before("write", descriptor)
        return self._real_write(descriptor, data)

    def _opening(self, real: Any) -> Any:
        def opening(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
            if flags & _WRITING:
                self.point("open", str(path))
                if self._power:
                    self._power.before("open", path)
            return int(real(path, flags, *arguments, **named))

        return opening

    def _file_opening(self, real: Any) -> Any:
        faults = self

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                content = bytes(data)
                faults.point("write", _name(self.fileno()), lambda: io.FileIO.write(self, content[: len(content) // 2]))
                if faults._power:
                    faults._power.before("write", self.fileno())
                return super().write(content)

        def opening(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+"):
                return real(file, mode, *arguments, **named)
            faults.point("open", str(file))
            if faults._power:
                faults._power.before("open", file)
            raw = Raw(file, mode.replace("b", "").replace("t", ""), opener=named.get("opener"))
            buffer: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            if "b" in mode:
                return buffer
            return io.TextIOWrapper(buffer, encoding=named.get("encoding") or "utf-8")

        return opening


def _name(of: Any) -> str:
    """The path of a path, a descriptor or a file."""
    if hasattr(of, "fileno"):
        of = of.fileno()
    return str(Path(f"/proc/self/fd/{of}").readlink()) if isinstance(of, int) else str(of)
