"""What the paper has and a report lacks, each with the command that adds it."""

from collections.abc import Iterator, Mapping, Sequence

from sandcli.report.bands import banded_scores
from sandcli.report.scores import AgentRow, Evaluation, Suite, by_group, worlds_of


def missing_parts(evaluations: Sequence[Evaluation], rows: Sequence[AgentRow]) -> list[str]:
    """A line for every table, figure or test set that is missing."""
    commands = {e.run: e.command(*(["--limit", str(e.limit)] if e.limit else [])) for e in evaluations}
    found = list(_bands(rows, commands, on_panel=any(e.panel for e in evaluations)))
    if not any(row.kind in ("base", "sft", "sand") for row in rows):
        found.append("no Figure 3, which needs a run of the full method: sand init --run NEW")
    if not found and not any(row.kind == "sand" for row in rows):
        found.append(f"no Figure 4, which needs the model of an iteration: {_model_command(rows, commands)}")
    if not any(row.kind == "ablation" for row in rows):
        found.append(
            "no Table 3, which needs a separate run with the same settings: sand init --run NEW --without sampling"
        )
    return found


def _model_command(rows: Sequence[AgentRow], commands: Mapping[str, str]) -> str:
    """The command that evaluates the model of an iteration; a run with an ablation or a baseline has none."""
    others = {run for row in rows if row.kind in ("ablation", "baseline") for run, _ in row.sources.values()}
    full = [run for row in rows for run, _ in row.sources.values() if run not in others]
    return f"{commands[full[0]]} --models model" if full else "sand init --run NEW"


def _bands(rows: Sequence[AgentRow], commands: Mapping[str, str], on_panel: bool) -> Iterator[str]:
    """The worlds without difficulty bands. `commands` are the commands that evaluate more of each run.

    A panel need not have unseen tasks: with one, they are missed only if some row has them.
    """
    with_bands = {(part.row.group, part.suite) for part in banded_scores(rows)}
    for group, members in by_group(rows).items():
        if not worlds_of(members) and not on_panel:
            run, _ = next(iter(members[0].sources.values()))
            yield f"only training tasks were evaluated for {group}: {commands[run]} --splits seen,unseen"
        for world in worlds_of(members):
            unseen = Suite(world, "unseen")
            wanted = not on_panel or any(unseen in row.scores for row in members)
            if wanted and (group, unseen) not in with_bands:
                own = [row for row in members if world in row.sources]
                yield f"no difficulty bands and no Figure 4 for {group} on {unseen}{_reason(own, unseen, commands)}"


def _reason(rows: Sequence[AgentRow], unseen: Suite, commands: Mapping[str, str]) -> str:
    """Why there are no bands of the unseen tasks, which Figure 4 shows."""
    if any(row.kind == "base" and unseen in row.scores for row in rows):
        return ": the base model earned the same reward on every task"
    run, _ = rows[0].sources[unseen.world]
    if not any(unseen in row.scores for row in rows):
        return f", which was not evaluated: {commands[run]} --splits unseen --models base,model"
    return f", which need an evaluation of the base model: {commands[run]} --models base"
