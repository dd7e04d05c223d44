"""The rows of the tables: evaluations from several runs, combined and named as in the paper."""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple, cast

from sandcli.episodes import Deliberation, agent_name
from sandcli.report.scores import AgentRow, Change, Evaluation, Kind, Score, Suite, split_agent
from sandcli.terminal import visible

_ORDER: tuple[Kind, ...] = ("base", "sft", "baseline", "sand", "ablation", "other")


class _Part(NamedTuple):
    """One agent of one run: a whole row, or the part of a row for one world."""

    group: str
    label: str
    kind: Kind
    evaluation: Evaluation
    model: str


def agent_rows(evaluations: Sequence[Evaluation]) -> list[AgentRow]:
    """The rows, grouped by base model and ordered: base, SFT, iterations, ablations, others.

    An agent that was evaluated on several worlds, each in its own run, is one row. If several runs evaluated an agent
    of the same name on the same world, each is a row labelled with its run.
    """
    groups = short_names([evaluation.base for evaluation in evaluations])
    parts = [_part(groups[e.base], e, model) for e in evaluations for model in e.scores]
    rows = [_row(name, members) for name, members in _labelled(parts, evaluations).items()]
    order = list(dict.fromkeys(groups.values()))
    return sorted(rows, key=lambda row: (order.index(row.group), _ORDER.index(row.kind), row.iteration))


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The shortest endings that tell the paths apart, with control characters made visible."""
    names, length = {path: PurePath(path).name or path for path in paths}, 1
    while len(set(names.values())) < len(names) and length < max(len(PurePath(path).parts) for path in names):
        length += 1
        names = {path: str(PurePath(*PurePath(path).parts[-length:])) for path in names}
    return {path: visible(name) for path, name in names.items()}


def _part(group: str, evaluation: Evaluation, agent: str) -> _Part:
    model, mode = split_agent(agent)
    part = _free_part(group, evaluation, model)
    if mode == "free":
        return part
    return part._replace(label=agent_name(part.label, cast(Deliberation, mode)), kind="other", model=agent)


def _free_part(group: str, evaluation: Evaluation, model: str) -> _Part:
    match model:
        case "base" | "sft" | "policy" if evaluation.planner not in ("", "model"):
            name = {"base": "base", "sft": "SFT", "policy": "policy"}[model]
            return _Part(group, f"{name}, with plans of {visible(evaluation.planner)}", "other", evaluation, model)
        case "base":
            return _Part(group, "base", "base", evaluation, model)
        case "sft":
            return _Part(group, "SFT", "sft", evaluation, model)
        case "policy" if evaluation.planner == "model":
            name = visible(evaluation.label) or _trained(evaluation)
            return _Part(group, name, "baseline", evaluation, model)
        case "model":
            return _Part(group, visible(evaluation.label) or _trained(evaluation), _kind(evaluation), evaluation, model)
    path = model if len(PurePath(model).parts) > 1 else f"./{model}"  # a folder may be called "SFT"
    return _Part(group, visible(path), "other", evaluation, model)


def _trained(evaluation: Evaluation) -> str:
    """The name of the agent that a run trained."""
    if _kind(evaluation) != "ablation":
        return f"{evaluation.method.upper()}, iteration {evaluation.iteration}"
    later = f", iteration {evaluation.iteration}" if evaluation.iteration > 1 else ""
    return f"without {evaluation.without}{later}"


def _kind(evaluation: Evaluation) -> Kind:
    if evaluation.method != "sand":
        return "baseline"
    return "sand" if evaluation.without == "none" else "ablation"


def _labelled(parts: Sequence[_Part], evaluations: Sequence[Evaluation]) -> dict[tuple[str, str], list[_Part]]:
    """The parts of each row, by its group and label."""
    worlds = Counter((part.group, part.label, part.evaluation.world) for part in parts)
    ambiguous = {(group, label) for (group, label, _), count in worlds.items() if count > 1}
    runs = short_names([evaluation.run for evaluation in evaluations])
    found: dict[tuple[str, str], list[_Part]] = {}
    for part in parts:
        with_run = (part.group, part.label) in ambiguous
        label = f"{part.label} ({runs[part.evaluation.run]})" if with_run else part.label
        found.setdefault((part.group, label), []).append(part)
    return found


def _row(name: tuple[str, str], parts: Sequence[_Part]) -> AgentRow:
    scores: dict[Suite, list[Score]] = {}
    changes: dict[Suite, list[Change]] = {}
    for part in parts:
        for score in part.evaluation.scores[part.model]:
            scores.setdefault(Suite(part.evaluation.world, score.split), []).append(score)
        for change in part.evaluation.changes.get(part.model, []):
            changes.setdefault(Suite(part.evaluation.world, change.split), []).append(change)
    sources = {part.evaluation.world: (part.evaluation.run, part.model) for part in parts}
    trained = parts[0].kind in ("baseline", "sand", "ablation")
    iteration = parts[0].evaluation.iteration if trained else 0
    training = parts[0].evaluation.trainings.get(split_agent(parts[0].model)[0])
    return AgentRow(*name, parts[0].kind, iteration, scores, sources, parts[0].label, training, changes)
