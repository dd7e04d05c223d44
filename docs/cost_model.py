"""Estimates what one iteration takes on some number of GPUs: python docs/cost_model.py --gpus 8

It simulates, event by event, the stages that generate. A crew is one copy of a model on `--gpus-per-crew` GPUs, with a
thread for Python and some cores for its environments:

- b sequences that are decoded together share `--rate` * b / (b + `--half`) tokens per second. Measure both with the
  engine's own benchmark: `--rate` is its limit for large batches, `--half` the batch at which it reaches half of that;
- every turn costs the thread `--turn-ms` (tokenising, requests), and every action an environment `--step-ms`;
- the driver pays `--unit-ms` for each unit (docs/cluster.md has the measured value).

The number of trajectories and N are the paper's. All other values are assumptions: replace them by what `sand` prints
at the end of a stage on your machine. The model leaves out training, and the reading of prompts, since nearly all of a
prompt is in the cache.
"""

import argparse
import heapq
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

Then = Callable[[], None]


class Clock:
    """The events to come."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Then]] = []
        self._numbers = count()

    def after(self, seconds: float, then: Then) -> None:
        """Do something later."""
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), then))

    def run(self) -> None:
        """Do everything."""
        while self._events:
            self.now, _, then = heapq.heappop(self._events)
            then()


class Workers:
    """A number of workers that serve one request each, in order: cores, or a thread."""

    def __init__(self, clock: Clock, number: int) -> None:
        self._clock = clock
        self._idle = number
        self._queue: deque[tuple[float, Then]] = deque()

    def serve(self, seconds: float, then: Then) -> None:
        """Work for so long, then go on."""
        if not self._idle:
            self._queue.append((seconds, then))
            return
        self._idle -= 1
        self._clock.after(seconds, lambda: self._served(then))

    def _served(self, then: Then) -> None:
        self._idle += 1
        if self._queue:
            self.serve(*self._queue.popleft())
        then()


class Decoder:
    """An engine. All sequences advance at the same speed, which falls with their number."""

    def __init__(self, clock: Clock, rate: float, half: float, batch: int) -> None:
        self._clock, self._rate, self._half, self._batch = clock, rate, half, batch
        self._progress, self._since, self._plan = 0.0, 0.0, 0
        self._running: list[tuple[float, int, Then]] = []
        self._queue: deque[tuple[int, Then]] = deque()
        self._numbers = count()

    def decode(self, tokens: int, then: Then) -> None:
        """Generate so many tokens, then go on."""
        self._advance()
        self._queue.append((tokens, then))
        self._admit()

    def _speed(self) -> float:
        return self._rate / (len(self._running) + self._half)

    def _advance(self) -> None:
        if self._running:
            self._progress += (self._clock.now - self._since) * self._speed()
        self._since = self._clock.now

    def _admit(self) -> None:
        while self._queue and len(self._running) < self._batch:
            tokens, then = self._queue.popleft()
            heapq.heappush(self._running, (self._progress + tokens, next(self._numbers), then))
        self._plan += 1
        if self._running:
            plan = self._plan
            self._clock.after(max(0.0, self._running[0][0] - self._progress) / self._speed(), lambda: self._due(plan))

    def _due(self, plan: int) -> None:
        if plan != self._plan:  # a sequence that began since has changed the speed
            return
        self._advance()
        ended = []
        while self._running and self._running[0][0] <= self._progress + 1e-6:
            ended.append(heapq.heappop(self._running)[2])
        self._admit()
        for then in ended:
            then()


class Unit(NamedTuple):
    """One unit: its turns, the sequences and tokens of each, and whether an action in the environment follows it."""

    turns: int
    sequences: int
    tokens: int
    acts: bool

    @property
    def generated(self) -> int:
        """All its tokens."""
        return self.turns * self.sequences * self.tokens


@dataclass
class Machine:
    """What does the work; times in seconds."""

    crews: int
    cores: int
    rate: float
    half: float
    batch: int
    turn: float
    step: float
    unit: float

    def seconds(self, units: Iterable[Unit]) -> float:
        """How long all the units take, handed out in this order to the crew with the fewest."""
        clock = Clock()
        driver = Workers(clock, 1)
        crews = [_Crew(self, clock) for _ in range(self.crews)]
        waiting = iter(units)

        def hand_out(crew: _Crew) -> None:
            unit = next(waiting, None)
            if unit is not None:
                driver.serve(self.unit, lambda: crew.begin(unit, lambda: hand_out(crew)))

        for _ in range(2 * self.batch):
            for crew in crews:
                hand_out(crew)
        clock.run()
        return clock.now


@dataclass
class _Crew:
    machine: Machine
    clock: Clock
    thread: Workers = field(init=False)
    environments: Workers = field(init=False)
    decoder: Decoder = field(init=False)

    def __post_init__(self) -> None:
        machine = self.machine
        self.thread = Workers(self.clock, 1)
        self.environments = Workers(self.clock, machine.cores)
        self.decoder = Decoder(self.clock, machine.rate, machine.half, machine.batch)

    def begin(self, unit: Unit, then: Then) -> None:
        """Do a unit, then go on."""
        self._turn(unit, unit.turns, then)

    def _turn(self, unit: Unit, left: int, then: Then) -> None:
        if not left:
            then()
            return

        decoding = unit.sequences

        def generate() -> None:
            for _ in range(unit.sequences):
                self.decoder.decode(unit.tokens, generated)

        def generated() -> None:
            nonlocal decoding
            decoding -= 1
            if not decoding:
                step = self.machine.step if unit.acts else 0.0
                self.environments.serve(step, lambda: self._turn(unit, left - 1, then))

        self.thread.serve(self.machine.turn, generate)


def stages(given: argparse.Namespace) -> Iterator[tuple[str, list[Unit]]]:
    """The units of each stage. Rollouts have geometrically distributed lengths, and long ones come first."""
    random.seed(0)
    steps = given.trajectories * given.steps
    flagged = round(steps * given.flagged)
    ends = 1 / given.turns
    rollouts = [_length(ends, given.limit) for _ in range(flagged * given.alternatives)]
    yield "sample", [Unit(1, given.n, given.tokens, False)] * steps
    yield "rollout", [Unit(turns, 1, given.tokens, True) for turns in sorted(rollouts, reverse=True)]
    yield "critique", [Unit(1, 1, given.critique_tokens, False)] * (flagged * (given.alternatives + 1))
    yield "synthesize", [Unit(1, 1, given.thought_tokens, False)] * flagged


def _length(ends: float, limit: int) -> int:
    turns = 1
    while turns < limit and random.random() > ends:
        turns += 1
    return turns


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    work, machine = parser.add_argument_group("work"), parser.add_argument_group("machine")
    for group, name, value, meaning in (
        (work, "trajectories", 4804, "expert trajectories"),
        (work, "steps", 14, "steps of an expert trajectory"),
        (work, "n", 5, "sampled turns at each step"),
        (work, "flagged", 0.5, "share of inconsistent steps"),
        (work, "alternatives", 2, "other actions than the expert's at such a step"),
        (work, "turns", 12, "mean turns of a rollout before the limit"),
        (work, "limit", 40, "most turns of a rollout"),
        (work, "tokens", 60, "tokens of a turn"),
        (work, "critique-tokens", 100, "tokens of a critique"),
        (work, "thought-tokens", 300, "tokens of a deliberation"),
        (machine, "gpus", 1, "GPUs"),
        (machine, "gpus-per-crew", 1, "GPUs that one copy of the model is spread over"),
        (machine, "cores", 4, "cores for environments, for each crew"),
        (machine, "rate", 2500.0, "tokens per second of a copy with a very large batch"),
        (machine, "half", 24.0, "batch at which it reaches half of that"),
        (machine, "batch", 256, "most sequences decoded together"),
        (machine, "turn-ms", 9.0, "Python's time for a turn"),
        (machine, "step-ms", 14.0, "an environment's time for an action"),
        (machine, "unit-ms", 0.33, "the driver's time for a unit"),
        (machine, "start", 90.0, "seconds that a crew takes to start, once a stage"),
    ):
        group.add_argument(f"--{name}", type=type(value), default=value, help=f"{meaning} ({value:g})")
    return parser.parse_args()


def main() -> None:
    """Print a line for each stage."""
    given = arguments()
    crews = given.gpus // given.gpus_per_crew
    machine = Machine(
        crews,
        given.cores,
        given.rate,
        given.half,
        given.batch,
        given.turn_ms / 1000,
        given.step_ms / 1000,
        given.unit_ms / 1000,
    )
    best = given.rate * given.batch / (given.batch + given.half) * crews
    total = 0.0
    for name, units in stages(given):
        seconds = machine.seconds(units)
        tokens = sum(unit.generated for unit in units)
        total += seconds + given.start
        print(
            f"{name:10} {len(units):9,} units {tokens / 1e6:7.1f} M tokens {seconds / 3600:7.2f} h, "
            f"{tokens / best / seconds:4.0%} of what the engines can do"
        )
    print(
        f"in all {total / 3600:.2f} h on {given.gpus} GPUs, {total * given.gpus / 3600:.1f} GPU hours, without training"
    )


if __name__ == "__main__":
    main()
