"""`make torture`: inject every kind of fault into runs, and print what was tried, what survived, and every failure."""

import argparse
import gc
import itertools
import math
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.torture.cases import Case, Wrong
from tests.torture.damage import WAYS, Damages
from tests.torture.faults import ERRORS, KILLS
from tests.torture.inputs import Inputs
from tests.torture.inside import live_inside
from tests.torture.processes import Processes
from tests.torture.runs import Quiet
from tests.torture.strikes import Strikes

MEANING = {
    "kill": "killed before a change of a file",
    "half": "killed half-way through a write",
    "power": "power cut: everything that was not synced is lost",
    "EIO": "one call fails with an I/O error",
    "ENOSPC": "the disk is full from some call onwards",
    "EDQUOT": "the quota is used up from some call onwards",
    "chain": "killed again and again at random calls",
    "cut": "a file cut short at some byte",
    "flip": "one bit of a file flipped",
    "zeros": "a block of a file zeroed",
    "line-lost": "a line of a file lost",
    "line-twice": "a line of a file doubled",
    "line-moved": "a line of a file moved to its end",
    "input": "malformed data, settings, answers",
    "process": "real processes killed: driver, worker, JVM, model server, group",
}

PACE = {"cut": 50, "flip": 50, "process": 1 / 16}
"""Cases of a kind in one turn, if not 1: all kinds come to their end together, and one process takes as long as 100."""


class Torture:
    """All cases and their results."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        fetch, carry = Quiet(folder / "fetch"), Quiet(folder / "carry", "carry", limit=1)
        self._strikes = Strikes(fetch, folder)
        self._damages, self._inputs = Damages(carry, folder), Inputs(fetch, folder)
        self._processes = Processes(folder / "processes")
        self._seed = seed
        self.possible: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()
        self.faults: list[tuple[Case, str]] = []
        gc.freeze()  # so that a fork copies less

    def case(self, name: str) -> Case:
        """A case by its name."""
        kind = name.partition("/")[0]
        if kind == "chain":
            return self._strikes.chain(name)
        if kind == "process":
            return self._processes.case(name)
        source = self._strikes if kind in (*KILLS, *ERRORS) else self._damages if kind in WAYS else self._inputs
        return source.case(name)

    def cases(self, only: str, short: bool) -> Iterator[Case]:
        """One case of each kind in turn, in random order; some kinds never run out of cases.

        A short torture uses no real processes, and as many cases of each kind.
        """
        chance = random.Random(self._seed)
        lists: dict[str, list[Case]] = {}
        for case in itertools.chain(self._strikes, self._damages):
            lists.setdefault(case.kind, []).append(case)
        self.possible.update({kind: len(cases) for kind, cases in lists.items()})
        for cases in lists.values():
            chance.shuffle(cases)
        endless = {
            "chain": self._strikes.chains(self._seed),
            "input": self._inputs.from_seed(self._seed),
            "process": self._processes.from_seed(self._seed),
        }
        kinds: dict[str, Iterator[Case]] = {name: iter(cases) for name, cases in lists.items()} | endless
        wanted = only.split(",") if only else [name for name in kinds if not (short and name == "process")]
        return _in_turn({name: kinds[name] for name in wanted}, {} if short else PACE)

    def try_one(self, case: Case) -> None:
        """Run a case, and count it if its fault occurred."""
        folder = self._folder / "case"
        tempfile.tempdir = str(self._folder / "tmp")
        for stale in (folder, self._folder / "tmp"):
            shutil.rmtree(stale, ignore_errors=True)
        (self._folder / "tmp").mkdir()
        try:
            struck = case.run(folder)
        except Wrong as wrong:
            struck = True
            self._fault(case, str(wrong))
        except Exception as error:  # the case itself failed to run
            struck = True
            self._fault(case, f"{type(error).__name__}: {error}")
        self.tried[case.kind] += struck

    def _fault(self, case: Case, what: str) -> None:
        self.faults.append((case, what))
        print(f"FAULT {case.name}: {what}", flush=True)

    def table(self) -> Iterator[str]:
        """Possible, tried, survived and faults by kind, then how to repeat each fault."""
        faults = Counter(case.kind for case, _ in self.faults)
        yield "| kind | what happens | possible | tried | survived | faults |"
        yield "|---|---|---:|---:|---:|---:|"
        for kind, tried in sorted(self.tried.items(), key=lambda item: list(MEANING).index(item[0])):
            possible = f"{self.possible[kind]:,}" if self.possible[kind] else "any"
            yield f"| {kind} | {MEANING[kind]} | {possible} | {tried:,} | {tried - faults[kind]:,} | {faults[kind]:,} |"
        tried = self.tried.total()
        yield f"| all | | | {tried:,} | {tried - len(self.faults):,} | {len(self.faults):,} |"
        for case, _ in self.faults[:20]:
            yield f"repeat it: make torture CASE='{case.name}'"


def _in_turn(kinds: dict[str, Iterator[Case]], pace: Mapping[str, float]) -> Iterator[Case]:
    for turn in itertools.count():
        for name in list(kinds):
            share = pace.get(name, 1)
            wanted = math.ceil((turn + 1) * share) - math.ceil(turn * share)
            cases = list(itertools.islice(kinds[name], wanted))
            yield from cases
            if len(cases) < wanted:
                del kinds[name]
        if not kinds:
            return


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="Stop after this time (default 10).")
    parser.add_argument("--cases", type=int, help="Stop after this many cases.")
    parser.add_argument("--seed", type=int, default=0, help="Determines the order and the random cases.")
    parser.add_argument("--short", action="store_true", help="Do not start processes.")
    parser.add_argument("--only", default="", metavar="KINDS", help="Run only cases of these kinds, such as cut,flip.")
    parser.add_argument("--case", nargs="*", default=[], metavar="NAME", help="Repeat these cases.")
    return parser.parse_args()


def _chosen(torture: Torture, asked: argparse.Namespace) -> Iterable[Case]:
    if asked.case:
        return [torture.case(name) for name in asked.case]
    until = time.monotonic() + 60 * asked.minutes
    cases = itertools.islice(torture.cases(asked.only, asked.short), asked.cases)
    return itertools.takewhile(lambda _: time.monotonic() < until, cases)


def main() -> int:
    """Exit code 1 if there was a fault."""
    asked = _arguments()
    memory = Path("/dev/shm")  # syncing would take most of the time
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        live_inside()
        torture = Torture(Path(folder), asked.seed)
        for case in _chosen(torture, asked):
            torture.try_one(case)
        print("\n".join(torture.table()), flush=True)
    return 1 if torture.faults else 0


if __name__ == "__main__":
    sys.exit(main())
