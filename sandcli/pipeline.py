"""The pipeline: one table of stages, and Algorithm 1 of the paper."""

import re
import shlex
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sandcli.core.artifact import StageName
from sandcli.core.run import D_DELIB, D_INFORMED, D_KNOW, D_PLANS, D_RFT, D_WKM, PLAN, PREAMBLE, Run
from sandcli.core.stage import Stage
from sandcli.settings import Settings
from sandcli.stages.collect import CollectStage
from sandcli.stages.counterfactual import CounterfactualStage
from sandcli.stages.critique import CritiqueStage
from sandcli.stages.evaluate import EvalStage
from sandcli.stages.explore import ExploreStage
from sandcli.stages.knowledge import KnowledgeStage
from sandcli.stages.pairs import PairsStage
from sandcli.stages.plan import PlanStage
from sandcli.stages.prefer import PreferStage
from sandcli.stages.rollout import RolloutStage
from sandcli.stages.sample import SampleStage
from sandcli.stages.sft import SftStage
from sandcli.stages.synthesize import SynthesizeStage
from sandcli.stages.train import TrainStage
from sandcli.stages.wkm import WkmStage

Skip = Callable[[Settings], str | None]
"""Says why a run goes without a stage; None if it does not."""


def in_every_run(settings: Settings) -> None:
    """Every run has the stage."""


def with_a_policy(settings: Settings) -> str | None:
    """A later iteration, or any run that starts from a given policy, makes no SFT model."""
    return f"the run starts from the policy {settings.model.policy}" if settings.model.policy else None


def only(*methods: str) -> Skip:
    """The stage belongs to some methods."""

    def skip(settings: Settings) -> str | None:
        chosen = settings.method.name
        return f"method.name is {chosen}" if chosen not in methods else None

    return skip


def compares_rollouts(settings: Settings) -> bool:
    """Whether eto compares the expert with rollouts instead of the policy's own episodes."""
    return settings.method.name == "eto" and settings.pairs.source == "rollouts"


def exploring(settings: Settings) -> str | None:
    """A baseline learns from the policy's own episodes."""
    if compares_rollouts(settings):
        return f"pairs.source is {settings.pairs.source}"
    return only("rft", "eto", "knowagent", "mpo", "mpo-sft", "wkm")(settings)


def or_for_pairs(skip: Skip) -> Skip:
    """As `skip` says, but comparing rollouts needs the stage in any case."""
    return lambda settings: None if compares_rollouts(settings) else skip(settings)


def without(*variants: str, methods: Sequence[str] = ("sand", "early-experience")) -> Skip:
    """The stage belongs to sand and its like, and some ablations go without it."""

    def skip(settings: Settings) -> str | None:
        chosen = settings.method.without
        return only(*methods)(settings) or (f"method.without is {chosen}" if chosen in variants else None)

    return skip


def unless_switching(skip: Skip) -> Skip:
    """As `skip` says, but the expert switch needs the stage in any case."""
    return lambda settings: skip(settings) if settings.method.switch == "never" else None


def on_request(settings: Settings) -> str:
    """The stage is not part of the method: it answers a question about a finished run."""
    return "it is not part of the method; its own command does it"


class Row(NamedTuple):
    """One stage: what it reads and writes in the run directory, and when a run goes without it."""

    stage: type[Stage[Any, Any]]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    skip: Skip

    @property
    def name(self) -> StageName:
        """The stage's name, which is also its command."""
        return self.stage.name


TABLE = (
    Row(CollectStage, (), ("expert.jsonl", PREAMBLE), in_every_run),
    Row(SftStage, ("expert.jsonl",), ("sft",), with_a_policy),
    Row(PlanStage, ("expert.jsonl",), ("plans.jsonl",), only("mpo", "mpo-sft")),
    Row(ExploreStage, ("expert.jsonl", "sft", "plans.jsonl"), ("explored.jsonl", D_RFT, D_KNOW, D_PLANS), exploring),
    Row(KnowledgeStage, ("expert.jsonl", "explored.jsonl", "sft"), ("knowledge.jsonl", D_INFORMED, D_WKM), only("wkm")),
    Row(WkmStage, (D_WKM,), ("wkm",), only("wkm")),
    Row(
        SampleStage,
        ("expert.jsonl", "sft"),
        ("samples.jsonl",),
        or_for_pairs(unless_switching(without("sampling", "deliberations"))),
    ),
    Row(
        RolloutStage,
        ("expert.jsonl", "samples.jsonl", "sft"),
        ("rollouts.jsonl",),
        or_for_pairs(unless_switching(without("sampling", "critique", "deliberations"))),
    ),
    Row(
        CritiqueStage,
        ("expert.jsonl", "rollouts.jsonl"),
        ("critiques.jsonl",),
        without("sampling", "critique", "deliberations", methods=("sand",)),
    ),
    Row(
        SynthesizeStage,
        ("expert.jsonl", "samples.jsonl", "rollouts.jsonl", "critiques.jsonl"),
        ("thoughts.jsonl", D_DELIB),
        only("sand", "early-experience"),
    ),
    Row(PairsStage, ("expert.jsonl", "explored.jsonl", "rollouts.jsonl"), ("pairs.jsonl",), only("eto", "mpo")),
    Row(
        TrainStage,
        (D_DELIB, D_RFT, D_KNOW, D_PLANS, D_INFORMED, "sft"),
        ("model",),
        only("sand", "rft", "knowagent", "mpo-sft", "early-experience", "wkm"),
    ),
    Row(PreferStage, ("pairs.jsonl", "sft"), ("model",), only("eto", "mpo")),
    Row(EvalStage, ("sft", "model", "wkm", "expert.jsonl", "knowledge.jsonl"), ("eval.jsonl",), in_every_run),
    Row(CounterfactualStage, ("sft", "model", "eval.jsonl"), ("counterfactuals.jsonl",), on_request),
)
"""All stages in order. `reads` lists the most that a stage reads: ablations read less, a given policy replaces sft, and
`train` reads the data of its method.

A run consists of the stages that it does not skip. Those of sand are marked `without(...)` and `only("sand")`, those of
a baseline `only(...)` with its name.

The preamble of recorded data is not listed: if `agent.preamble` is data, every stage in which an agent acts or is
trained reads it.
"""


def row(stage: StageName) -> Row:
    """A stage's row of the table."""
    return next(row for row in TABLE if row.name == stage)


def stages_of(settings: Settings) -> list[StageName]:
    """The stages that a run consists of, in order."""
    return [row.name for row in TABLE if row.skip(settings) is None]


def next_command(stage: StageName, run: Run, stages: Sequence[StageName]) -> str:
    """The command that comes after a stage of a run that consists of `stages`.

    After the last one, that is the rest of the experiment, a stage that was passed over, or the next iteration.
    """
    names = [row.name for row in TABLE]
    later = [name for name in stages if names.index(name) > names.index(stage)]
    if not later and run.experiment is not None:
        return shlex.join(["sand", "experiment", str(run.experiment / PLAN), "--run", str(run.experiment)])
    if not later and not (run.root / "model").exists():
        later = [name for name in stages if not run.artifact(name).path.exists()]
    if later:
        return run.artifact(later[0]).command
    return shlex.join(["sand", "init", "--run", str(next_root(run.root)), "--from", str(run.root)])


def next_root(root: Path) -> Path:
    """Where the next iteration goes: `runs/it1` is followed by `runs/it2`, `runs/demo` by `runs/demo-it2`."""
    numbered = re.fullmatch(r"(.*?)(\d+)", root.name)
    name = f"{numbered[1]}{int(numbered[2]) + 1}" if numbered else f"{root.name}-it2"
    return root.with_name(name)


class Do(Protocol):
    """Brings one stage of one run up to date. Does nothing if the stage is done, or if the run goes without it."""

    def __call__(self, stage: StageName, run: Run, /) -> Awaitable[None]:
        """Wait until it is."""


async def algorithm_1(first: Run, iterations: int, do: Do, follow: Callable[[Run], Run]) -> None:
    """Algorithm 1 of the paper. `follow` makes, or finds, the run of the next iteration.

    Every stage runs over all trajectories and steps at once, where the paper's loops go through them one by one.
    """
    run = first
    await do("collect", run)  # D_exp
    await do("sft", run)  # pi_1: pi_base fine-tuned on D_exp
    for k in range(1, iterations + 1):  # pi_k is the policy at the start of iteration k
        await do("sample", run)  # a^(1), ..., a^(N) ~ pi_k(. | h_{t-1}) at every step t; 1_delib(t) by Eq. 4
        await do("rollout", run)  # e^, r: every candidate of a flagged step executed to the end by pi_k
        await do("critique", run)  # c = pi_base(a, e^, r) for every candidate, Eq. 5
        await do("synthesize", run)  # z~_t = pi_base({(a, c)}, a_t), Eq. 6; D_delib: z~_t in place of z_t
        await do("train", run)  # pi_{k+1}: pi_k fine-tuned on D_delib
        await do("eval", run)  # not in the paper's listing
        if k < iterations:
            run = follow(run)  # D_exp <- D_delib


Method = Callable[[Run, int, Do, Callable[[Run], Run]], Coroutine[Any, Any, None]]
"""What brings a run and the iterations after it up to date, as `algorithm_1` does."""


def baseline(*stages: StageName) -> Method:
    """A baseline: these stages in every iteration, between the SFT model and the evaluation."""

    async def method(first: Run, iterations: int, do: Do, follow: Callable[[Run], Run]) -> None:
        run = first
        await do("collect", run)  # D_exp
        await do("sft", run)  # pi_1
        for k in range(1, iterations + 1):
            for stage in (*stages, "eval"):
                await do(stage, run)
            if k < iterations:
                run = follow(run)

    return method


METHODS: Mapping[str, Method] = {
    "sand": algorithm_1,
    "rft": baseline("explore", "train"),
    "knowagent": baseline("explore", "train"),
    "eto": baseline("explore", "sample", "rollout", "pairs", "prefer"),
    "mpo": baseline("plan", "explore", "pairs", "prefer"),
    "mpo-sft": baseline("plan", "explore", "train"),
    "early-experience": baseline("sample", "rollout", "synthesize", "train"),
    "wkm": baseline("explore", "knowledge", "wkm", "train"),
}
"""What `sand run` does, by `method.name`: see docs/baselines.md. A run goes without the stages that its row skips."""
