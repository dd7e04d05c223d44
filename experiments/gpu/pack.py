"""Packs `sand`, models and runs into pieces for a machine without a network.

    python -m experiments.gpu.pack --out pieces --model models/qwen2.5-0.5b-instruct

Call it again to resume, or to add something: pieces that are already right are left alone. docs/gpu.md has an example.
"""

import argparse
import sys
from pathlib import Path

from experiments.gpu.pieces import Source, folder_source, write_pieces
from experiments.gpu.unpack import MODELS, RUNS
from experiments.gpu.wheels import (
    REPO,
    collect_wheels,
    packages_to_pack,
    this_machine,
    this_python,
    wheels_in,
    without,
)
from sandcli.errors import Exit, SandError, UsageError
from sandcli.models import locate

_MIB = 2**20


def arguments(given: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Pack sand, models and runs for a machine without a network.")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the pieces")
    parser.add_argument("--model", action="append", default=[], help="a folder, hub name or the embedded model")
    parser.add_argument("--run", type=Path, action="append", default=[], help="a run directory, or an experiment's")
    parser.add_argument("--piece-mib", type=int, default=60, help="the largest piece, in MiB (60)")
    parser.add_argument("--data-only", action="store_true", help="models and runs only, such as to bring results back")
    parser.add_argument("--vllm", type=Path, help="a folder with the wheels of vLLM, which are installed too")
    parser.add_argument("--python", default=this_python(), help="that machine's version of Python (this one's)")
    parser.add_argument("--machine", default=this_machine(), help="that machine's processor (this one's)")
    parser.add_argument(
        "--present",
        default="torch,transformers,accelerate",
        help="packages that are installed there with all they need; if only torch has the right version: torch",
    )
    return parser.parse_args(given)


def sources(given: argparse.Namespace) -> list[Source]:
    """What is packed: first what is large and seldom changes."""
    models = {locate(name): _name(name) for name in given.model}
    found = [folder_source(f"model-{name}", folder, f"{MODELS}/{name}") for folder, name in models.items()]
    found += [] if given.data_only else _program(given)
    found += [folder_source(f"run-{run.resolve().name}", run, f"{RUNS}/{run.resolve().name}") for run in given.run]
    names = [source.name for source in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"{twice[0]} would be packed twice", "rename one of the folders")
    if not found:
        raise UsageError("there is nothing to pack", "name a --model or --run")
    return found


def _name(model: str) -> str:
    """The name of a model's folder: that of the folder that is packed, or the last part of its hub name."""
    return Path(model).resolve().name if Path(model).exists() else model.rpartition("/")[2].lower()


def _program(given: argparse.Namespace) -> list[Source]:
    """The wheels, and this folder."""
    vllm = wheels_in(given.vllm) if given.vllm else []
    pins = packages_to_pack(given.present.split(","), given.python)
    kept = given.out.with_name(f"{given.out.name}.wheels") / f"{given.python}-{given.machine}"
    downloaded = collect_wheels(pins, given.python, given.machine, kept)
    wheels = without(downloaded, vllm)
    code = sorted([*(REPO / "experiments").rglob("*.py"), *(REPO / "experiments").rglob("*.toml")])
    named = {"vllm": vllm, "wheels": wheels}
    found = [Source(name, {f"{name}/{wheel.name}": wheel for wheel in part}) for name, part in named.items() if part]
    return [*found, Source("experiments", {str(path.relative_to(REPO)): path for path in code})]


def main() -> int:
    """Pack what the command line names; returns the exit code."""
    given = arguments(sys.argv[1:])
    try:
        if given.piece_mib < 1:
            raise UsageError("--piece-mib is less than 1", "use a size in MiB")
        made_for = {"python": given.python, "machine": given.machine}
        parts = write_pieces(sources(given), given.out, given.piece_mib * _MIB, made_for)
    except SandError as error:
        print(f"error: {error.what}\n  fix: {error.fix}", file=sys.stderr)
        return error.exit
    except OSError as error:
        print(f"error: {error}\n  fix: free space, or use another folder for --out", file=sys.stderr)
        return Exit.PREREQUISITE
    for part in parts:
        print(f"{part.name}: {sum(size for _, size in part.files) / _MIB:.1f} MiB in {len(part.pieces)} pieces")
    print(f"copy {given.out} there, all at once or in parts; after each transfer: python3 unpack.py --into DIR")
    return 0


if __name__ == "__main__":
    sys.exit(main())
