"""Every stage by name, for the commands that speak of all of them."""

from sandcli.core import planner as survey
from sandcli.core import runner as work
from sandcli.core.context import Context
from sandcli.core.run import Stage
from sandcli.core.stage import Options, State, Summary
from sandcli.stages import tuning
from sandcli.stages.collect import CollectJob
from sandcli.stages.critique import CritiqueJob
from sandcli.stages.evaluate import EvalJob
from sandcli.stages.rollout import RolloutJob
from sandcli.stages.sample import SampleJob
from sandcli.stages.sft import sft_job
from sandcli.stages.synthesize import SynthesizeJob
from sandcli.stages.train import train_job

JSONL = {
    "collect": CollectJob,
    "sample": SampleJob,
    "rollout": RolloutJob,
    "critique": CritiqueJob,
    "synthesize": SynthesizeJob,
    "eval": EvalJob,
}
TUNING = {"sft": sft_job, "train": train_job}


def perform(stage: Stage, context: Context, options: Options) -> Summary:
    """Do a stage."""
    context.run.must_exist()
    if stage in TUNING:
        return tuning.tune(TUNING[stage](context), options)
    return work.work(JSONL[stage](context), options)


def state(stage: Stage, context: Context) -> State:
    """How a stage's artifact stands against today's settings and inputs."""
    if stage in TUNING:
        return tuning.inspect(TUNING[stage](context))
    return survey.inspect(JSONL[stage](context))
