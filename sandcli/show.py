"""`sand show`: list a run's trajectories, read one, or read everything about one step."""

import difflib
import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from textwrap import shorten
from typing import TypeVar

from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from sandcli.agent.conversation import turn_messages
from sandcli.core.artifact import StageName
from sandcli.core.context import Context
from sandcli.core.run import D_DELIB, Run
from sandcli.core.store import Keyed, Records
from sandcli.errors import UsageError
from sandcli.records import Critique, Knowledge, Pair, Plan, Rollout, Sample, Step, Thought, Trajectory
from sandcli.terminal import entry, literal, visible, whole_line

R = TypeVar("R", bound=Keyed)

_SHORTENED = 80
"""Characters of an observation in the list of a trajectory's steps."""
_REPEATED = "(the same as above)"


def show_run(
    context: Context, name: str | None, step: int | None, tokens: bool, full: bool = False
) -> Iterator[RenderableType]:
    """The parts to print; `full` prints observations in full. Raises `UsageError` for an unknown trajectory or step."""
    context.run.artifact("collect").require()
    if name is None:
        yield from _overview(context.run)
        return
    expert = _expert(context.run, name)
    trajectory = _deliberated(context.run).get(name, expert)
    if step is not None and step >= len(trajectory.steps):
        raise UsageError(f"{name} has no step {step}", f"its steps are 0 to {len(trajectory.steps) - 1}")
    if tokens:
        yield from _tokens(context, trajectory)
    elif step is None:
        yield from _trajectory_view(context.run, trajectory, full)
    else:
        history = expert.steps[:step]  # the agent saw the thoughts of D_exp, not of D_delib
        yield from _StepView(context.run, trajectory, history, full).parts()


def _records(run: Run, stage: StageName, kind: type[R]) -> list[R]:
    """The records of a stage, finished or in progress; none if it has not begun."""
    recorded = run.artifact(stage).recorded()
    return [] if recorded is None else list(iter(recorded))  # list(recorded) asks for its length: a second read


def _deliberated(run: Run) -> dict[str, Trajectory]:
    path = run.artifact("synthesize").derived[D_DELIB]
    return {trajectory.id: trajectory for trajectory in Records(path, Trajectory)} if path.exists() else {}


def _expert(run: Run, name: str) -> Trajectory:
    known = {t.id: t for t in _records(run, "collect", Trajectory)}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        fix = (
            f"did you mean {close[0]}?"
            if close
            else f"{shlex.join(['sand', 'show', '--run', str(run.root)])} lists all trajectories"
        )
        raise UsageError(f"there is no trajectory {name!r}", fix)
    return known[name]


def _overview(run: Run) -> Iterator[RenderableType]:
    flagged: dict[str, list[int]] = {}
    for sample in _records(run, "sample", Sample):
        if sample.deliberate:
            flagged.setdefault(sample.id, []).append(sample.step)
    final = _deliberated(run)
    for trajectory in _records(run, "collect", Trajectory):
        steps = final.get(trajectory.id, trajectory).steps
        deliberated = [number for number, step in enumerate(steps) if step.deliberated]
        facts = [_count(len(steps), "step"), f"reward {trajectory.reward:.2f}"]
        if trajectory.id in flagged:
            facts.append(f"flagged {_ranges(flagged[trajectory.id])}")
        if deliberated:
            facts.append(f"deliberated {_ranges(deliberated)}")
        yield entry(trajectory.id, "; ".join(facts))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _ranges(numbers: Iterable[int]) -> str:
    """Numbers in a compact form: `0-3, 7, 9-10`."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def _trajectory_view(run: Run, trajectory: Trajectory, full: bool) -> Iterator[RenderableType]:
    flagged = {s.step for s in _records(run, "sample", Sample) if s.id == trajectory.id and s.deliberate}
    yield whole_line(trajectory.id, "bold")
    yield literal(trajectory.instruction)
    texts = [Column(name, overflow="fold") for name in ("thought", "action", "observation")]
    table = Table("step", "flagged", *texts, Column("score", justify="right"))
    for number, step in enumerate(trajectory.steps):
        observation = step.observation if full else shorten(step.observation, _SHORTENED)
        mark = "yes" if number in flagged else ""
        cells = map(literal, (step.thought, step.action, observation))
        table.add_row(str(number), mark, *cells, f"{step.score:.2f}")
    yield table
    for plan in _records(run, "plan", Plan):
        if plan.task == trajectory.task:
            yield _panel(f"plan {plan.draw}", literal(plan.plan))
    for written in _records(run, "knowledge", Knowledge):
        if written.id == trajectory.id:
            kind = f"state knowledge, step {written.step}" if written.step else "task knowledge"
            yield _panel(kind, literal(written.text))
    for pair in _records(run, "pairs", Pair):
        if pair.id == trajectory.id:
            yield from _pair(pair, full)


def _pair(pair: Pair, full: bool) -> Iterator[RenderableType]:
    name = " ".join(["pair", *map(str, pair.place)])
    for side, origin, reward, said in (
        ("chosen", pair.chosen_from, pair.chosen_reward, pair.chosen),
        ("rejected", pair.rejected_from, pair.rejected_reward, pair.rejected),
    ):
        texts = (
            each.content if full or each.role == "assistant" else shorten(each.content, _SHORTENED) for each in said
        )
        yield _panel(f"{name}: {side} ({origin}, reward {reward:.2f})", literal("\n".join(texts)))


class _StepView:
    """Everything about the step after a history: that, candidates, rollouts, critiques, deliberation.

    A long observation is printed once and later replaced by a reference, unless `full` is set.
    """

    def __init__(self, run: Run, trajectory: Trajectory, history: Sequence[Step], full: bool) -> None:
        self._run, self._trajectory, self._history, self._full = run, trajectory, history, full
        self._number = len(history)
        self._printed: set[str] = set()

    def parts(self) -> Iterator[RenderableType]:
        """The parts to print."""
        trajectory, number = self._trajectory, self._number
        yield whole_line(trajectory.id, "bold")
        yield _panel(f"step {number}: task", literal(trajectory.instruction))
        yield _panel("history", self._steps(self._history) if self._history else Text("(this is the first step)"))
        for sample in self._about(_records(self._run, "sample", Sample)):
            yield from _candidates(sample)
        critiques = {c.candidate: c for c in self._about(_records(self._run, "critique", Critique))}
        for rollout in self._about(_records(self._run, "rollout", Rollout)):
            yield self._rollout(rollout, critiques.get(rollout.candidate))
        for thought in self._about(_records(self._run, "synthesize", Thought)):
            yield _thought(thought)
        step = trajectory.steps[number]
        yield _panel("trained on", literal(_said(step)))

    def _about(self, records: Sequence[R]) -> list[R]:
        """The records of this step."""
        return [record for record in records if record.key[:2] == (self._trajectory.id, self._number)]

    def _steps(self, steps: Iterable[Step]) -> Text:
        lines = (f"{_said(step)}\nObservation: {self._observation(step.observation)}" for step in steps)
        return literal("\n\n".join(lines))

    def _observation(self, text: str) -> str:
        if text in self._printed and len(text) > len(_REPEATED) and not self._full:
            return _REPEATED
        self._printed.add(text)
        return text

    def _rollout(self, rollout: Rollout, critique: Critique | None) -> Panel:
        name = "expert" if rollout.expert else f"candidate {rollout.candidate}"
        body = self._steps(rollout.steps)
        body.append(f"\n\nend: {rollout.end}, reward {rollout.reward:.2f}", style="bold")
        if critique is not None:
            body.append(f"\nCritique: {visible(critique.critique)}", style="cyan")
        return _panel(f"{name}: {rollout.action}", body)


def _said(step: Step) -> str:
    """The agent's turn, as it is in the conversation."""
    return turn_messages(step)[0].content


def _panel(title: str, body: Text) -> Panel:
    return Panel(body, title=literal(title), title_align="left")


def _candidates(sample: Sample) -> Iterator[RenderableType]:
    yield Text(f"candidates from {_count(sample.drawn, 'sample')}, {sample.unparsable} unparsable")
    table = Table("", Column("action", overflow="fold"), Column("samples", justify="right"))
    for number, candidate in enumerate(sample.candidates):
        table.add_row("expert" if number == 0 else str(number), literal(candidate.action), str(candidate.count))
    yield table


def _thought(thought: Thought) -> Panel:
    body = literal(thought.thought or "(no attempt passed the checks: the step keeps its original thought)")
    for reason in thought.rejected:
        body.append(f"\nrejected: {visible(reason)}", style="dim")
    return _panel(f"deliberation, {_count(thought.attempts, 'attempt')}", body)


def _tokens(context: Context, trajectory: Trajectory) -> Iterator[RenderableType]:
    """The trajectory as training sees it; tokens with loss are coloured and bracketed."""
    from sandcli.engines.tokens import load_tokenizer
    from sandcli.training.rows import IGNORED, training_row

    base = context.base_model()
    tokenizer = load_tokenizer(base.folder, base.trust_code)
    row = training_row(tokenizer, context.preamble, trajectory)
    text = Text()
    pairs = zip(row.input_ids, row.labels, strict=True)
    for ignored, run in groupby(pairs, key=lambda pair: pair[1] == IGNORED):  # a character may be several tokens
        words = visible(tokenizer.decode([token for token, _ in run]))
        text.append(*((words, "dim") if ignored else (f"⟦{words}⟧", "bold green")))
    trained = sum(label != IGNORED for label in row.labels)
    yield _panel(f"{len(row.labels)} tokens, {trained} with loss (green, in ⟦ ⟧)", text)
