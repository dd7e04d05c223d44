"""The data of a report: scores of episodes, the evaluations they come from, and the agents that earned them."""

import re
import shlex
from collections.abc import Iterable, Mapping
from statistics import fmean
from types import MappingProxyType
from typing import Literal, NamedTuple

from sandcli.method.ablations import Without

Kind = Literal["base", "sft", "baseline", "sand", "ablation", "other"]
"""A model: pi_base, after SFT, after an iteration of a baseline, of SAND, or of an ablation, or any other folder."""

_FORCED = re.compile(r"(.*), (never|always) deliberating")


class Decisions(NamedTuple):
    """Deliberated steps: the action is the one decided for, or another; or the decision cannot be read."""

    same: int = 0
    other: int = 0
    unread: int = 0


class Score(NamedTuple):
    """One task without its texts. `kind` is the type of the task; `reward` is in [0, 1].

    `success`: the reward is 1. `done`: the world ended the episode, with success or without. `decisions` are those of
    its deliberated steps. If the task was played several times, `draws` holds its episodes, `decisions` are those of
    all of them, and the other numbers are averages.
    """

    split: str
    task: str
    kind: str
    reward: float
    success: float
    done: float
    steps: float
    deliberated: float
    tokens: float
    decisions: Decisions = Decisions()
    draws: "tuple[Score, ...]" = ()

    @property
    def episodes(self) -> "tuple[Score, ...]":
        """Its episodes, one by one."""
        return self.draws or (self,)

    @property
    def reward_per_step(self) -> float:
        """Final reward / number of steps. (Figure 3)"""
        return fmean(episode.reward / max(1, episode.steps) for episode in self.episodes)

    @property
    def deliberation_rate(self) -> float:
        """Deliberated steps / steps. (Figures 3 and 4)"""
        return fmean(episode.deliberated / max(1, episode.steps) for episode in self.episodes)


class Change(NamedTuple):
    """A deliberated step that was taken without deliberating.

    `same`: the action was the same. `gain` is the reward with the deliberation minus the one without.
    """

    split: str
    task: str
    same: bool
    gain: float


class Suite(NamedTuple):
    """A set of test tasks: one split of one world."""

    world: str
    split: str

    def __str__(self) -> str:
        return f"{self.world} {self.split}"


class Training(NamedTuple):
    """How a model was trained: its seed, and all other settings that count, as text, by `table.key`."""

    seed: int = 0
    settings: Mapping[str, str] = MappingProxyType({})


class Evaluation(NamedTuple):
    """The result of `sand eval` in one run.

    `run` is the run directory as the user gave it, `base` identifies the base model. `scores` are by the name of the
    agent (see `episodes.agent_name`) in the run. `settings` are what the episodes depend on. `failed` counts
    episodes that the engine or the environment failed. `accepted` lists how the settings of episodes that were kept
    differ from today's. `trained_tasks` are the tasks of D_exp, and `own_data` counts its trajectories that were not
    recorded by others. `retrained` names models that were trained again after some of their episodes. `limit` is the
    `--limit` of the evaluation. `changes` are by model; `outdated` counts those of episodes that were played again
    since. `label` is the name of the agent that the run trains, empty if it has none. `trainings` are those of the
    run's own models, `sft` and `model`. `panel` is the hash of the panel, `panel_name` what the user called it; both
    are empty if there was none. `planner` is who wrote the agents' plans, empty if nobody did.
    """

    run: str
    base: str
    world: str
    iteration: int
    without: Without
    scores: Mapping[str, list[Score]]
    settings: Mapping[str, str]
    failed: int = 0
    accepted: tuple[str, ...] = ()
    trained_tasks: frozenset[str] = frozenset()
    retrained: tuple[str, ...] = ()
    limit: int | None = None
    changes: Mapping[str, list[Change]] = MappingProxyType({})
    outdated: int = 0
    own_data: int = 0
    label: str = ""
    trainings: Mapping[str, Training] = MappingProxyType({})
    method: Literal["sand", "rft", "eto", "knowagent", "mpo", "mpo-sft", "early-experience", "wkm"] = "sand"
    panel: str = ""
    panel_name: str = ""
    planner: str = ""

    def command(self, *options: str) -> str:
        """The command that evaluates this run again or further, on the same panel, quoted for a shell."""
        panel = ["--panel", self.panel_name] if self.panel else []
        return shlex.join(["sand", "eval", "--run", self.run, *panel, *options])


class AgentRow(NamedTuple):
    """A row of the paper's tables: one agent on the test sets of all worlds.

    `group` is the name of the base model. `name` is the agent's name without its run, which `label` adds if several
    runs have such an agent. `sources` gives, by world, the run and the name of the agent in that run. `training` is
    None if the run did not train the model.
    """

    group: str
    label: str
    kind: Kind
    iteration: int
    scores: Mapping[Suite, list[Score]]
    sources: Mapping[str, tuple[str, str]]
    name: str
    training: Training | None
    changes: Mapping[Suite, list[Change]] = MappingProxyType({})

    @property
    def seed(self) -> int | None:
        """The seed of its training."""
        return self.training.seed if self.training else None

    def held_out(self, world: str) -> list[Score]:
        """All scores on a world, except those on training tasks."""
        return [
            score
            for suite in self.scores
            if suite.world == world and suite.split != "train"
            for score in self.scores[suite]
        ]


def split_agent(agent: str) -> tuple[str, str]:
    """The model of an agent, and `free`, `never` or `always`."""
    found = _FORCED.fullmatch(agent)
    return (found[1], found[2]) if found else (agent, "free")


def eval_flags(agents: Iterable[str]) -> list[str]:
    """The options of `sand eval` that evaluate these agents."""
    parts = [split_agent(agent) for agent in agents]
    models, modes = (",".join(dict.fromkeys(names)) for names in zip(*parts, strict=True))
    return ["--models", models, *(["--deliberation", modes] if modes != "free" else [])]


def suites_of(rows: Iterable[AgentRow]) -> list[Suite]:
    """Every test set that occurs in the rows, the paper's first."""
    worlds = ["ScienceWorld", "ALFWorld"]
    found = dict.fromkeys(suite for row in rows for suite in row.scores)
    worlds += [suite.world for suite in found]
    return sorted(found, key=lambda suite: (worlds.index(suite.world), suite.split == "train", suite.split))


def held_out(rows: Iterable[AgentRow]) -> list[Suite]:
    """Every test set that occurs in the rows, except training tasks."""
    return [suite for suite in suites_of(rows) if suite.split != "train"]


def worlds_of(rows: Iterable[AgentRow]) -> list[str]:
    """Every world with held-out tasks in the rows, the paper's first."""
    return list(dict.fromkeys(suite.world for suite in held_out(rows)))


def by_group(rows: Iterable[AgentRow]) -> dict[str, list[AgentRow]]:
    """The rows of each base model."""
    groups: dict[str, list[AgentRow]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return groups
