"""The library: one function for each command, callable from Python, from a notebook, and awaitable.

`sample(run, n=5)` blocks; `await sample.aio(run, n=5)` runs in the caller's event loop. The command line takes the
names, types, bounds and help of its options from these signatures. Nothing heavy is imported before a call.
"""

from sandcli.api.baselines import explore, knowledge, pairs, plan, prefer, wkm
from sandcli.api.runs import experiment, export, init, iterate
from sandcli.api.stages import collect, counterfactual, critique, evaluate, rollout, sample, sft, synthesize, train

__all__ = [
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
