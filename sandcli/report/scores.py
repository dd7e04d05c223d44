"""What a report is drawn from: scores of episodes, the evaluations they come from, and the rows they make."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

Kind = Literal["base", "sft", "sand", "ablation", "other"]
"""What a row's model is: pi_base, after SFT, after an iteration, after an iteration without a part, or any folder."""


class Score(NamedTuple):
    """One episode without its texts. `kind` is the task's type; `reward` lies in [0, 1]."""

    split: str
    task: str
    kind: str
    reward: float
    success: bool
    steps: int
    deliberated: int
    tokens: int

    @property
    def reward_per_step(self) -> float:
        """Final reward / number of steps. (Figure 3)"""
        return self.reward / max(1, self.steps)

    @property
    def deliberation_rate(self) -> float:
        """Deliberated steps / steps. (Figures 3 and 4)"""
        return self.deliberated / max(1, self.steps)


class Suite(NamedTuple):
    """A set of test tasks: one split of one world."""

    world: str
    split: str

    def __str__(self) -> str:
        return f"{self.world} {self.split}"


class Evaluation(NamedTuple):
    """What `sand eval` made in one run.

    `run` is its folder as it was given, `base` identifies the base model. `scores` are by the model's name in the
    run. `settings` are those that the episodes depend on. `missing` counts episodes that machinery failed.
    `accepted` lists what was kept although it was made under other settings. `trained` are the tasks of D_exp.
    `replaced` names models that were made anew since. `limit` is what `--limit` was.
    """

    run: str
    base: str
    world: str
    iteration: int
    without: Literal["none", "sampling", "critique"]
    scores: Mapping[str, list[Score]]
    settings: Mapping[str, str]
    missing: int = 0
    accepted: tuple[str, ...] = ()
    trained: frozenset[str] = frozenset()
    replaced: tuple[str, ...] = ()
    limit: int | None = None


class Row(NamedTuple):
    """A row of the paper's tables: one agent on the test sets of all worlds.

    `group` is the base model's name. `sources` are the run and the model's name there, by world.
    """

    group: str
    label: str
    kind: Kind
    iteration: int
    scores: Mapping[Suite, list[Score]]
    sources: Mapping[str, tuple[str, str]]

    def held_out(self, world: str) -> list[Score]:
        """All scores on a world's tasks that are no training tasks."""
        return [
            score
            for suite in self.scores
            if suite.world == world and suite.split != "train"
            for score in self.scores[suite]
        ]


def suites_of(rows: Iterable[Row]) -> list[Suite]:
    """Every test set that some row has, the paper's first."""
    worlds = ["ScienceWorld", "ALFWorld"]
    found = dict.fromkeys(suite for row in rows for suite in row.scores)
    worlds += [suite.world for suite in found]
    return sorted(found, key=lambda suite: (worlds.index(suite.world), suite.split == "train", suite.split))


def held_out(rows: Iterable[Row]) -> list[Suite]:
    """The same, without training tasks."""
    return [suite for suite in suites_of(rows) if suite.split != "train"]


def worlds_of(rows: Iterable[Row]) -> list[str]:
    """Every world that some row has held-out tasks of, the paper's first."""
    return list(dict.fromkeys(suite.world for suite in held_out(rows)))


def by_group(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each base model."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return groups
