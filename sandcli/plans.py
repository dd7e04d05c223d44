"""The plan of an experiment: which arms are compared, with which seeds, on which tasks. Pure.

A plan is a TOML file:

    seeds = [0, 1, 2]
    limit = 200                  # trajectories of D_exp
    panel = "scienceworld-short" # what every agent is evaluated on
    preset = "scienceworld-smollm2-135m"

    [settings]                   # of every run, as in sand.toml; they override the preset's
    train.epochs = 2

    [arms.sft]                   # an arm's own settings
    eval.models = ["sft"]

    [arms.sand]

    [arms.rft]
    updates_of = "sand"          # as many optimiser steps as that arm's training took
    method.name = "rft"
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from sandcli.config import FILE, Scalar, check_value
from sandcli.core.artifact import StageName
from sandcli.core.run import EXPERT, LEARNING, PLAN, Run
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.fields import fields
from sandcli.new_run import with_method_defaults
from sandcli.pipeline import stages_of
from sandcli.records import Record
from sandcli.settings import Settings

Tables = Mapping[str, Any]
"""Settings as in sand.toml: tables of keys and values."""

Arm = Annotated[str, Meta(pattern=r"^[\w-]+$")]
"""The name of an arm, which is also that of its folder."""


class Plan(Record, frozen=True, kw_only=True):
    """The content of a plan.

    `limit` counts trajectories of D_exp, `tasks` the tasks of each split that are evaluated if there is no `panel`;
    None is all of them. `settings` override those of the `preset`, and an arm's own settings override both.
    """

    arms: Annotated[dict[Arm, dict[str, Any]], Meta(min_length=1)]
    seeds: Annotated[list[Annotated[int, Meta(ge=0, le=2**63 - 1)]], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: [0]
    )
    limit: Annotated[int, Meta(ge=1)] | None = None
    tasks: Annotated[int, Meta(ge=1)] | None = None
    panel: str = ""
    preset: str = ""
    settings: dict[str, Any] = msgspec.field(default_factory=dict)


class PlannedRun(NamedTuple):
    """One arm with one seed. `settings` are by `table.key`; `updates_of` names the arm with as many optimiser steps."""

    arm: str
    seed: int
    settings: dict[str, Scalar]
    updates_of: str

    @property
    def folder(self) -> str:
        """Its run directory, below the experiment's."""
        return f"{self.arm}/seed{self.seed}"


def read_plan(path: Path) -> Plan:
    """Read a plan. Raises `PrerequisiteError` if it is missing, `UsageError` if it is no plan."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        _check_keys(path, content)
        plan = msgspec.convert(content, Plan)
    except FileNotFoundError:
        raise PrerequisiteError(f"there is no plan {path}", "write one: see docs/experiments.md") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "give the plan's file") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a valid plan: {error}", "see docs/experiments.md") from None
    _check_settings(path, "settings", flat(plan.settings))
    for arm, tables in plan.arms.items():
        _check_settings(path, f"arms.{arm}", _own_settings(tables), "updates_of")
    _check_arms(path, plan)
    return plan


def _check_keys(path: Path, content: Mapping[str, Any]) -> None:
    known = list(Plan.__struct_fields__)
    for key in content:
        if key not in known:
            raise _unknown(path, "", key, known)


def _check_settings(path: Path, place: str, settings: Mapping[str, Scalar], *others: str) -> None:
    """Raise `UsageError` for an unknown setting, or a wrong value; `others` are the other keys of that place."""
    known = [field.name for field in fields()]
    for name, value in settings.items():
        if name not in known:
            raise _unknown(path, f"{place}.", name, [*known, *others])
        check_value(name, value, f"{path}: {place}")


def _unknown(path: Path, place: str, key: str, known: Sequence[str]) -> UsageError:
    """The error for a key of the plan, as it is written there; `place` is the table that it is in."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    fix = f"did you mean {place}{close[0]}?" if close else "see docs/experiments.md"
    return UsageError(f"{path}: unknown key {place}{key}", fix)


def _check_arms(path: Path, plan: Plan) -> None:
    if len(set(plan.seeds)) < len(plan.seeds):
        raise UsageError(f"{path}: a seed is listed twice in {plan.seeds}", "list each once")
    if plan.panel and plan.tasks:
        raise UsageError(f"{path}: it has tasks and a panel, which fixes the tasks", "leave out tasks")
    earlier: list[str] = []
    for arm, tables in plan.arms.items():
        if arm == EXPERT:
            raise UsageError(
                f"{path}: {arm!r} cannot be the name of an arm", "it is the folder of D_exp; rename the arm"
            )
        if fixed := [name for name in ("run.seed", "run.label", "eval.panel") if name in _own_settings(tables)]:
            raise UsageError(
                f"{path}: arms.{arm}: {fixed[0]} is the plan's to set", "leave it out; see seeds and panel"
            )
        if "collect" in tables:
            raise UsageError(f"{path}: arms.{arm}: all arms share one D_exp", "move collect to [settings]")
        if (wanted := tables.get("updates_of")) is not None and wanted not in earlier:
            raise UsageError(
                f"{path}: arms.{arm}: updates_of names {wanted!r}, which is not an earlier arm", "name an earlier arm"
            )
        earlier.append(arm)


def expert_settings(plan: Plan) -> dict[str, Scalar]:
    """The settings of the run that collects D_exp."""
    return with_method_defaults(flat(plan.settings), plan.preset)


def _own_settings(tables: Tables) -> dict[str, Scalar]:
    """An arm's own settings: all that its table holds but `updates_of`."""
    return flat({name: content for name, content in tables.items() if name != "updates_of"})


def planned_runs(plan: Plan, seeds: Sequence[int]) -> Iterator[PlannedRun]:
    """Every arm with every seed, in the order in which they are made: all arms of a seed, then the next seed.

    An arm that trains nothing and plays greedily does not depend on the seed, so it has only one run.
    """
    shared = {**flat(plan.settings), **({"eval.panel": plan.panel} if plan.panel else {})}
    for seed in seeds:
        for arm, tables in plan.arms.items():
            own = {**shared, **_own_settings(tables), "run.seed": seed, "run.label": arm}
            known = with_method_defaults(own, plan.preset)
            settings = {name: value for name, value in known.items() if not name.startswith("collect.")}
            if seed == seeds[0] or not _untrained(settings):
                yield PlannedRun(arm, seed, settings, str(tables.get("updates_of", "")))


def runs_of(folder: Path) -> list[Path]:
    """The evaluated runs of an experiment, in the plan's order, or of one of its arms; else the folder itself."""
    if (folder / FILE).is_file():
        return [folder]
    is_experiment = (folder / PLAN).is_file()
    arms = [folder / arm for arm in read_plan(folder / PLAN).arms] if is_experiment else [folder]
    runs = [run for arm in arms for run in _runs_of_arm(arm)]
    if not runs and not is_experiment:
        return [folder]
    found = [run for run in runs if (run / "eval.jsonl").exists()]
    if not found:
        root = folder if is_experiment else Run(runs[0]).experiment
        fix = f"sand experiment {root / PLAN} --run {root}" if root else Run(runs[0]).artifact("eval").command
        raise PrerequisiteError(f"{folder} has no evaluated run", fix)
    return found


def _runs_of_arm(folder: Path) -> list[Path]:
    numbered = {path.name.removeprefix("seed"): path for path in folder.glob("seed*")}
    return [numbered[seed] for seed in sorted((seed for seed in numbered if seed.isdecimal()), key=int)]


def _untrained(settings: Mapping[str, Scalar]) -> bool:
    greedy = not settings.get("eval.temperature")
    return settings.get("eval.models") == ["base"] and settings.get("eval.planner") not in ("model", "wkm") and greedy


def flat(tables: Tables) -> dict[str, Scalar]:
    """The settings in tables, by `table.key`; what is in no table keeps its name."""
    found: dict[str, Scalar] = {}
    for table, content in tables.items():
        inside = isinstance(content, dict)
        found |= {f"{table}.{key}": value for key, value in content.items()} if inside else {table: content}
    return found


def stages_needed(settings: Settings) -> list[StageName]:
    """The stages of a run as far as they make the models that it evaluates, and the evaluation."""
    stages = stages_of(settings)
    by_model: dict[str, StageName] = {
        "sft": "sft",
        "policy": "sft",
        "model": LEARNING[settings.method.name].by,
        "wkm": "wkm",
    }
    makers = [by_model[name] for name in [*settings.eval.models, settings.eval.planner] if name in by_model]
    last = max((stages.index(maker) for maker in makers if maker in stages), default=0)
    return [*stages[: last + 1], "eval"]


def stages_in(run: Run, settings: Settings) -> list[StageName]:
    """The stages that a run consists of: in an experiment those that its plan makes, elsewhere all of its method."""
    if run.experiment is None:
        return stages_of(settings)
    return ["collect"] if run.root.resolve().name == EXPERT else stages_needed(settings)
