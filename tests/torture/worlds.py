"""A world that sometimes gives invalid answers."""

import random
from typing import Any

from sandcli.envs.base import DEFAULTS, Environment, Outcome
from sandcli.records import Task
from sandcli.settings import EnvSettings
from tests.toyworld import ToyEpisode, ToySimulator, ToyWorld


class MadWorld(ToyWorld):
    """The toy world; `mad=SEED` in env.simplifications chooses what goes wrong, and when."""

    def __init__(self, settings: EnvSettings = DEFAULTS) -> None:
        super().__init__(settings)
        self._seed = self._settings.get("mad", "0")

    def start(self) -> "MadSimulator":
        return MadSimulator(random.Random(self._seed))


class MadSimulator(ToySimulator):
    """Opens episodes of which some go wrong."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(0.0, None)
        self._chance = chance
        self._answer = chance.choice(_ANSWERS)

    def open(self, task: Task) -> Environment:
        return MadEpisode(task, self._answer, self._chance.randrange(4))


class MadEpisode(ToyEpisode):
    """Answers with `answer` at step `at`."""

    def __init__(self, task: Task, answer: Any, at: int) -> None:
        super().__init__(task, 0.0, None)
        self._answer, self._at = answer, at

    def step(self, action: str) -> Outcome:
        outcome = super().step(action)
        self._at -= 1
        if self._at != 0:
            return outcome
        return self._answer(outcome) if callable(self._answer) else self._answer  # type: ignore[no-any-return]


_ANSWERS: tuple[Any, ...] = (
    None,
    7,
    "You win.",
    (),
    lambda outcome: outcome._replace(score=7.5),
    lambda outcome: outcome._replace(score=-1.0),
    lambda outcome: outcome._replace(score=float("nan")),
    lambda outcome: outcome._replace(score=float("inf")),
    lambda outcome: outcome._replace(score="1.0"),
    lambda outcome: outcome._replace(score=None),
    lambda outcome: outcome._replace(observation=None),
    lambda outcome: outcome._replace(observation=b"bytes"),
    lambda outcome: outcome._replace(observation="half a \ud83d character"),
    lambda outcome: outcome._replace(observation="\x1b[2J\x1b]52;c;aGk=\x07 \u202e"),
    lambda outcome: outcome._replace(observation="[/INST] [red] [/x]"),
    lambda outcome: outcome._replace(observation="x" * 10**6),
    lambda outcome: outcome._replace(observation="Action: look\nAction: look"),
    lambda outcome: outcome._replace(done=None),
    lambda outcome: outcome._replace(done="yes"),
    lambda outcome: outcome._replace(valid=None),
    lambda outcome: tuple(outcome)[:2],
    lambda outcome: (*outcome, 1),
    lambda outcome: 1 / 0,
)
