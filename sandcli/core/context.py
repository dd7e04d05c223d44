"""A run with its settings, and what these name: the world, the models, an engine, worker processes."""

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property, partial
from pathlib import Path

from msgspec.structs import replace

from sandcli.agent.preamble import read_preamble, with_knowledge
from sandcli.core.artifact import StageName
from sandcli.core.gate import Gate
from sandcli.core.manifest import Spent
from sandcli.core.run import Run
from sandcli.engines import choose, devices, open_engine
from sandcli.engines.adapters import is_adapter, weights_of
from sandcli.engines.base import Engine, Model
from sandcli.engines.metered import Clock, Metered
from sandcli.envs import make_world
from sandcli.envs import world_builder as builder_of
from sandcli.envs.base import World
from sandcli.envs.pool import NO_LOG, Pool
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.messages import Message
from sandcli.models import differences, fingerprint, locate
from sandcli.panels.panel import NamedPanel
from sandcli.progress import notice
from sandcli.prompts import SETS, Prompts, action_knowledge
from sandcli.settings import Settings, worker_count

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
"""A name on the model hub; the name of a role, such as `base`, looks the same."""


def model_fingerprint(folder: Path) -> str:
    """A hash of a model's content; an adapter's hash includes its base's."""
    own = fingerprint(folder)
    return f"{own}+{fingerprint(locate(str(weights_of(folder))))}" if is_adapter(folder) else own


class Context:
    """A run with its settings. Opens what they name and counts what that took in `spent`."""

    named_panel: NamedPanel | None = None
    """The panel that is played."""

    def __init__(self, run: Run, settings: Settings, limit: int | None = None) -> None:
        self.run = run
        self.settings = settings
        self.limit = limit
        self.spent = Spent()
        self.devices = 1
        """GPUs that compute, 1 without any; 0 if that is not known."""
        self._capacity = 0
        self.gate = Gate()

    @cached_property
    def world(self) -> World:
        """The text world of this run."""
        return make_world(self.world_builder)

    @cached_property
    def world_builder(self) -> "partial[World]":
        """Makes the world, in any process."""
        env = self.settings.env
        games = self.path(env.games) if env.games else ""
        return builder_of(replace(env, games=games))

    @cached_property
    def prompts(self) -> Prompts:
        """The questions to the base model."""
        chosen = self.settings.prompts.set
        return Prompts(chosen if chosen in SETS else self.path(chosen))

    @cached_property
    def preamble(self) -> list[Message]:
        """What the agent reads before its task. Raises `UsageError` if there is none, or it cannot be read."""
        return with_knowledge(self.own_preamble(), self._knowledge())

    def own_preamble(self) -> list[Message]:
        """The preamble without the knowledge of actions. Raises what `preamble` does."""
        match self.settings.agent.preamble:
            case "world":
                return [Message("system", self.world.system)]
            case "data":
                return read_preamble(self._recorded_preamble())
            case name:
                return read_preamble(Path(self.path(name)))

    def _knowledge(self) -> str:
        chosen = self.settings.agent.knowledge
        if not chosen:
            return ""
        return action_knowledge(chosen if chosen == "world" else self.path(chosen), self.settings.env.name)

    def _recorded_preamble(self) -> Path:
        path = self.run.recorded_preamble()
        if path is None:
            expert = self.run.artifact("collect").require()
            raise UsageError(
                f"{expert} comes without a preamble, and agent.preamble is data",
                "set agent.preamble to world or to a JSON file, or collect from data with a preamble",
            )
        return path

    # Models

    def base(self) -> Model:
        """What generates as pi_base."""
        return self.scripted or self.base_model()

    def policy(self) -> Model:
        """What generates as pi_k."""
        return self.scripted or self.policy_model()

    def planner(self) -> Model:
        """What writes plans for the policy: the planner that is set, or pi_base."""
        return self.scripted or self.planner_model()

    def planner_model(self) -> Model:
        """The model of it."""
        return self.model(self.settings.model.planner) if self.settings.model.planner else self.base_model()

    @property
    def planner_prompt(self) -> str:
        """The prompt of a planner, or of the world-knowledge model that stands in for one."""
        return "know" if self.settings.eval.planner == "wkm" else "plan"

    def planner_question(self, instruction: str) -> list[Message]:
        """What a planner is asked about a task."""
        return self.prompts.fill(self.planner_prompt, instruction=instruction)

    def base_model(self) -> Model:
        """pi_base."""
        model = self.model(self.settings.model.base)
        if is_adapter(model.folder):
            raise UsageError(
                f"model.base {model.name} is an adapter",
                "set model.base to a complete model, such as the adapter's base",
            )
        return model

    def policy_model(self) -> Model:
        """pi_k: the policy that is set, or this run's sft/. It must descend from pi_base."""
        name = self.settings.model.policy
        policy = self.model(name) if name else self.made_by("sft")
        self._must_descend(policy)
        return policy

    def _must_descend(self, model: Model) -> None:
        """Raise `UsageError` if a model, or an adapter's base, is built unlike pi_base: it was not trained from it."""
        base = self.base_model()
        if unlike := differences(weights_of(model.folder), base.folder):
            raise UsageError(
                f"{model.folder} was not trained from {base.name}: it has {', '.join(unlike)}",
                "set model.base to the model that it was trained from, or choose another policy",
            )

    def model(self, name: str) -> Model:
        """A model by its name in the settings."""
        return Model(locate(self.path(name)), name, self.settings.model.trust_code)

    def must_find_models(self) -> None:
        """Raise `PrerequisiteError` for a policy or planner in a folder that is not there: stages need them late.

        What may be a name on the hub is left to the stage that downloads it.
        """
        settings = self.settings
        given = {"model.policy": settings.model.policy, "model.planner": settings.model.planner}
        given |= {"eval.planner": settings.eval.planner, "retrieval.embedding": settings.retrieval.embedding}
        for setting, name in given.items():
            if name and not _HUB_NAME.fullmatch(self.path(name)) and not self.scripted:
                try:
                    self.model(name)
                except PrerequisiteError as error:
                    raise PrerequisiteError(error.what, f"correct {setting}") from None

    def must_make_sft(self) -> None:
        """Raise `UsageError` in a run that starts from a given policy: only a first iteration has an SFT model."""
        if self.settings.model.policy:
            raise UsageError(
                f"{self.run.root} starts from the policy {self.settings.model.policy} and makes no sft/",
                "the SFT model is in the run of the first iteration; sand eval --models takes its folder",
            )

    def made_by(self, stage: StageName) -> Model:
        """The model that a stage of this run made."""
        if stage == "sft":
            self.must_make_sft()
        folder = self.run.artifact(stage).require()
        return Model(folder, str(folder), self.settings.model.trust_code)

    def path(self, name: str) -> str:
        """A relative path in sand.toml starts at the run directory; a hub name stays what it is."""
        inside = self.run.root / name
        return str(inside) if inside.exists() else name

    @cached_property
    def scripted(self) -> Model | None:
        """The rules that stand in for every model if the engine is scripted."""
        engine = self.settings.engine
        if engine.kind != "scripted":
            return None
        script = Path(engine.script)
        if not script.is_file():
            raise PrerequisiteError(f"the scripted engine's rules {str(script)!r} are missing", "set engine.script")
        return Model(script, "scripted")

    # Seeds, engines, environments

    def seed(self, *key: str | int) -> int:
        """A unit's seed: a function of the run's seed and the unit's key."""
        text = ":".join(map(str, (self.settings.run.seed, *key)))
        return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:4], "big") >> 1

    @asynccontextmanager
    async def engine(self, model: Model) -> AsyncIterator[Engine]:
        """The engine with a model loaded. Frees it afterwards and adds what it did to `spent`."""
        if is_adapter(model.folder):
            self._must_descend(model)
        settings = self.settings.engine
        choice = choose(settings)
        notice(f"engine: {choice.kind} ({choice.reason}), model {model.folder}")
        opened = await open_engine(choice.kind, model, settings, self._lora_rank(), notice)
        engine = Metered(opened, Clock(), self.gate.saw)
        self.devices = devices(choice.kind, settings)
        self._capacity = engine.capacity
        self.gate.serve(engine.cache_tokens)
        try:
            yield engine
        finally:
            clock, usage = engine.clock, engine.usage()._asdict()
            self.spent += Spent(
                engine=choice.kind, engine_wait=clock.waited, empty=clock.empty, replaced=clock.replaced, **usage
            )
            await engine.close()

    def _lora_rank(self) -> int:
        """The largest rank of the adapters that this run trains; 0 if it trains none."""
        tables = (self.settings.sft, self.settings.wkm, self.settings.train, self.settings.prefer)
        return max((training.lora_rank for training in tables if training.method != "full"), default=0)

    def engine_kind(self) -> str:
        """The engine that would be opened."""
        return choose(self.settings.engine).kind

    @asynccontextmanager
    async def pool(self, log: Path = NO_LOG) -> AsyncIterator[Pool]:
        """Worker processes that hold the world; its output goes to `log`. The time they took is added to `spent`."""
        workers = worker_count(self.settings)
        notice(f"environment: {self.world.name} in {workers} worker processes, on {self.world.check_available()}")
        async with Pool(self.world_builder, workers, self.settings.run.timeout, log) as pool:
            try:
                yield pool
            finally:
                self.spent += Spent(environment_wait=pool.waited, replaced=pool.replaced, restarts=pool.restarts)
                for why, count in pool.restarts.items():
                    notice(f"environment workers replaced: {count} ({why})")

    def in_flight(self, sequences: int) -> int:
        """Units to work on at once if each asks the engine for so many sequences.

        Twice the engine's capacity: units that wait for an environment, or to be recorded, leave it no gap.
        """
        return self.settings.run.in_flight or max(2 * self._capacity // sequences, 2 * worker_count(self.settings))

    def without_reuse(self) -> "Context":
        """The same, with an engine that keeps no prefixes."""
        engine = replace(self.settings.engine, cache_gib=0.0)
        return Context(self.run, replace(self.settings, engine=engine), self.limit)
