"""Made-up episodes and evaluations."""

from collections.abc import Sequence
from typing import Any

from sandcli.report.scores import Evaluation, Score, Training


def score(task: int, reward: float, split: str = "seen", **other: Any) -> Score:
    """One episode of four steps with one deliberated step; the world ends it if it succeeds."""
    values: dict[str, Any] = {"kind": "boil", "done": reward >= 1, "steps": 4, "deliberated": 1, "tokens": 100, **other}
    return Score(split, f"{values['kind']}_{task}", reward=reward, success=reward >= 1, **values)


def scores(rewards: Sequence[float], split: str = "seen", **other: Any) -> list[Score]:
    """One episode per reward, on tasks 0, 1, ..."""
    return [score(task, reward, split, **other) for task, reward in enumerate(rewards)]


def everywhere(*rewards: float) -> list[Score]:
    """The same rewards on the seen and the unseen tasks."""
    return scores(rewards) + scores(rewards, "unseen")


def evaluation(run: str = "runs/it1", **other: Any) -> Evaluation:
    """The evaluation of a run; give the scores of its models as `model=`, `sft=`, `base_model=` and so on.

    Its models were trained with the `seed` and, if given, the settings `trained_with`.
    """
    known = {name: other.pop(name) for name in Evaluation._fields if name in other}
    seed, trained_with = other.pop("seed", 0), other.pop("trained_with", {})
    known.setdefault("trainings", dict.fromkeys(("sft", "model"), Training(seed, trained_with)))
    known.setdefault("scores", {name.removesuffix("_model"): found for name, found in other.items()})
    defaults: dict[str, Any] = {"base": "m/tiny", "world": "ScienceWorld", "iteration": 1, "without": "none"}
    return Evaluation(run, **{**defaults, "settings": {}, **known})
