"""`sand report`: read evaluated runs and build the paper's tables and figures."""

import os.path
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from sandcli.config import FILE, resolve
from sandcli.core.artifact import StageName
from sandcli.core.run import Run
from sandcli.core.stage import unit_name
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.files import write_atomic
from sandcli.models import fingerprint
from sandcli.records import Episode, Key
from sandcli.report.bands import banded_scores
from sandcli.report.compare import warnings
from sandcli.report.details import differences, difficulty, steps, success, types
from sandcli.report.formats import comma_separated, latex, markdown, terminal
from sandcli.report.parts import Figure, Grid
from sandcli.report.rows import agent_rows
from sandcli.report.scores import AgentRow, Evaluation, Score, by_group, worlds_of
from sandcli.report.sheets import Sheet, grid, plain
from sandcli.report.tables import table2, table3, table4
from sandcli.settings import Settings

_WORLDS = {"scienceworld": "ScienceWorld", "alfworld": "ALFWorld"}


@dataclass(frozen=True)
class Report:
    """The report on some runs.

    `warnings` say which numbers are not comparable. `missing` says which parts are missing, and the command that adds
    each.
    """

    roots: list[Path]
    rows: list[AgentRow]
    sheets: list[Sheet]
    warnings: list[str]
    missing: list[str]

    @cached_property
    def grids(self) -> list[Grid]:
        """The tables as text."""
        return [grid(sheet) for sheet in self.sheets]

    @cached_property
    def figures(self) -> list[Figure]:
        """Figures 3 and 4, if there is data for them. Drawing takes a second or two."""
        from sandcli.report.figures import figure3, figure4

        return [figure for figure in (figure3(self.rows), figure4(self.rows)) if figure is not None]

    def plain(self) -> dict[str, Any]:
        """All numbers for `--json`."""
        tables = {sheet.name: plain(sheet) for sheet in self.sheets}
        return {**tables, "warnings": self.warnings, "missing": self.missing}


def build_report(given: Sequence[Path]) -> Report:
    """The report on run directories. Raises `PrerequisiteError` if one is no run directory or has no evaluation."""
    roots = list({root.resolve(): root for root in given}.values())
    evaluations = [read_run(root) for root in roots]
    rows = agent_rows(evaluations)
    makers = (table2, differences, success, table3, table4, steps, difficulty, types)
    sheets = [sheet for sheet in (make(rows) for make in makers) if sheet is not None]
    return Report(roots, rows, sheets, warnings(evaluations, rows), _missing_parts(evaluations, rows))


def read_run(root: Path) -> Evaluation:
    """What was evaluated in a run, without the texts; only sand.toml says what the run is, not today's environment.

    Raises `PrerequisiteError` if it is no run directory or has no evaluation.
    """
    run = Run(root)
    if not (root / FILE).is_file():
        raise PrerequisiteError(f"{root} is not a run directory: it has no {FILE}", "give folders made by sand init")
    settings = resolve(root, {}, {}).settings
    (scores, keys), manifest = _scores(run), run.artifact("eval").manifest()
    return Evaluation(
        run=str(root),
        base=_base(root, settings),
        world=_WORLDS.get(settings.env.name, settings.env.name.rpartition(":")[2]),
        iteration=settings.run.iteration,
        without=_without(run, settings),
        scores=scores,
        settings=manifest.identity.settings if manifest else {},
        failed=len(run.artifact("eval").failures()),
        accepted=tuple(manifest.accepted) if manifest else (),
        trained_tasks=_trained_tasks(run),
        retrained=_retrained(run, settings, keys),
        limit=manifest.identity.limit if manifest else None,
    )


def tables_for_terminal(report: Report) -> Iterator[Text]:
    """The tables as printed on the terminal. The long table by task type is only in the other formats."""
    width = Console().width
    return (terminal(table, width) for table in report.grids if table.name != "types")


def tables_as(report: Report, form: Literal["markdown", "csv", "latex"]) -> str:
    """All tables as one text."""
    if form == "csv":
        return "\n".join(f"# {sheet.title}\n{comma_separated(sheet)}" for sheet in report.sheets)
    return "\n".join(map(markdown if form == "markdown" else latex, report.grids))


def write_files(report: Report, folder: Path) -> list[Path]:
    """Write every table (Markdown, CSV, LaTeX), every figure (SVG, PNG) and the warnings. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, bytes] = {}
    for sheet, table in zip(report.sheets, report.grids, strict=True):
        contents[f"{sheet.name}.md"] = markdown(table).encode()
        contents[f"{sheet.name}.csv"] = comma_separated(sheet).encode()
        contents[f"{sheet.name}.tex"] = latex(table).encode()
    for figure in report.figures:
        contents[f"{figure.name}.svg"] = figure.svg.encode()
        contents[f"{figure.name}.png"] = figure.png
    contents["warnings.txt"] = "".join(f"{line}\n" for line in (*report.warnings, *report.missing)).encode()
    for name, content in contents.items():
        write_atomic(folder / name, [content])
    return [folder / name for name in contents]


def _scores(run: Run) -> tuple[dict[str, list[Score]], set[Key]]:
    """The scores of each model, and the keys of all episodes."""
    scores: dict[str, list[Score]] = {}
    seen: set[Key] = set()
    path = run.artifact("eval").path
    for number, episode in enumerate(run.episodes(), 1):
        if episode.key in seen:
            raise UsageError(f"{path}: record {number} repeats an earlier episode", "delete one of the two lines")
        seen.add(episode.key)
        scores.setdefault(episode.model, []).append(_score(episode))
    if not scores:
        raise PrerequisiteError(f"{path} contains no episodes", f"sand eval --run {run.root}")
    return scores, seen


def _score(episode: Episode) -> Score:
    return Score(
        split=episode.split,
        task=str(episode.task),
        kind=episode.task.name,
        reward=episode.reward,
        success=episode.success,
        steps=len(episode.steps),
        deliberated=episode.deliberated,
        tokens=episode.tokens,
    )


def _base(root: Path, settings: Settings) -> str:
    """Identifies the base model: the path of its folder, or its name if there is no such folder."""
    inside = root / settings.model.base
    return os.path.normpath(inside.absolute()) if inside.exists() else settings.model.base


def _trained_tasks(run: Run) -> frozenset[str]:
    """The tasks of D_exp; none if D_exp does not exist."""
    exists = run.artifact("collect").path.exists()
    return frozenset(str(trajectory.task) for trajectory in run.trajectories()) if exists else frozenset()


def _without(run: Run, settings: Settings) -> Literal["none", "sampling", "critique"]:
    """The ablation that made the deliberations, which a flag may have set; that of sand.toml if there are none."""
    manifest = run.artifact("synthesize").manifest()
    made: Any = manifest.identity.settings.get("method.without") if manifest else None
    return made or settings.method.without


def _retrained(run: Run, settings: Settings, evaluated: set[Key]) -> tuple[str, ...]:
    """Models of the run that were trained again after some of their episodes."""
    if settings.engine.kind == "scripted":
        return ()
    made: dict[str, StageName] = {"model": "train", "sft": "sft"}
    paths = {name: run.artifact(stage).path for name, stage in made.items()}
    folders = {name: path for name, path in paths.items() if path.exists()}
    current = {name: fingerprint(folder) for name, folder in folders.items()}
    before = run.artifact("eval").digests()
    changed = {str(key[-1]) for key in evaluated if before.get(unit_name(key)) != current.get(str(key[-1]))}
    return tuple(name for name in current if name in changed)


def _missing_parts(evaluations: Sequence[Evaluation], rows: Sequence[AgentRow]) -> list[str]:
    """What the paper has and this report lacks, each with the command that adds it."""
    more = {e.run: f"sand eval --run {e.run}" + (f" --limit {e.limit}" if e.limit else "") for e in evaluations}
    found = list(_without_bands(rows, more))
    if not any(row.kind in ("base", "sft", "sand") for row in rows):
        found.append("no Figure 3, which needs a run of the full method: sand init --run NEW")
    if not found and not any(row.kind == "sand" for row in rows):
        ablated = {run for row in rows if row.kind == "ablation" for run, _ in row.sources.values()}
        full = [run for row in rows for run, _ in row.sources.values() if run not in ablated]
        command = f"{more[full[0]]} --models model" if full else "sand init --run NEW"
        found.append(f"no Figure 4, which needs the model of an iteration: {command}")
    if not any(row.kind == "ablation" for row in rows):
        found.append(
            "no Table 3, which needs a separate run with the same settings: sand init --run NEW --without sampling"
        )
    return found


def _without_bands(rows: Sequence[AgentRow], more: Mapping[str, str]) -> Iterator[str]:
    """Groups and worlds without difficulty bands. `more` holds the command that evaluates more, by run."""
    with_bands = {(part.row.group, part.world) for part in banded_scores(rows)}
    for group, members in by_group(rows).items():
        if not worlds_of(members):
            run, _ = next(iter(members[0].sources.values()))
            yield f"only training tasks were evaluated for {group}: {more[run]} --splits seen,unseen"
        for world in worlds_of(members):
            if (group, world) in with_bands:
                continue
            what = f"no difficulty bands and no Figure 4 for {group} on {world}"
            own = [row for row in members if world in row.sources]
            if any(row.kind == "base" and row.held_out(world) for row in own):
                yield f"{what}: the base model earned the same reward on every task"
            else:
                run, _ = own[0].sources[world]
                yield f"{what}, which need an evaluation of the base model: {more[run]} --models base"
