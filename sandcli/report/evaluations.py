"""Reads evaluated runs."""

import contextlib
import os.path
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandcli.config import FILE, resolve
from sandcli.core.artifact import StageName
from sandcli.core.context import model_fingerprint
from sandcli.core.run import Run
from sandcli.core.stage import digest_of, unit_name
from sandcli.episodes import Episode, agent_name
from sandcli.errors import PrerequisiteError, SandError, UsageError
from sandcli.method.ablations import Without
from sandcli.models import nothing_fetched
from sandcli.records import Key
from sandcli.report.counterfactuals import changes_of
from sandcli.report.decisions import decisions_of
from sandcli.report.draws import one_a_task
from sandcli.report.scores import Evaluation, Score
from sandcli.report.trainings import trainings_of
from sandcli.settings import Settings

_WORLDS = {"scienceworld": "ScienceWorld", "alfworld": "ALFWorld"}


def read_run(root: Path) -> Evaluation:
    """Read what was evaluated in a run. Its settings come from sand.toml alone: variables are ignored.

    Raises `PrerequisiteError` if it is not a run directory or has no evaluation.
    """
    run = Run(root)
    if not (root / FILE).is_file():
        raise PrerequisiteError(f"{root} is not a run directory: it has no {FILE}", "give folders made by sand init")
    settings = resolve(root, {}, {}).settings
    (scores, keys), manifest = _scores(run), run.artifact("eval").manifest()
    changes, outdated = changes_of(run)
    d_exp = list(run.trajectories()) if run.artifact("collect").path.exists() else []
    return Evaluation(
        run=str(root),
        base=_base(root, settings),
        world=_WORLDS.get(settings.env.name, settings.env.name.rpartition(":")[2]),
        iteration=settings.run.iteration,
        method=settings.method.name,
        without=_without(run, settings),
        scores=scores,
        settings=manifest.identity.settings if manifest else {},
        failed=len(run.artifact("eval").failures()),
        accepted=tuple(manifest.accepted) if manifest else (),
        trained_tasks=frozenset(str(made.task) for made in d_exp),
        retrained=_retrained(run, settings, keys),
        limit=manifest.identity.limit if manifest else None,
        panel=manifest.identity.settings.get("panel", "") if manifest else "",
        panel_name=manifest.identity.scope.get("panel", "") if manifest else "",
        planner=settings.eval.planner if manifest and "planner" in manifest.identity.settings else "",
        changes=changes,
        outdated=outdated,
        label=settings.run.label,
        trainings=trainings_of(run, settings, len(d_exp)),
        own_data=sum(not made.recorded for made in d_exp),
    )


def _scores(run: Run) -> tuple[dict[str, list[Score]], dict[Key, str]]:
    """The scores of each agent, one for each task, and the model of each episode."""
    scores: dict[str, list[Score]] = {}
    seen: dict[Key, str] = {}
    path = run.artifact("eval").path
    for number, episode in enumerate(run.episodes(), 1):
        if episode.key in seen:
            raise UsageError(f"{path}: record {number} repeats an earlier episode", "delete one of the two lines")
        seen[episode.key] = episode.model
        scores.setdefault(agent_name(episode.model, episode.deliberation), []).append(_score(episode))
    if not scores:
        raise PrerequisiteError(f"{path} contains no episodes", run.artifact("eval").command)
    return {agent: one_a_task(own) for agent, own in scores.items()}, seen


def _score(episode: Episode) -> Score:
    return Score(
        split=episode.split,
        task=str(episode.task),
        kind=episode.task.name,
        reward=episode.reward,
        success=episode.success,
        done=episode.end == "done",
        steps=len(episode.steps),
        deliberated=episode.deliberated,
        tokens=episode.tokens,
        decisions=decisions_of(episode),
    )


def _base(root: Path, settings: Settings) -> str:
    """Identifies the base model: the path of its folder, or its name if there is no such folder."""
    inside = root / settings.model.base
    return os.path.normpath(inside.absolute()) if inside.exists() else settings.model.base


def _without(run: Run, settings: Settings) -> Without:
    """The ablation that made the deliberations, which a flag may have set; that of sand.toml if there are none."""
    manifest = run.artifact("synthesize").manifest()
    made: Any = manifest.identity.settings.get("method.without") if manifest else None
    return made or settings.method.without


def _retrained(run: Run, settings: Settings, evaluated: Mapping[Key, str]) -> tuple[str, ...]:
    """Models of the run that were trained again after some of their episodes."""
    if settings.engine.kind == "scripted":
        return ()
    made: dict[str, StageName] = {"model": "train", "sft": "sft"}
    paths = {name: run.artifact(stage).path for name, stage in made.items()}
    folders = {name: path for name, path in paths.items() if name in evaluated.values() and path.exists()}
    current = {name: content for name, folder in folders.items() if (content := _content(folder))}
    before = run.artifact("eval").digests()
    changed = {
        model
        for key, model in evaluated.items()
        if before.get(unit_name(key), current.get(model)) != current.get(model)
    }
    return tuple(name for name in current if name in changed)


def _content(folder: Path) -> str | None:
    """The current digests of a model's episodes; None for an adapter whose base is not on this machine."""
    with contextlib.suppress(SandError), nothing_fetched():
        return digest_of(model_fingerprint(folder))
    return None
