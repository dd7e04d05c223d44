"""Comparisons: paired differences on the same tasks, and warnings about numbers that are not comparable."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from sandcli.envs.alfworld.world import STEP_LIMIT
from sandcli.report import paper
from sandcli.report.estimates import Difference, bootstrap
from sandcli.report.scores import (
    AgentRow,
    Evaluation,
    Score,
    Suite,
    eval_flags,
    split_agent,
    suites_of,
)

_SETTINGS = {
    "agent.max_tokens": "the token limit of a turn (agent.max_tokens)",
    "agent.inline": "how turns are read (agent.inline)",
    "agent.preface": "how turns are read (agent.preface)",
    "agent.thought": "how turns are read (agent.thought)",
    "agent.max_invalid": "the limit of invalid turns (agent.max_invalid)",
    "agent.invalid": "which invalid turns count (agent.invalid)",
    "agent.invalid_message": "the message on an invalid turn (agent.invalid_message)",
    "env.translate": "the translation of commands (env.translate)",
    "env.step_limit": "the step limit (env.step_limit)",
    "env.simplifications": "the simplifications (env.simplifications)",
    "env.grammar": "the games' grammar (env.games)",
    "prompt.preamble": "the preamble (agent.preamble, agent.knowledge)",
    "eval.temperature": "the temperature of the agents (eval.temperature)",
    "engine.max_length": "the token limit of a conversation (engine.max_length)",
    "schema": "the version of the records",
}


def reference(row: AgentRow, suite: Suite, members: Sequence[AgentRow]) -> AgentRow | None:
    """The row of the same base model that a row is compared with on a test set; None if that is the row itself.

    It is SFT if SFT was evaluated, otherwise the base model, otherwise the first row. If there are several, the one
    of the same seed whose run directory is nearest is taken.
    """
    evaluated = [member for member in members if suite in member.scores]
    kinds = [[member for member in evaluated if member.kind == kind] for kind in ("sft", "base")]
    choice = next((found for found in kinds if found), evaluated[:1])
    if row in choice:
        return choice[0] if row is not choice[0] else None
    return max(choice, key=lambda member: (member.seed == row.seed, _nearness(member, row, suite.world)))


def _nearness(one: AgentRow, other: AgentRow, world: str) -> int:
    """How many folders the paths of two runs have in common, counted from the root."""
    parts = [Path(row.sources[world][0]).resolve().parts for row in (one, other)]
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*parts, strict=False))))


def difference(scores: Sequence[Score], against: Sequence[Score]) -> Difference | None:
    """The mean paired difference in reward x100 over the tasks in common; None if there are none."""
    known = {score.task: score.reward for score in against}
    paired = [score.reward - known[score.task] for score in scores if score.task in known]
    return Difference(*bootstrap(paired).times(100), len(paired)) if paired else None


def warnings(evaluations: Sequence[Evaluation], rows: Sequence[AgentRow]) -> list[str]:
    """A line for everything that makes rows incomparable: which runs, what differs, and how to fix it."""
    return [
        *_different_settings(evaluations),
        *_different_tasks(evaluations, rows),
        *(line for evaluation in evaluations for line in _run_warnings(evaluation)),
    ]


_OF_THE_AGENT = {
    *("run.seed", "planner", "plan.max_tokens", "prompt.plan", "prompt.know", "knowledge", "experts"),
    *("retrieval.weight", "retrieval.neighbours", "retrieval.embedding"),
}
"""What agents may differ in: their plans and knowledge are part of what is compared."""


def _different_settings(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    for world in dict.fromkeys(evaluation.world for evaluation in evaluations):
        same = [evaluation for evaluation in evaluations if evaluation.world == world]
        for key in sorted({key for evaluation in same for key in evaluation.settings} - _OF_THE_AGENT):
            having: dict[str, list[Evaluation]] = {}
            for evaluation in same:
                having.setdefault(evaluation.settings.get(key, "none"), []).append(evaluation)
            if len(having) > 1:
                yield _setting_differs(world, key, having)


def _setting_differs(world: str, key: str, having: Mapping[str, list[Evaluation]]) -> str:
    name = _SETTINGS.get(key, f"the version of {key.removeprefix('env.')}")
    values = "; ".join(f"{value} in {', '.join(found.run for found in same)}" for value, same in having.items())
    last = list(having.values())[-1][0]
    return f"{world}: {name} differs: {values}. Set it to the same value, then run: {last.command('--force')}"


def _different_tasks(evaluations: Sequence[Evaluation], rows: Sequence[AgentRow]) -> Iterator[str]:
    """Compare every row's tasks with those of the row that has the most."""
    of_run = {evaluation.run: evaluation for evaluation in evaluations}
    for suite in suites_of(rows):
        evaluated = [row for row in rows if any(own.world == suite.world for own in row.scores)]
        fullest = max(evaluated, key=lambda row: len(row.scores.get(suite, [])))
        tasks = {score.task for score in fullest.scores[suite]}
        for row in evaluated:
            own = {score.task for score in row.scores.get(suite, [])}
            if own != tasks:
                differ = _tasks_differ(suite, row, own, fullest, tasks)
                yield f"{differ}. {_add_tasks(suite, of_run[row.sources[suite.world][0]], row)}"


def _add_tasks(suite: Suite, evaluation: Evaluation, row: AgentRow) -> str:
    """How to evaluate a row on the tasks that it lacks. Those of a panel are the same for all."""
    _, model = row.sources[suite.world]
    command = evaluation.command("--splits", suite.split, *eval_flags([model]))
    return f"Run: {command}" if evaluation.panel else f"Use the same env.tasks and --limit in both, then run: {command}"


def _tasks_differ(suite: Suite, row: AgentRow, own: set[str], fullest: AgentRow, tasks: set[str]) -> str:
    run, _ = row.sources[suite.world]
    other, _ = fullest.sources[suite.world]
    count = f"{len(own)} task{'' if len(own) == 1 else 's'}" if own else "no task"
    common = f", {len(own & tasks)} in common" if own else ""
    return (
        f"{suite}: {row.group}, {row.label} ({run}) has {count}, {fullest.group}, {fullest.label} ({other}) has "
        f"{len(tasks)}{common}"
    )


def _run_warnings(evaluation: Evaluation) -> Iterator[str]:
    """Problems of one run, whatever it is compared with."""
    if evaluation.failed:
        yield (
            f"{evaluation.run}: {evaluation.failed} episodes failed and are left out. "
            f"To try them again, run: {evaluation.command()}"
        )
    if evaluation.accepted:
        yield (
            f"{evaluation.run}: some episodes were made with other settings ({'; '.join(evaluation.accepted)}). "
            f"To redo them, run: {_redo_command(evaluation)}"
        )
    for model in evaluation.retrained:
        yield (
            f"{evaluation.run}: its {model} was trained again after it was evaluated. "
            f"To evaluate it again, run: {_redo_command(evaluation)}"
        )
    if evaluation.outdated:
        again = shlex.join(["sand", "counterfactual", "--run", evaluation.run, "--force"])
        yield (
            f"{evaluation.run}: {evaluation.outdated} deliberated steps belong to episodes that were played again "
            f"since; they are left out. To take them again, run: {again}"
        )
    if evaluation.own_data and evaluation.world in paper.WORLDS:
        yield (
            f"{evaluation.run}: D_exp is our own, not the paper's ETO data: the world's expert made "
            f"{evaluation.own_data} of its trajectories. To compare with the paper, use sand collect --from"
        )
    yield from _step_limit(evaluation)
    yield from _leaks(evaluation)


def _step_limit(evaluation: Evaluation) -> Iterator[str]:
    """Whether episodes are as long as in the literature, which does not use the same limits everywhere."""
    limit = int(evaluation.settings.get("env.step_limit", "0"))
    if evaluation.world == "ScienceWorld" and limit:
        yield (
            f"{evaluation.run}: episodes end after {limit} steps; the literature's limits are those of the task types, "
            "10 to 120 steps, so its numbers are not comparable. To compare, set env.step_limit = 0"
        )
    steps = limit or STEP_LIMIT
    if evaluation.world == "ALFWorld" and steps != paper.ALFWORLD_STEPS:
        as_whom = "as in ETO and WKM" if steps == STEP_LIMIT else "as in no published comparison"
        yield (
            f"{evaluation.run}: episodes end after {steps} steps, {as_whom}; MPO, whose evaluation prompts the paper "
            f"uses, ends them after {paper.ALFWORLD_STEPS}. To compare with the paper, set env.step_limit = "
            f"{paper.ALFWORLD_STEPS}"
        )


def _redo_command(evaluation: Evaluation) -> str:
    """The command that evaluates all models of a run again."""
    limit = ["--limit", str(evaluation.limit)] if evaluation.limit else []
    return evaluation.command(*eval_flags(evaluation.scores), *limit, "--force")


def _leaks(evaluation: Evaluation) -> Iterator[str]:
    trained = [scores for model, scores in evaluation.scores.items() if split_agent(model)[0] != "base"]
    tasks = dict.fromkeys((score.split, score.task) for scores in trained for score in scores)
    for split in dict.fromkeys(split for split, _ in tasks if split != "train"):
        evaluated = [task for own, task in tasks if own == split]
        leaked = sum(task in evaluation.trained_tasks for task in evaluated)
        if leaked:
            yield (
                f"{evaluation.run}: {leaked} of the {len(evaluated)} {Suite(evaluation.world, split)} tasks are in its "
                "expert.jsonl, so the models were trained on them. "
                "Remove them from expert.jsonl and train again, or report only the other splits"
            )
