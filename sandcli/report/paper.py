"""The numbers printed in the paper, for comparison. Rewards are x100, tokens are per task."""

from typing import NamedTuple

from sandcli.report.scores import Suite

SUITES = (
    Suite("ScienceWorld", "seen"),
    Suite("ScienceWorld", "unseen"),
    Suite("ALFWorld", "seen"),
    Suite("ALFWorld", "unseen"),
)
"""The columns of Table 2."""

WORLDS = frozenset(suite.world for suite in SUITES)

TASKS = dict(zip(SUITES, (194, 211, 140, 134), strict=True))
"""The number of tasks in each."""

ALFWORLD_STEPS = 30
"""The step limit on ALFWorld of MPO, whose evaluation prompts the paper uses. ETO and WKM have 40."""


class Rewards(NamedTuple):
    """A row of Table 2 or 3: average rewards on `SUITES`, and their average if the paper prints one."""

    base: str
    label: str
    rewards: tuple[float, float, float, float]
    average: float | None = None


TABLE2 = (
    Rewards("Llama-3.1-8B", "base", (47.7, 42.2, 22.9, 28.4)),
    Rewards("Llama-3.1-8B", "SFT", (75.6, 65.1, 79.3, 71.6), 72.9),
    Rewards("Llama-3.1-8B", "SAND, iteration 1", (86.6, 77.5, 92.9, 91.8), 86.0),
    Rewards("Llama-3.1-8B", "SAND, iteration 2", (88.7, 78.2, 94.3, 94.0), 88.8),
    Rewards("Llama-3.1-8B", "SAND, iteration 3", (85.7, 79.1, 94.3, 96.3), 88.9),
    Rewards("Llama-3.1-8B", "ETO *", (81.3, 74.1, 77.1, 76.4), 77.2),
    Rewards("Llama-3.1-8B", "KnowAgent *", (81.7, 69.6, 80.0, 74.9), 76.6),
    Rewards("Llama-3.1-8B", "WKM *", (82.1, 76.5, 77.1, 78.2), 78.5),
    Rewards("Llama-3.1-8B", "ETO & MPO *", (83.4, 80.8, 85.0, 79.1), 82.1),
    Rewards("Qwen2.5-7B", "SFT", (69.2, 60.8, 72.1, 75.4), 69.4),
    Rewards("Qwen2.5-7B", "SAND, iteration 1", (80.9, 67.2, 85.7, 85.0), 79.7),
    Rewards("Qwen2.5-7B", "SAND, iteration 2", (83.2, 69.9, 85.0, 89.6), 81.9),
    Rewards("Qwen2.5-7B", "SAND, iteration 3", (84.0, 69.0, 90.7, 94.8), 84.6),
)

TABLE2_NOTES = (
    "The paper prints 86.0 as Llama-3.1-8B's average after iteration 1; its four numbers average 87.2.",
    "* The paper takes these rows from Table 2 of the MPO paper, whose prompts hold one example episode.",
)

TABLE3 = (
    Rewards("Llama-3.1-8B", "without sampling", (70.3, 62.0, 85.7, 77.3)),
    Rewards("Llama-3.1-8B", "without critique", (78.6, 73.7, 85.0, 86.6)),
    Rewards("Qwen2.5-7B", "without sampling", (63.5, 52.4, 72.1, 62.7)),
    Rewards("Qwen2.5-7B", "without critique", (72.0, 66.3, 70.6, 75.0)),
)


class Tokens(NamedTuple):
    """A row of Table 4, which has Llama-3.1-8B only: average tokens by world."""

    base: str
    label: str
    tokens: dict[str, float]


TABLE4 = (
    Tokens("Llama-3.1-8B", "SFT", {"ScienceWorld": 800.0, "ALFWorld": 498.3}),
    Tokens("Llama-3.1-8B", "SAND, iteration 1", {"ScienceWorld": 2411.9, "ALFWorld": 1314.2}),
    Tokens("Llama-3.1-8B", "SAND, iteration 2", {"ScienceWorld": 2522.1, "ALFWorld": 1105.8}),
    Tokens("Llama-3.1-8B", "SAND, iteration 3", {"ScienceWorld": 2253.6, "ALFWorld": 1146.2}),
)
