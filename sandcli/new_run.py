"""`sand init`: a new run directory, for a first iteration or the one after another run."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sandcli.cache import keep
from sandcli.config import FILE, Scalar, read_text, resolve, showable, template, without_password
from sandcli.core.manifest import SCHEMA, Identity, Manifest
from sandcli.core.run import LEARNING, PREAMBLE, Run
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.files import write_atomic
from sandcli.method_settings import MethodSettings
from sandcli.models import fingerprint
from sandcli.panels.files import PUBLISHED
from sandcli.presets import preset_values
from sandcli.prompts import SETS
from sandcli.protocols import protocol_values
from sandcli.settings import EnvSettings, ModelSettings
from sandcli.stages.collect import OTHER_RUN

_PATHS = (
    *("model.base", "model.policy", "model.planner", "env.games", "prompts.set"),
    *("agent.preamble", "agent.knowledge", "eval.panel", "eval.planner", "retrieval.embedding"),
)
_KNOWAGENT: dict[str, Scalar] = {
    "agent.knowledge": "world",
    "explore.temperature": 0.9,
    "train.method": "lora",
    "train.lora_rank": 8,
    "train.learning_rate": 1e-4,
    "train.epochs": 5,
    "train.batch_size": 16,
}
_EARLY_EXPERIENCE: dict[str, Scalar] = {"sample.n": 3, "rollout.max_steps": 1}
_NO_PATHS = {*SETS, *PUBLISHED, "world", "data"}
_WKM: dict[str, Scalar] = {
    "explore.n": 1,
    "explore.temperature": 0.0,
    "plan.temperature": 0.5,
    "plan.max_tokens": 512,
    "eval.planner": "wkm",
    "retrieval.weight": 0.7,
    "wkm.method": "lora",
    "train.method": "lora",
    "train.lora_rank": 8,
    "train.learning_rate": 1e-4,
    "train.epochs": 3,
    "train.batch_size": 32,
    "train.max_length": 2048,
    "train.too_long": "cut",
}
_NO_PLANNERS = {("eval.planner", name) for name in ("model", "policy", "sft", "base", "wkm")}


def start_run(
    root: Path,
    previous: Path | None,
    settings: Mapping[str, Scalar],
    preset: str | None = None,
    protocol: str | None = None,
    d_exp: Path | None = None,
) -> None:
    """Make `root` with its sand.toml.

    With `previous`, the policy (or planner) is that run's model, and D_exp is what it was trained on, if that is
    trajectories.
    With `d_exp`, D_exp is that run's.

    Raises `UsageError` if `root` is a run already, a setting is wrong, the preset or the protocol is unknown, or a
    previous run is given together with a preset or `d_exp`; `PrerequisiteError` if `previous` is not done, or its model
    was trained on something else, or `d_exp` has collected nothing.
    """
    if (root / FILE).exists():
        raise UsageError(f"{root} is a run already", f"edit {root / FILE}, or choose another directory")
    given = paths_from(root, settings)
    values: dict[str, Any] = {**given}
    if previous is not None:
        _refuse_with_previous(previous, preset, d_exp)
        carried = _carried(root, Run(previous), values.get("env.name"))
        method = carried.get("method.name", MethodSettings().name)
        values = {**carried, **values}
        if values.get("method.name", method) != method:
            values = with_method_defaults(values)
    else:
        values = with_method_defaults(given, preset)
    if protocol is not None:
        world = str(values.get("env.name", EnvSettings().name))
        values = {**values, **protocol_values(protocol, world), **given}
    chosen = resolve(root, {}, values).settings
    (root / "manifests").mkdir(parents=True, exist_ok=True)
    if previous is not None:
        _take_over_training_data(Run(root), Run(previous), resolve(previous, {}, {}).settings.method.name)
    elif d_exp is not None:
        _must_be_of(chosen.env.name, Run(d_exp))
        _take_over(Run(root), Run(d_exp), Run(d_exp).artifact("collect").require(), f"{OTHER_RUN}{d_exp}: expert.jsonl")
    text = template(values).encode()
    if any(url != without_password(url) for url in chosen.engine.urls):
        keep(root / FILE, text)  # only this user can read it
    else:
        write_atomic(root / FILE, [text])


def _refuse_with_previous(previous: Path, preset: str | None, d_exp: Path | None) -> None:
    if preset:
        raise UsageError(
            f"--from takes its settings from {previous}, --preset from elsewhere",
            "leave out --preset; --set changes single settings",
        )
    if d_exp is not None:
        raise UsageError(f"--from takes D_exp from {previous}, --d-exp from {d_exp}", "leave out one of them")


def with_method_defaults(given: Mapping[str, Scalar], preset: str | None = None) -> dict[str, Scalar]:
    """The settings of a first iteration: those given, then what its method's authors do in this world, then the preset.

    The paper switches experts on ALFWorld only. ETO plays every task once, greedily, and cuts rejected trajectories on
    ScienceWorld. KnowAgent trains adapters, beginning with the base model. MPO plays every plan five times and trains a
    planner, which the agent that is evaluated is given. Early Experience looks one step ahead, and begins with the base
    model. WKM trains two adapters of the base model: the agent and a world-knowledge model. Raises `UsageError` for an
    unknown preset.
    """
    of_preset = preset_values(preset) if preset else {}
    values = {**of_preset, **given}
    method, without = values.get("method.name", "sand"), values.get("method.without", "none")
    in_alfworld = values.get("env.name", EnvSettings().name) == "alfworld"
    defaults: dict[str, Scalar] = {}
    if method == "sand" and without in ("none", "deliberations") and in_alfworld:
        defaults = {"method.switch": "shorter"}
    elif method == "eto":
        defaults = {"explore.n": 1, "explore.temperature": 0.0, "pairs.extra_turns": 0 if in_alfworld else 5}
    elif method in ("mpo", "mpo-sft"):
        defaults = {"explore.n": 5, "explore.temperature": 0.7}
        defaults |= {"prefer.learning_rate": 1e-5, "prefer.warmup": 0.03, "prefer.schedule": "cosine"}
        if method == "mpo-sft":
            defaults |= {"train.learning_rate": 1e-5, "train.epochs": 3, "train.batch_size": 32}
        defaults |= {"eval.models": ["policy"], "eval.planner": "model"}
    elif method == "wkm":
        defaults = _WKM
    elif method == "knowagent":
        defaults = {**_KNOWAGENT, "model.policy": values.get("model.base", ModelSettings().base)}
    elif method == "early-experience":
        defaults = {**_EARLY_EXPERIENCE, "model.policy": values.get("model.base", ModelSettings().base)}
        epochs, batch, rate = (2, 16, 1e-5) if in_alfworld else (1, 32, 5e-6)
        defaults |= {"train.epochs": epochs, "train.batch_size": batch, "train.learning_rate": rate}
    return {**of_preset, **defaults, **given}


def assigned(assignments: Sequence[str]) -> dict[str, Scalar]:
    """The settings in some `table.key=value`. Raises `UsageError` for another form, or two values for one setting."""
    values: dict[str, Scalar] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            given = without_password(assignment)
            raise UsageError(f"--set {given!r} is not TABLE.KEY=VALUE", "for example --set sample.n=5")
        name = name.strip()
        value = read_text(name, text.strip(), f"--set {name}")
        if values.setdefault(name, value) != value:
            both = f"{showable(name, values[name])} and {showable(name, value)}"
            raise UsageError(f"{name} is set twice, to {both}", "choose one of them")
    return values


def _must_be_of(world: str, other: Run) -> None:
    """Raise `UsageError` if the trajectories of another run are of another world."""
    other.must_exist()
    theirs = resolve(other.root, {}, {}).settings.env.name
    if theirs != world:
        raise UsageError(
            f"the trajectories of {other.root} are of {theirs}, not of {world}", f"--set env.name={theirs}"
        )


def _carried(root: Path, previous: Run, world: str | None) -> dict[str, Scalar]:
    """The previous run's own settings, with its model as the policy; one epoch, as in the paper's later iterations.

    KnowAgent and WKM train as long in every round.
    """
    previous.must_exist()
    resolved = resolve(previous.root, {}, {})
    _must_be_of(world or resolved.settings.env.name, previous)
    values = {s.name: s.value for s in resolved.listing() if s.origin != "default"}
    learning = LEARNING[resolved.settings.method.name]
    values.pop("eval.models", None)  # it may name sft, which the new run does not have
    if learning.planner:
        values["eval.models"] = ["policy"]
    values.pop("train.max_steps", None)  # it would override the one epoch
    values.pop("prefer.max_steps", None)
    values.pop("run.label", None)  # the new run trains another agent
    values.pop("collect.source", None)  # the new run starts from D_delib
    values["run.iteration"] = resolved.settings.run.iteration + 1
    if resolved.settings.method.name not in ("knowagent", "wkm"):
        values["train.epochs"] = 1
    if resolved.settings.method.name == "eto":
        values = {"prefer.beta": 0.5, "prefer.learning_rate": 5e-7} | values  # ETO's later rounds
    trained = previous.artifact(learning.by)
    improved = "model.planner" if learning.planner else "model.policy"
    values |= {"model.policy": resolved.settings.model.policy or "sft"}
    values[improved] = str(trained.require().relative_to(previous.root))
    paths = {name: str(values[name]) for name in _PATHS if values.get(name) and _may_be_path(name, values[name])}
    return values | {name: _seen_from(root, previous, path) for name, path in paths.items()}


def paths_from(root: Path, settings: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The settings with relative paths from the current folder made relative to the run, as they are in sand.toml."""
    home = os.path.realpath(root)
    given = {name: str(settings[name]) for name in (*_PATHS, "collect.source") if settings.get(name)}
    found = {
        name: os.path.relpath(path, home)
        for name, path in given.items()
        if _may_be_path(name, path)
        and not Path(path).is_absolute()
        and Path(path).exists()
        and not (root / path).exists()
    }
    return {**settings, **found}


def _may_be_path(name: str, value: Scalar) -> bool:
    return value not in _NO_PATHS and (name, value) not in _NO_PLANNERS


def _seen_from(root: Path, previous: Run, name: str) -> str:
    """A file or folder in or beside the previous run, by its path from the new one: the two can be moved together."""
    relative = not Path(name).is_absolute() and (previous.root / name).exists()
    return os.path.relpath(previous.root / name, root) if relative else name


def _take_over_training_data(run: Run, previous: Run, method: str) -> None:
    data, trained = previous.training_data(method), previous.artifact(LEARNING[method].by)
    training = trained.manifest()
    if training is not None and training.identity.settings.get("data") != fingerprint(data):
        raise PrerequisiteError(f"{data} is not what {trained.path} was trained on", f"{trained.command} --force")
    d_exp = previous.next_d_exp(method)
    _take_over(run, previous, d_exp, f"{OTHER_RUN}{previous.root}: {d_exp.name}")


def _take_over(run: Run, other: Run, trajectories: Path, source: str) -> None:
    """Make D_exp of a file of another run, with that run's preamble."""
    expert = run.artifact("collect")
    write_atomic(expert.path, [trajectories.read_bytes()])
    derived = {}
    if preamble := other.recorded_preamble():
        write_atomic(expert.derived[PREAMBLE], [preamble.read_bytes()])
        derived[PREAMBLE] = fingerprint(preamble)
    identity = Identity(settings={"source": source, "schema": SCHEMA}, inputs={}, scope={})
    made = Manifest(stage="collect", identity=identity, artifact=fingerprint(expert.path), derived=derived)
    expert.write_manifest(made)
