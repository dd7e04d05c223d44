"""`sand show`: read a run by eye: its trajectories, or one step whole, from history to thought."""

import difflib
from collections.abc import Iterable, Iterator
from itertools import groupby
from textwrap import shorten
from typing import TypeVar

from rich.console import RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sandcli.core.artifact import StageName
from sandcli.core.context import Context
from sandcli.core.run import D_DELIB, Run
from sandcli.core.store import Keyed, Records
from sandcli.errors import UsageError
from sandcli.records import Critique, Rollout, Sample, Step, Thought, Trajectory

R = TypeVar("R", bound=Keyed)

_SHOWN = 80
"""Characters of an observation in the overview; `--step` shows all of it."""


def show_run(context: Context, name: str | None, step: int | None, tokens: bool) -> Iterator[RenderableType]:
    """The parts to print. Raises `UsageError` for an unknown trajectory or step."""
    context.run.artifact("collect").require()
    if name is None:
        yield _overview(context.run)
        return
    trajectory = _trajectory(context.run, name)
    if step is not None and step >= len(trajectory.steps):
        raise UsageError(f"{name} has no step {step}", f"its steps are 0 to {len(trajectory.steps) - 1}")
    if tokens:
        yield from _tokens(context, trajectory)
    elif step is None:
        yield _steps(context.run, trajectory)
    else:
        history = _expert(context.run, name).steps[:step]  # the agent saw the thoughts of D_exp, not of D_delib
        yield from _step(context.run, trajectory, step, history)


def _records(run: Run, stage: StageName, kind: type[R]) -> list[R]:
    """The records of a stage, finished or in progress; none if it has not begun."""
    return list(run.artifact(stage).recorded() or ())


def _deliberated(run: Run) -> dict[str, Trajectory]:
    path = run.artifact("synthesize").derived[D_DELIB]
    return {trajectory.id: trajectory for trajectory in Records(path, Trajectory)} if path.exists() else {}


def _trajectory(run: Run, name: str) -> Trajectory:
    """From D_delib where it is there, else from D_exp."""
    return _deliberated(run).get(name, _expert(run, name))


def _expert(run: Run, name: str) -> Trajectory:
    known = {t.id: t for t in _records(run, "collect", Trajectory)}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        fix = f"did you mean {close[0]}?" if close else f"sand show --run {run.root} lists all"
        raise UsageError(f"there is no trajectory {name!r}", fix)
    return known[name]


def _overview(run: Run) -> Table:
    drawn = Table()
    drawn.add_column("trajectory", overflow="fold")
    for heading in ("steps", "reward", "flagged steps", "deliberated steps"):
        drawn.add_column(heading)
    flagged: dict[str, list[int]] = {}
    for sample in _records(run, "sample", Sample):
        if sample.deliberate:
            flagged.setdefault(sample.id, []).append(sample.step)
    final = _deliberated(run)
    for trajectory in _records(run, "collect", Trajectory):
        steps = final.get(trajectory.id, trajectory).steps
        deliberated = [number for number, step in enumerate(steps) if step.deliberated]
        drawn.add_row(
            trajectory.id,
            str(len(steps)),
            f"{trajectory.reward:.2f}",
            _numbers(flagged.get(trajectory.id, [])),
            _numbers(deliberated),
        )
    return drawn


def _numbers(values: Iterable[int]) -> str:
    return " ".join(map(str, values))


def _steps(run: Run, trajectory: Trajectory) -> Table:
    flagged = {s.step for s in _records(run, "sample", Sample) if s.id == trajectory.id and s.deliberate}
    drawn = Table("step", "flagged", "thought", "action", "observation", "score", title=escape(trajectory.instruction))
    for number, step in enumerate(trajectory.steps):
        mark = "yes" if number in flagged else ""
        texts = (step.thought, step.action, shorten(step.observation, _SHOWN))
        drawn.add_row(str(number), mark, *map(escape, texts), str(step.score))
    return drawn


def _step(run: Run, trajectory: Trajectory, number: int, history: list[Step]) -> Iterator[RenderableType]:
    key = (trajectory.id, number)
    yield Panel(Text(trajectory.instruction), title=f"{trajectory.id}, step {number}: the task", title_align="left")
    yield Panel(_told(history), title="history", title_align="left")
    samples = [s for s in _records(run, "sample", Sample) if s.key == key]
    yield from (_candidates(sample) for sample in samples)
    critiques = {c.key: c for c in _records(run, "critique", Critique) if c.key[:2] == key}
    for rollout in _records(run, "rollout", Rollout):
        if rollout.key[:2] == key:
            yield _rollout(rollout, critiques.get(rollout.key))
    for thought in _records(run, "synthesize", Thought):
        if thought.key == key:
            yield _thought(thought)
    step = trajectory.steps[number]
    yield Panel(Text(f"Thought: {step.thought}\nAction: {step.action}"), title="trained on", title_align="left")


def _told(steps: Iterable[Step]) -> Text:
    lines = [f"Thought: {s.thought}\nAction: {s.action}\nObservation: {s.observation}" for s in steps]
    return Text("\n\n".join(lines) or "(the first step)")


def _candidates(sample: Sample) -> Table:
    title = f"candidates of {sample.drawn} draws, {sample.unparsable} unparsable"
    drawn = Table("", "action", "draws", title=title, title_justify="left")
    for number, candidate in enumerate(sample.candidates):
        drawn.add_row("expert" if number == 0 else str(number), escape(candidate.action), str(candidate.count))
    return drawn


def _rollout(rollout: Rollout, critique: Critique | None) -> Panel:
    who = "expert" if rollout.expert else f"candidate {rollout.candidate}"
    body = _told(rollout.steps)
    body.append(f"\n\nended: {rollout.end}, reward {rollout.reward:.2f}", style="bold")
    if critique is not None:
        body.append(f"\nCritique: {critique.critique}", style="cyan")
    return Panel(body, title=escape(f"{who}: {rollout.action}"), title_align="left")


def _thought(thought: Thought) -> Panel:
    tried = f"{thought.attempts} attempts" + "".join(f"; rejected: {reason}" for reason in thought.rejected)
    return Panel(
        Text(thought.thought or "(none passed the checks: the original thought stays)"),
        title=f"deliberation, {tried}",
        title_align="left",
    )


def _tokens(context: Context, trajectory: Trajectory) -> Iterator[RenderableType]:
    """The trajectory as it is trained on: tokens with loss in colour, and marked where there is no colour."""
    from sandcli.engines.tokens import load_tokenizer
    from sandcli.training.rows import IGNORED, tokenise, training_messages

    tokenizer = load_tokenizer(context.base_model().folder)
    row = tokenise(tokenizer, training_messages(context.world.system, trajectory))
    text = Text()
    pairs = zip(row.input_ids, row.labels, strict=True)
    for silent, run in groupby(pairs, key=lambda pair: pair[1] == IGNORED):  # a letter may be several tokens
        words = tokenizer.decode([token for token, _ in run])
        text.append(*((words, "dim") if silent else (f"⟦{words}⟧", "bold green")))
    trained = sum(label != IGNORED for label in row.labels)
    yield Panel(text, title=f"{len(row.labels)} tokens, {trained} with loss (green, in ⟦ ⟧)", title_align="left")
