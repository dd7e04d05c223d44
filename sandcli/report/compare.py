"""What may be compared with what: differences on the same tasks, and warnings where numbers are not comparable."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from sandcli.report import paper
from sandcli.report.estimates import Difference, bootstrap
from sandcli.report.scores import Evaluation, Row, Score, Suite, suites_of

_NAMES = {
    "agent.max_tokens": "the longest turn (agent.max_tokens)",
    "agent.max_invalid": "the invalid actions allowed (agent.max_invalid)",
    "env.step_limit": "the step limit (env.step_limit)",
    "env.simplifications": "the simplifications (env.simplifications)",
    "env.grammar": "the games' grammar (env.games)",
    "prompt.instruction": "the agent's prompt",
    "engine.max_length": "the longest conversation (engine.max_length)",
    "schema": "the version of the records",
}


def reference(row: Row, suite: Suite, members: Sequence[Row]) -> Row | None:
    """What a row of a base model is held against on a test set; None where there is no other.

    SFT where there is one, else the base model, else the first; of several the one from the nearest folder.
    """
    there = [member for member in members if suite in member.scores]
    kinds = [[member for member in there if member.kind == kind] for kind in ("sft", "base")]
    choice = next((found for found in kinds if found), there[:1])
    if row in choice:
        return choice[0] if row is not choice[0] else None
    return max(choice, key=lambda member: _nearness(member, row, suite.world))


def _nearness(one: Row, other: Row, world: str) -> int:
    """How many folders two runs have in common, from the root."""
    parts = [Path(row.sources[world][0]).resolve().parts for row in (one, other)]
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*parts, strict=False))))


def difference(scores: Sequence[Score], against: Sequence[Score]) -> Difference | None:
    """The mean paired difference in reward, x100, on the tasks that both have; none where there is no such task."""
    known = {score.task: score.reward for score in against}
    paired = [score.reward - known[score.task] for score in scores if score.task in known]
    return Difference(*bootstrap(paired).times(100), len(paired)) if paired else None


def warnings(evaluations: Sequence[Evaluation], rows: Sequence[Row]) -> list[str]:
    """A line for everything that makes rows incomparable: which runs, what differs, and how to mend it."""
    return [
        *_settings(evaluations),
        *_test_sets(rows),
        *(line for evaluation in evaluations for line in _own(evaluation)),
    ]


def _settings(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    for world in dict.fromkeys(evaluation.world for evaluation in evaluations):
        same = [evaluation for evaluation in evaluations if evaluation.world == world]
        for key in sorted({key for evaluation in same for key in evaluation.settings}):
            runs: dict[str, list[str]] = {}
            for evaluation in same:
                runs.setdefault(evaluation.settings.get(key, "none"), []).append(evaluation.run)
            if len(runs) > 1:
                yield _differing(world, key, runs)


def _differing(world: str, key: str, runs: Mapping[str, list[str]]) -> str:
    name = _NAMES.get(key, f"the version of {key.removeprefix('env.')}")
    values = "; ".join(f"{value} in {', '.join(found)}" for value, found in runs.items())
    last = list(runs.values())[-1][0]
    return f"{world}: {name} differs: {values}. Make it the same, then: sand eval --run {last} --force"


def _test_sets(rows: Sequence[Row]) -> Iterator[str]:
    """Rows whose tasks are others than those of the row that has most."""
    for suite in suites_of(rows):
        there = [row for row in rows if any(held.world == suite.world for held in row.scores)]
        fullest = max(there, key=lambda row: len(row.scores.get(suite, [])))
        tasks = {score.task for score in fullest.scores[suite]}
        for row in there:
            own = {score.task for score in row.scores.get(suite, [])}
            if own != tasks:
                yield _uneven(suite, row, own, fullest, tasks)


def _uneven(suite: Suite, row: Row, own: set[str], fullest: Row, tasks: set[str]) -> str:
    run, model = row.sources[suite.world]
    other, _ = fullest.sources[suite.world]
    there = f"has {len(own)} tasks" if own else "has no task"
    common = f", {len(own & tasks)} in common" if own else ""
    return (
        f"{suite}: {row.group}, {row.label} ({run}) {there}, {fullest.group}, {fullest.label} ({other}) has "
        f"{len(tasks)}{common}. With the same env.tasks and --limit: "
        f"sand eval --run {run} --splits {suite.split} --models {model}"
    )


def _own(evaluation: Evaluation) -> Iterator[str]:
    """What is wrong with one run, whatever it is compared with."""
    if evaluation.missing:
        yield (
            f"{evaluation.run}: {evaluation.missing} episodes failed and are left out. "
            f"Try them again: sand eval --run {evaluation.run}"
        )
    if evaluation.accepted:
        yield (
            f"{evaluation.run}: some episodes were made under other settings ({'; '.join(evaluation.accepted)}). "
            f"Redo them: {_anew(evaluation)}"
        )
    for model in evaluation.replaced:
        yield (
            f"{evaluation.run}: its {model} was trained anew after it was evaluated. "
            f"Evaluate it again: {_anew(evaluation)}"
        )
    limit = evaluation.settings.get("env.step_limit", "0")
    if limit != "0" and evaluation.world in paper.TABLE4:
        yield (
            f"{evaluation.run}: episodes end after {limit} steps, the paper's later: its numbers are no measure here. "
            "To compare with it set env.step_limit = 0"
        )
    yield from _leaks(evaluation)


def _anew(evaluation: Evaluation) -> str:
    """The command that makes all episodes of a run again."""
    limit = f" --limit {evaluation.limit}" if evaluation.limit else ""
    return f"sand eval --run {evaluation.run} --models {','.join(evaluation.scores)}{limit} --force"


def _leaks(evaluation: Evaluation) -> Iterator[str]:
    trained = [scores for model, scores in evaluation.scores.items() if model != "base"]
    tasks = dict.fromkeys((score.split, score.task) for scores in trained for score in scores)
    for split in dict.fromkeys(split for split, _ in tasks if split != "train"):
        evaluated = [task for held, task in tasks if held == split]
        leaked = sum(task in evaluation.trained for task in evaluated)
        if leaked:
            yield (
                f"{evaluation.run}: {leaked} of the {len(evaluated)} {Suite(evaluation.world, split)} tasks are in its "
                "expert.jsonl too, so they were trained on. "
                "Take them out of expert.jsonl and train again, or report the other splits alone"
            )
