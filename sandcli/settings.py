"""The settings of a run: one typed table of `sand.toml` each, with bounds, meanings and what a change affects.

A setting is named by table and key: `sample.n` is `n` under `[sample]`. `sandcli.config` says where values come from.
"""

import os
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sandcli.engine_settings import ClusterSettings, EngineSettings
from sandcli.method_settings import (
    CritiqueSettings,
    ExploreSettings,
    MethodSettings,
    PairsSettings,
    PlanSettings,
    RetrievalSettings,
    RolloutSettings,
    SampleSettings,
    SynthesizeSettings,
)
from sandcli.tables import COMPUTE, LONGEST, REFERENCE, SCOPE, Table
from sandcli.training_settings import ComputeSettings, PreferSettings, TrainingSettings, WkmSettings

MAX_WORKERS = 32
"""Environment processes of one machine, unless more are asked for."""


class RunSettings(Table, frozen=True, kw_only=True):
    """Settings of the whole run."""

    iteration: Annotated[int, Meta(ge=1, description="number of this iteration; reports name rows by it"), COMPUTE] = 1
    label: Annotated[
        str,
        Meta(
            description="name of this run's agent in reports; empty: the method and its iteration, such as SAND, "
            "iteration 1"
        ),
        COMPUTE,
    ] = ""
    seed: Annotated[int, Meta(description="every unit's own seed is derived from this and the unit's key")] = 0
    workers: Annotated[
        int, Meta(ge=0, description="environment processes; 0: one for each core, at most 32"), COMPUTE
    ] = 0
    in_flight: Annotated[
        int,
        Meta(ge=0, description="units in progress at once; 0: enough to keep engine and environments busy"),
        COMPUTE,
    ] = 0
    timeout: Annotated[
        float, Meta(gt=0, le=LONGEST, description="seconds that one call to an environment may take"), COMPUTE
    ] = 120.0
    retries: Annotated[
        int, Meta(ge=0, description="further attempts at a unit after the engine or environment failed"), COMPUTE
    ] = 2


class ModelSettings(Table, frozen=True, kw_only=True):
    """The models of the run. Artifacts depend on the content of their folders, not on these names."""

    base: Annotated[
        str,
        Meta(description="pi_base: a folder, a hub name, or smollm2-135m-instruct (installed by `make setup`)"),
        REFERENCE,
    ] = "smollm2-135m-instruct"
    policy: Annotated[
        str, Meta(description="pi_k, the policy to improve; empty: the sft/ folder of this run"), REFERENCE
    ] = ""
    planner: Annotated[
        str, Meta(description="the planner to improve (mpo), or a published one; empty: the base model"), REFERENCE
    ] = ""
    trust_code: Annotated[
        bool,
        Meta(description="run Python code that comes with the models, as you; for models that need code of their own"),
        COMPUTE,  # the code is part of the folder's content
    ] = False


class EnvSettings(Table, frozen=True, kw_only=True):
    """The text world."""

    name: Annotated[str, Meta(description="scienceworld, alfworld, or module:Class of your own")] = "scienceworld"
    simplifications: Annotated[
        str,
        Meta(description="scienceworld: eto (as in the literature's expert data), easy, none, or a comma list"),
        REFERENCE,  # each world says in `versions()` what it stands for
    ] = "eto"
    tasks: Annotated[
        list[str],
        Meta(
            description="paper (scienceworld: the literature's 1,483 training, 194 seen and 211 unseen tasks), all, or "
            "task types"
        ),
        SCOPE,
    ] = msgspec.field(default_factory=lambda: ["paper"])
    step_limit: Annotated[int, Meta(ge=0, description="steps in one episode; 0: the literature's limit")] = 0
    games: Annotated[str, Meta(description="alfworld: folder of the games; empty: $ALFWORLD_DATA"), REFERENCE] = ""
    translate: Annotated[
        bool,
        Meta(
            description="alfworld: translate `put X in/on Y` to `move X to Y`, or back, as in the games: in recorded "
            "trajectories, and when the agent acts"
        ),
    ] = False


class CollectSettings(Table, frozen=True, kw_only=True):
    """`sand collect`: making D_exp."""

    source: Annotated[
        str,
        Meta(description="recorded trajectories: a file, folder or hub data set; empty: the world's expert"),
        REFERENCE,
    ] = ""
    rows: Annotated[
        Literal["replayed", "strict", "as-recorded"],
        Meta(
            description="recorded trajectories: replayed takes texts from the replay, strict only accepts what replays "
            "word for word, as-recorded keeps the recorded texts (for training only)"
        ),
    ] = "replayed"
    thoughts: Annotated[
        Literal["base", "none"], Meta(description="base: the base model writes them; none: actions only")
    ] = "base"
    expert: Annotated[
        str,
        Meta(
            description="scienceworld: gold; alfworld: handcoded (searches, as a player must) or planner (knows the "
            "hidden state and takes the shortest path); empty: the first of these"
        ),
    ] = ""
    max_tokens: Annotated[int, Meta(ge=1, description="longest thought, in tokens")] = 64


class AgentSettings(Table, frozen=True, kw_only=True):
    """What the agent reads before its task, how its turns are read, and when invalid ones end an episode."""

    preamble: Annotated[
        str,
        Meta(
            description="the messages before the task: world (its own instruction), data (those of the recorded "
            "trajectories), or a JSON file of messages with role and content"
        ),
        REFERENCE,
    ] = "world"
    knowledge: Annotated[
        str,
        Meta(
            description="rules of which action may follow which, added to the preamble, also to that of a panel: world "
            "(ours, for scienceworld and alfworld), or a text file; empty: none"
        ),
        REFERENCE,
    ] = ""
    max_tokens: Annotated[int, Meta(ge=1, description="longest turn in tokens, deliberation included")] = 512
    inline: Annotated[
        bool,
        Meta(
            description="read the first `Action:` of a turn wherever it is, also within a line or with its action on "
            "the next line; false: it begins a line"
        ),
    ] = False
    preface: Annotated[
        bool,
        Meta(
            description="allow text before `Thought:`, which is dropped; without `Thought:`, the text before the "
            "action is the thought"
        ),
    ] = False
    thought: Annotated[
        Literal["optional", "required"], Meta(description="whether a turn without a thought is valid")
    ] = "optional"
    max_invalid: Annotated[
        int, Meta(ge=0, description="invalid turns in a row that end an episode; 0: they never do")
    ] = 5
    invalid: Annotated[
        Literal["any", "action", "turn"],
        Meta(
            description="which invalid turns count: any, only those whose action the world does not know (action), or "
            "only those without a readable action (turn); the others neither count nor reset the count"
        ),
    ] = "any"
    invalid_message: Annotated[
        str, Meta(description="the observation after a turn that cannot be read; the world is not touched")
    ] = "Invalid format. Answer with 'Action:' and one action."


class PromptSettings(Table, frozen=True, kw_only=True):
    """What the base model is asked, in `sand collect`, `critique` and `synthesize`."""

    set: Annotated[
        str,
        Meta(
            description="standard (for instruction-tuned models of 7B and more), compact (for much smaller ones), or a "
            "folder with your own prompts"
        ),
        REFERENCE,
    ] = "standard"
    history_tokens: Annotated[
        int,
        Meta(
            ge=0,
            description="budget for older observations, in tokens of 4 characters, for the history and a rollout each; "
            "the newest one is always shown in full",
        ),
    ] = 1500


class EvalSettings(Table, frozen=True, kw_only=True):
    """`sand eval`."""

    panel: Annotated[
        str,
        Meta(
            description="the panel to play: a file made by `sand panel make`, or the name of a published one. It fixes "
            "the tasks, the step limits, the preamble, and how agents act; empty: none"
        ),
        REFERENCE,
    ] = ""
    splits: Annotated[
        list[str], Meta(description="train, seen, unseen; or those of the panel, if there is one"), SCOPE
    ] = msgspec.field(default_factory=lambda: ["seen", "unseen"])
    models: Annotated[
        list[str],
        Meta(description="model (of this iteration), policy (that it started from), sft, base, or folders"),
        SCOPE,
    ] = msgspec.field(default_factory=lambda: ["model"])
    deliberation: Annotated[
        list[str],
        Meta(
            description="whether a turn deliberates: free (as the agent chooses), never (it begins with its action), "
            "always (it begins as a deliberation); if there are several, each model plays once with each"
        ),
        SCOPE,
    ] = msgspec.field(default_factory=lambda: ["free"])
    planner: Annotated[
        str,
        Meta(
            description="who writes a plan for every task before it is played: model (of this iteration, if it is a "
            "planner), wkm (the world-knowledge model of this run), base, or a folder; empty: nobody"
        ),
        REFERENCE,
    ] = ""
    n: Annotated[
        int, Meta(ge=1, description="episodes of each task; more than one needs a temperature above 0"), SCOPE
    ] = 1
    temperature: Annotated[float, Meta(ge=0, description="temperature of the agent; 0: greedy (the paper)")] = 0.0


class Settings(Table, frozen=True, kw_only=True):
    """All settings; one attribute for each table of sand.toml."""

    run: RunSettings = RunSettings()
    model: ModelSettings = ModelSettings()
    env: EnvSettings = EnvSettings()
    method: MethodSettings = MethodSettings()
    collect: CollectSettings = CollectSettings()
    agent: AgentSettings = AgentSettings()
    explore: ExploreSettings = ExploreSettings()
    plan: PlanSettings = PlanSettings()
    pairs: PairsSettings = PairsSettings()
    sample: SampleSettings = SampleSettings()
    rollout: RolloutSettings = RolloutSettings()
    prompts: PromptSettings = PromptSettings()
    critique: CritiqueSettings = CritiqueSettings()
    synthesize: SynthesizeSettings = SynthesizeSettings()
    sft: TrainingSettings = TrainingSettings()
    wkm: WkmSettings = WkmSettings()
    train: TrainingSettings = TrainingSettings()
    prefer: PreferSettings = PreferSettings()
    trainer: ComputeSettings = ComputeSettings()
    eval: EvalSettings = EvalSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    engine: EngineSettings = EngineSettings()
    cluster: ClusterSettings = ClusterSettings()


def worker_count(settings: Settings) -> int:
    """How many environment processes to start."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return settings.run.workers or min(cores, MAX_WORKERS)
