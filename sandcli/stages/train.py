"""`sand train`: the next policy: pi_k fine-tuned on D_delib, deliberated and plain steps mixed. (Method, step 6.)"""

from sandcli.core.context import Context
from sandcli.errors import PrerequisiteError
from sandcli.stages.tuning import Tuning


def train_job(context: Context) -> Tuning:
    """From this iteration's policy, on deliberations.jsonl, with the settings of [train]."""
    context.run.needs("synthesize")
    if not context.run.deliberations.exists():
        fix = f"sand synthesize --run {context.run.root} makes it anew from thoughts.jsonl"
        raise PrerequisiteError(f"{context.run.deliberations} is missing", fix)
    return Tuning(context, "train", context.policy_model().folder, context.run.deliberations, context.settings.train)
