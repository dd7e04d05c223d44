"""Tries what `sand` does on GPUs and prints a table: python -m experiments.gpu.check --model DIR.

Every check has a process of its own, which may crash or take too long without ending the others. What needs no GPU is
also tried without one.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

_PACKAGES = ("torch", "transformers", "accelerate", "trl", "peft", "flash-attn", "vllm", "sandcli")

NAMES = (
    "bfloat16",
    "attention",
    "several trajectories at once",
    "sharding in one process",
    "training in two processes",
    "text on the GPU as on the CPU",
    "full training",
    "LoRA training",
    "vLLM",
)


class Line(NamedTuple):
    """A check: `passed`, `failed` or `not tried`, and what it saw or why."""

    name: str
    state: str
    seen: str


def run_check(name: str, model: Path, work: Path, seconds: float) -> Line:
    """Run a check in its own process, for so many seconds at most. Its output goes to a log in the folder `work`."""
    slug = name.replace(" ", "-")
    log, result = work / f"{slug}.log", work / f"{slug}.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "experiments.gpu.check", "--one", name, "--model", str(model)]
    command += ["--work", str(work)]
    offline = {"HF_HUB_OFFLINE": "1", **os.environ}
    with (
        log.open("wb") as file,
        subprocess.Popen(command, stdout=file, stderr=file, env=offline, start_new_session=True) as child,
    ):
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            return Line(name, "failed", f"not finished after {seconds:.0f} s; see {log}")
        finally:
            _end(child.pid)
    if result.exists():
        return Line(name, *json.loads(result.read_text()))
    return Line(name, "failed", f"{_how(code)}: {_last_line(log)}; see {log}")


def _end(group: int) -> None:
    """End what is left of a check's processes."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def one(name: str, model: Path, work: Path) -> None:
    """Do a check in this process and write what it saw."""
    from experiments.gpu.checks import CHECKS
    from experiments.gpu.material import Failed, NotTried
    from sandcli.errors import SandError

    slug = name.replace(" ", "-")
    with tempfile.TemporaryDirectory(dir=work) as folder:
        try:
            found = "passed", CHECKS[name](model, Path(folder))
        except NotTried as error:
            found = "not tried", str(error)
        except Failed as error:
            found = "failed", str(error)
        except SandError as error:
            found = "failed", error.what
    (work / f"{slug}.json").write_text(json.dumps(found))


def machine() -> Iterator[str]:
    """The machine and the versions, a line each."""
    import psutil
    import torch

    memory = psutil.virtual_memory().total / 2**30
    yield f"- {platform.platform()}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    for gpu in gpus:
        yield f"- {gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    if not gpus:
        yield "- no GPU: what needs none was tried on the CPU"
    yield f"- {', '.join(f'{name} {_version(name)}' for name in _PACKAGES)}"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "-"


def table(lines: list[Line]) -> Iterator[str]:
    """The checks as a Markdown table."""
    yield "| check | result | seen |\n|---|---|---|"
    for line in lines:
        seen = " ".join(line.seen.split()).replace("|", "\\|")
        yield f"| {line.name} | {line.state} | {seen} |"


def main() -> int:
    """Run the checks that the command line names; returns 1 if one failed."""
    parser = argparse.ArgumentParser(description="Try what sand does on GPUs, and print a table.")
    parser.add_argument("--model", type=Path, required=True, help="the folder of a model")
    parser.add_argument("--work", type=Path, default=Path("checks"), help="the folder of logs (checks)")
    parser.add_argument("--seconds", type=float, default=300, help="the longest that one check may take (300)")
    parser.add_argument("--only", choices=NAMES, action="append", help="this check; may be repeated")
    parser.add_argument("--one", choices=NAMES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not (given.model / "config.json").is_file():
        parser.error(f"{given.model} is no folder of a model: it has no config.json")
    given.work.mkdir(parents=True, exist_ok=True)
    if given.one:
        one(given.one, given.model, given.work)
        return 0
    lines = []
    for name in given.only or NAMES:
        lines.append(run_check(name, given.model, given.work.absolute(), given.seconds))
        print(f"{name}: {lines[-1].state}", file=sys.stderr)
    print("\n".join(["", *machine(), "", *table(lines)]))
    return int(any(line.state == "failed" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
