"""The settings of the method, and of the stages that make training data."""

from typing import Annotated, Literal

from msgspec import Meta

from sandcli.tables import REFERENCE, SCOPE, Table


class MethodSettings(Table, frozen=True, kw_only=True):
    """Which method, and which variant of it."""

    name: Annotated[
        Literal["sand", "rft", "eto", "knowagent", "mpo", "mpo-sft", "early-experience", "wkm"],
        Meta(
            description="sand (the paper), or a baseline: rft, rejection-sampling fine-tuning on the policy's own "
            "successes; eto, preference optimisation (DPO) on the expert's trajectories against the policy's own; "
            "knowagent, training on the policy's shortest successes, told rules of actions; mpo, DPO of a planner on "
            "the plans that helped the policy most and least; mpo-sft, SFT of a planner on the best plans, before mpo; "
            "early-experience, training on reflections on what the policy's own actions lead to in one step; wkm, "
            "training with task knowledge, and a model that writes it"
        ),
    ] = "sand"
    without: Annotated[
        Literal["none", "sampling", "critique", "deliberations"],
        Meta(
            description="ablation of the paper's Table 3: none, sampling (the base model proposes the alternatives "
            "itself, at every step), critique (no rollouts); or deliberations, a control: D_delib keeps the original "
            "thoughts"
        ),
    ] = "none"
    switch: Annotated[
        Literal["never", "better", "shorter"],
        Meta(
            description="when a candidate's rollout replaces the rest of the expert trajectory: never, if it earned "
            "more than the expert (better), or also if it earned as much in fewer steps (shorter)"
        ),
    ] = "never"


class ExploreSettings(Table, frozen=True, kw_only=True):
    """`sand explore`."""

    n: Annotated[
        int, Meta(ge=1, description="episodes of every training task (mpo: with each of its plans)"), SCOPE
    ] = 4
    temperature: Annotated[float, Meta(ge=0, description="temperature at which the policy plays")] = 1.0


class PlanSettings(Table, frozen=True, kw_only=True):
    """`sand plan` and `sand knowledge`, and the plans of an evaluation (`eval.planner`)."""

    n: Annotated[int, Meta(ge=1, description="plans of every training task (MPO: 5)"), SCOPE] = 5
    temperature: Annotated[
        float, Meta(ge=0, description="temperature of training plans and of knowledge (WKM: 0.5); evaluation is greedy")
    ] = 1.0
    max_tokens: Annotated[int, Meta(ge=1, description="longest plan, or task knowledge, in tokens")] = 200


class RetrievalSettings(Table, frozen=True, kw_only=True):
    """What a knowledge base adds to an agent's choices in an evaluation (wkm)."""

    weight: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="weight of the agent's own probabilities of an action's first word; the knowledge base has the "
            "rest. 1: it is not asked",
        ),
    ] = 1.0
    neighbours: Annotated[int, Meta(ge=1, description="nearest states that are looked at (WKM: 3000)")] = 3000
    embedding: Annotated[
        str,
        Meta(
            description="model by which states are compared, a folder or a hub name: its hidden states, averaged; "
            "empty: they are compared by their words"
        ),
        REFERENCE,
    ] = ""


class PairsSettings(Table, frozen=True, kw_only=True):
    """`sand pairs`: which continuations are compared, and how."""

    source: Annotated[
        Literal["explored", "rollouts"],
        Meta(
            description="what the expert is compared with: whole episodes of the policy (explored), or the rollouts of "
            "other candidates from their step on (rollouts; with eto). Plans (mpo) are compared with each other"
        ),
    ] = "explored"
    extra_turns: Annotated[
        int,
        Meta(
            ge=0,
            description="turns that a rejected continuation may have more than the chosen one; the rest is cut off "
            "(ETO: 5 on ScienceWorld). 0: no limit",
        ),
    ] = 0


class SampleSettings(Table, frozen=True, kw_only=True):
    """`sand sample`, Eq. 4."""

    n: Annotated[int, Meta(ge=1, description="turns sampled at every expert step (paper: 5)"), SCOPE] = 5
    temperature: Annotated[float, Meta(ge=0, description="paper: 1.0")] = 1.0


class RolloutSettings(Table, frozen=True, kw_only=True):
    """`sand rollout`."""

    temperature: Annotated[float, Meta(ge=0, description="paper: 1.0")] = 1.0
    max_steps: Annotated[
        int,
        Meta(ge=0, description="steps of a rollout, its own action included; 0: to the end of the episode (the paper)"),
    ] = 0


class CritiqueSettings(Table, frozen=True, kw_only=True):
    """`sand critique`, Eq. 5."""

    max_tokens: Annotated[int, Meta(ge=1, description="longest critique, in tokens")] = 200
    verdict: Annotated[
        Literal["model", "reward"],
        Meta(
            description="who decides whether an action advanced, hindered or did not affect the task: the base model "
            "(the paper), or the rollouts' rewards, if the base model is too small to tell"
        ),
    ] = "model"


class SynthesizeSettings(Table, frozen=True, kw_only=True):
    """`sand synthesize`, Eq. 6."""

    max_tokens: Annotated[
        int, Meta(ge=1, description="longest deliberation in tokens; with its action it must fit into agent.max_tokens")
    ] = 400
    attempts: Annotated[int, Meta(ge=1, description="attempts before a step keeps its original thought")] = 3
    form: Annotated[
        Literal["free", "guided"],
        Meta(
            description="free: in one go (the paper); guided: one sentence on every candidate in turn; the "
            "conclusion is given. For base models that are too small to keep to the form"
        ),
    ] = "free"
