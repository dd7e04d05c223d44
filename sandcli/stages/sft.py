"""`sand sft`: the policy before iteration 1: pi_base fine-tuned on D_exp. (Method, step 0.)"""

from sandcli.core.context import Context
from sandcli.stages.tuning import Tuning


def sft_job(context: Context) -> Tuning:
    """From the base model, on expert.jsonl, with the settings of [sft]. `UsageError` in a run that has a policy."""
    context.must_make_sft()
    data = context.run.needs("collect")
    return Tuning(context, "sft", context.base_model().folder, data, context.settings.sft)
