"""Reads how the models of a run were trained, to tell which runs differ in nothing but their seed."""

from collections.abc import Mapping

from sandcli.core.artifact import StageName
from sandcli.core.run import Run, trains_planner
from sandcli.fields import values_with
from sandcli.report.scores import Training
from sandcli.settings import Settings
from sandcli.tables import SCOPE, Effect

_STAGES: Mapping[str, tuple[StageName, ...]] = {
    "sft": ("sft",),
    "model": (
        *("sft", "plan", "explore", "knowledge", "wkm", "sample", "rollout", "critique", "synthesize", "pairs"),
        *("train", "prefer"),
    ),
}
"""The stages that make each model from D_exp, in order."""

_TABLES = {
    "sft": ("run", "env", "collect", "agent"),
    "model": ("run", "env", "collect", "agent", "method", "prompts", "retrieval"),
}
"""The tables that each model depends on, beside those of its stages."""


def trainings_of(run: Run, settings: Settings, d_exp: int) -> dict[str, Training]:
    """The training of each model that a run can train, by the agent's name. `d_exp` counts trajectories.

    If a planner is trained, the agent is the policy that is given its plans.
    What a stage was made with counts, since a flag may have set it; for a stage without a manifest, sand.toml does.
    """
    agents = {"sft": "sft", "model": "policy" if trains_planner(settings) else "model"}
    return {agent: _training(run, settings, model, d_exp) for model, agent in agents.items()}


def _training(run: Run, settings: Settings, model: str, d_exp: int) -> Training:
    tables = (*_TABLES[model], *_STAGES[model])
    known = values_with(settings, tables, Effect.CONTENT) | values_with(settings, tables, SCOPE)
    limits: dict[str, str] = {}
    for stage in _STAGES[model]:
        if made := run.artifact(stage).manifest():
            noted = made.identity.scope | made.identity.settings
            known |= {name: noted[name] for name in known.keys() & noted.keys()}
            limits |= {f"sand {stage} --limit": str(made.identity.limit)} if made.identity.limit is not None else {}
    seed = int(known.pop("run.seed"))  # that of the last stage
    for steps in ("train.max_steps", "prefer.max_steps"):
        if known.get(steps, "0") != "0":
            known[steps] = "set"  # an experiment sets it to another arm's updates, which depend on the seed
    return Training(seed, known | limits | _data(settings, d_exp))


def _data(settings: Settings, d_exp: int) -> dict[str, str]:
    """What is known about D_exp. After the first iteration its size depends on the seed."""
    iteration = settings.run.iteration
    return {"run.iteration": str(iteration), **({"trajectories of D_exp": str(d_exp)} if iteration == 1 else {})}
