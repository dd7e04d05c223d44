"""Named settings: the paper's, for its two models and two worlds, and those of the small experiment."""

from sandcli.config import Scalar
from sandcli.errors import unknown_name

_WORLDS: dict[str, dict[str, Scalar]] = {
    "scienceworld": {"env.name": "scienceworld", "env.tasks": ["paper"]},
    "alfworld": {"env.name": "alfworld", "env.tasks": ["paper"]},
}
_MODELS: dict[str, str] = {
    "llama3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
    "qwen2.5-7b": "Qwen/Qwen2.5-7B-Instruct",
}
_PAPER: dict[str, Scalar] = {
    "sample.n": 5,
    "sample.temperature": 1.0,
    "rollout.temperature": 1.0,
    "sft.method": "full",
    "sft.learning_rate": 1e-5,
    "sft.epochs": 3,
    "sft.batch_size": 64,
    "train.method": "full",
    "train.learning_rate": 1e-5,
    "train.epochs": 3,
    "train.batch_size": 64,
    "trainer.shard": True,
    "eval.splits": ["seen", "unseen"],
}

_SMALL: dict[str, Scalar] = {
    "env.tasks": ["find-animal", "find-living-thing", "find-plant"],
    "collect.thoughts": "none",
    "agent.max_tokens": 256,
    "prompts.set": "compact",
    "prompts.history_tokens": 200,
    "critique.max_tokens": 80,
    "synthesize.max_tokens": 256,
    "sft.batch_size": 4,
    "sft.learning_rate": 1e-4,
    "train.batch_size": 4,
    "train.learning_rate": 1e-4,
}

PRESETS: dict[str, dict[str, Scalar]] = {
    **{
        f"{world}-{model}": {"model.base": name, **settings, **_PAPER}
        for world, settings in _WORLDS.items()
        for model, name in _MODELS.items()
    },
    "scienceworld-smollm2-135m": _SMALL,
}
"""Settings by preset name. Later iterations train for one epoch, which `sand init --from` sets."""


def data_wanted(name: str | None) -> str:
    """What a preset needs and `sand init` does not have: the paper's expert data. Empty if it needs none."""
    if name is None or name not in PRESETS or PRESETS[name] is _SMALL:
        return ""
    return "the paper's D_exp is the ETO data: pass it to sand collect with --from; without it, D_exp is our own"


def preset_values(name: str) -> dict[str, Scalar]:
    """The settings of a preset. For an unknown name, raises a `UsageError` that lists all presets."""
    if name not in PRESETS:
        raise unknown_name("preset", name, tuple(PRESETS))
    return PRESETS[name]
