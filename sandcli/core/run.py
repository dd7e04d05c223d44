"""A run directory: one iteration's artifacts, by the stage that makes each, and as typed records."""

import os.path
import re
import shlex
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sandcli.config import FILE
from sandcli.core.artifact import Artifact, StageName
from sandcli.core.store import Keyed, Records
from sandcli.episodes import Counterfactual, Episode
from sandcli.errors import PrerequisiteError
from sandcli.records import Critique, Knowledge, Pair, Plan, Rollout, Sample, Thought, Trajectory
from sandcli.settings import Settings

R = TypeVar("R", bound=Keyed)

D_DELIB = "deliberations.jsonl"
"""D_delib, derived from expert.jsonl and thoughts.jsonl."""

D_RFT = "rft.jsonl"
"""D_rft, derived from expert.jsonl and explored.jsonl."""

D_KNOW = "knowagent.jsonl"
"""The policy's shortest successes, derived from expert.jsonl and explored.jsonl."""

D_PLANS = "best-plans.jsonl"
"""The best plan of each task, derived from expert.jsonl and explored.jsonl."""

D_INFORMED = "informed.jsonl"
"""The expert's trajectories with task knowledge, derived from expert.jsonl and knowledge.jsonl."""

D_WKM = "wkm.jsonl"
"""The conversations of a world-knowledge model, derived from the same files."""

PREAMBLE = "preamble.json"
"""The messages before the task in the recorded data that expert.jsonl comes from; only there if the data has any."""


PLAN = "plan.toml"
"""The copy of its plan in the folder of an experiment, which holds run directories."""

EXPERT = "expert"
"""The run of an experiment that collects D_exp, which all arms share. Theirs are `ARM/seedN`."""


class Written(NamedTuple):
    """What a stage writes: a JSONL file of records, or a folder (`record` is None), and what is derived from it."""

    name: str
    record: type[Any] | None
    derived: tuple[str, ...] = ()


ARTIFACTS: Mapping[StageName, Written] = {
    "collect": Written("expert.jsonl", Trajectory, (PREAMBLE,)),
    "sft": Written("sft", None),
    "plan": Written("plans.jsonl", Plan),
    "explore": Written("explored.jsonl", Episode, (D_RFT, D_KNOW, D_PLANS)),
    "knowledge": Written("knowledge.jsonl", Knowledge, (D_INFORMED, D_WKM)),
    "wkm": Written("wkm", None),
    "sample": Written("samples.jsonl", Sample),
    "rollout": Written("rollouts.jsonl", Rollout),
    "critique": Written("critiques.jsonl", Critique),
    "synthesize": Written("thoughts.jsonl", Thought, (D_DELIB,)),
    "pairs": Written("pairs.jsonl", Pair),
    "train": Written("model", None),
    "prefer": Written("model", None),
    "eval": Written("eval.jsonl", Episode),
    "counterfactual": Written("counterfactuals.jsonl", Counterfactual),
}


class Learning(NamedTuple):
    """How a method makes the next policy: the stage that trains it, and the file of another stage that it learns from.

    `demonstrations`: the file is D_exp of the next iteration; otherwise D_exp stays as it is.
    `planner`: what is trained is the policy's planner, and the policy stays as it is.
    `from_base`: the next policy is trained from the base model, not from the policy.
    """

    by: StageName
    source: StageName
    data: str
    demonstrations: bool = True
    planner: bool = False
    from_base: bool = False


LEARNING: Mapping[str, Learning] = {
    "sand": Learning("train", "synthesize", D_DELIB),
    "early-experience": Learning("train", "synthesize", D_DELIB, demonstrations=False),
    "rft": Learning("train", "explore", D_RFT),
    "knowagent": Learning("train", "explore", D_KNOW, demonstrations=False),
    "eto": Learning("prefer", "pairs", "pairs.jsonl", demonstrations=False),
    "mpo": Learning("prefer", "pairs", "pairs.jsonl", demonstrations=False, planner=True),
    "mpo-sft": Learning("train", "explore", D_PLANS, demonstrations=False, planner=True),
    "wkm": Learning("train", "knowledge", D_INFORMED, demonstrations=False, from_base=True),
}
"""By `method.name`."""


def trains_planner(settings: Settings) -> bool:
    """Whether the method trains a planner: then the policy plays with plans, and the pairs are plans."""
    return LEARNING[settings.method.name].planner


class Run:
    """The run directory at `root`.

    Reading is typed: `run.samples()` gives `Records[Sample]`, which can be iterated over, looked up by key, and turned
    into a pandas or datasets table. Each reader raises `PrerequisiteError` if its stage is not finished, or if the file
    was changed since.
    """

    def __init__(self, root: str | PathLike[str]) -> None:
        self.root = Path(root)

    def __repr__(self) -> str:
        return f"Run({str(self.root)!r})"

    def must_exist(self) -> None:
        """Raise `PrerequisiteError` if there is no run directory, which is one with a sand.toml."""
        if not (self.root / FILE).exists():
            fix = f"sand init --run {shlex.quote(str(self.root))}"
            if (self.root / PLAN).is_file():
                fix = f"it is the folder of an experiment: name one of its runs, such as {self.root}/ARM/seed0"
            raise PrerequisiteError(f"there is no run directory {self.root}", fix)

    @property
    def experiment(self) -> Path | None:
        """The folder of the experiment that the run belongs to, if it belongs to one."""
        name = self.root.resolve().name
        if name != EXPERT and not re.fullmatch(r"seed\d+", name):
            return None
        folder = Path(os.path.normpath(self.root / (".." if name == EXPERT else "../..")))
        return folder if (folder / PLAN).is_file() else None

    def artifact(self, stage: StageName) -> Artifact[Any]:
        """What a stage makes, and everything noted about it."""
        written = ARTIFACTS[stage]
        return Artifact(self.root, stage, written.name, written.record, written.derived)

    def trajectories(self) -> Records[Trajectory]:
        """D_exp, the expert trajectories."""
        return self.artifact("collect").records()

    def recorded_preamble(self) -> Path | None:
        """The preamble of the data that D_exp comes from; None if there is none."""
        expert = self.artifact("collect")
        made = expert.manifest()
        return expert.require_derived(PREAMBLE) if made and PREAMBLE in made.derived else None

    def plans(self) -> Records[Plan]:
        """The plans for the training tasks."""
        return self.artifact("plan").records()

    def explored(self) -> Records[Episode]:
        """The episodes of the policy on the training tasks."""
        return self.artifact("explore").records()

    def knowledge(self) -> Records[Knowledge]:
        """What the policy wrote about the expert trajectories."""
        return self.artifact("knowledge").records()

    def training_data(self, method: str) -> Path:
        """What the policy or planner is trained on. Raises `PrerequisiteError` if it is not made, or was changed."""
        source = self.artifact(LEARNING[method].source)
        name = LEARNING[method].data
        return source.require() if name == source.name else source.require_derived(name)

    def next_d_exp(self, method: str) -> Path:
        """D_exp of the next iteration. Raises what `training_data` does."""
        return self.training_data(method) if LEARNING[method].demonstrations else self.artifact("collect").require()

    def pairs(self) -> Records[Pair]:
        """The preference pairs."""
        return self.artifact("pairs").records()

    def samples(self) -> Records[Sample]:
        """The sampled turns at every expert step (Eq. 4)."""
        return self.artifact("sample").records()

    def rollouts(self) -> Records[Rollout]:
        """Every candidate of a flagged step, executed to the end."""
        return self.artifact("rollout").records()

    def critiques(self) -> Records[Critique]:
        """The base model's critique of every candidate (Eq. 5)."""
        return self.artifact("critique").records()

    def thoughts(self) -> Records[Thought]:
        """The deliberation of every flagged step (Eq. 6)."""
        return self.artifact("synthesize").records()

    def deliberations(self) -> Records[Trajectory]:
        """D_delib, the trajectories that the next policy is trained on."""
        return Records(self.artifact("synthesize").require_derived(D_DELIB), Trajectory)

    def episodes(self) -> Records[Episode]:
        """The evaluated episodes."""
        return self.artifact("eval").records()

    def counterfactuals(self) -> Records[Counterfactual]:
        """Every deliberated step of the evaluated episodes, taken without deliberating."""
        return self.artifact("counterfactual").records()
