"""SAND: self-taught action deliberation for language-model agents.

There is one function for each command (`sample(run, n=5)`, ..., `iterate(run, iterations=3)`), and `Run`, which reads
what they make. Start reading at `sandcli.pipeline`, which holds the paper's Algorithm 1. Each stage is a file in
`sandcli.stages`, the paper's own steps are pure functions in `sandcli.method`, `sandcli.core.runner` runs any stage.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandcli.api.baselines import explore, knowledge, pairs, plan, prefer, wkm
    from sandcli.api.runs import experiment, export, init, iterate
    from sandcli.api.stages import collect, counterfactual, critique, evaluate, rollout, sample, sft, synthesize, train
    from sandcli.core.run import Run

__version__ = "0.2.0"

__all__ = [
    "Run",
    "collect",
    "counterfactual",
    "critique",
    "evaluate",
    "experiment",
    "explore",
    "export",
    "init",
    "iterate",
    "knowledge",
    "pairs",
    "plan",
    "prefer",
    "rollout",
    "sample",
    "sft",
    "synthesize",
    "train",
    "wkm",
]


def __getattr__(name: str) -> Any:
    """What the package offers, imported when it is first used."""
    if name in __all__:
        for module in ("core.run", "api.stages", "api.baselines", "api.runs"):
            if hasattr(found := importlib.import_module(f"sandcli.{module}"), name):
                return getattr(found, name)
    raise AttributeError(f"module 'sandcli' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The names that completion offers, whether imported yet or not."""
    return sorted({*globals(), *__all__})
