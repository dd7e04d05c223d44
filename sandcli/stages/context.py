"""What every stage is given: the run, its settings, and the models and world that these name."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path

from sandcli.config import Settings, worker_count
from sandcli.engines import choose, open_engine
from sandcli.engines.base import Engine
from sandcli.envs import world_builder
from sandcli.envs.base import World, WorldSettings
from sandcli.envs.workers import Pool
from sandcli.errors import PrerequisiteError
from sandcli.models import fingerprint, locate
from sandcli.progress import notice
from sandcli.records import Key
from sandcli.run import SCHEMA, Run


class Context:
    """A run with its settings; opens what they name."""

    def __init__(self, run: Run, settings: Settings, limit: int | None = None) -> None:
        self.run = run
        self.settings = settings
        self.limit = limit

    @cached_property
    def world(self) -> World:
        """The text world of this run."""
        return self._world_builder()

    @cached_property
    def _world_builder(self) -> "partial[World]":
        env = self.settings.env
        games = self._path(env.games) if env.games else ""
        settings = WorldSettings(env.simplifications, tuple(env.tasks), env.step_limit, games, env.translate)
        return world_builder(env.name, settings)

    def base(self) -> Path:
        """What speaks for pi_base."""
        return self.scripted or self.base_folder()

    def policy(self) -> Path:
        """What speaks for pi_k."""
        return self.scripted or self.policy_folder()

    def base_folder(self) -> Path:
        """The folder of pi_base."""
        return locate(self._path(self.settings.model.base))

    def policy_folder(self) -> Path:
        """The folder of pi_k: the one that is set, or this run's sft/."""
        if self.settings.model.policy:
            return locate(self._path(self.settings.model.policy))
        return self.run.needs("sft")

    def _path(self, name: str) -> str:
        """A relative path in sand.toml is meant from the run directory; a hub name stays what it is."""
        inside = self.run.root / name
        return str(inside) if inside.exists() else name

    @cached_property
    def scripted(self) -> Path | None:
        """The rules that stand in for every model where the engine is scripted."""
        engine = self.settings.engine
        if engine.kind != "scripted":
            return None
        script = Path(engine.script)
        if not script.is_file():
            raise PrerequisiteError(f"the scripted engine's rules {str(script)!r} are missing", "set engine.script")
        return script

    def environment(self) -> dict[str, str]:
        """The part of an identity that comes from the world."""
        return {f"env.{name}": version for name, version in self.world.versions().items()} | {"schema": SCHEMA}

    def inputs(self, *paths: Path) -> dict[str, str]:
        """Hashes of artifacts, by name."""
        return {path.name: fingerprint(path) for path in paths}

    def seed(self, *key: str | int) -> int:
        """A unit's seed: a function of the run's seed and the unit's key."""
        text = ":".join(map(str, (self.settings.run.seed, *key)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1

    @contextmanager
    def engine(self, folder: Path) -> Iterator[Engine]:
        """The engine with a model loaded; freed afterwards."""
        settings = self.settings.engine
        choice = choose(settings.kind)
        notice(f"engine: {choice.kind} ({choice.reason}), model {folder}")
        engine = open_engine(choice.kind, folder, settings.batch, settings.cache_gib)
        try:
            yield engine
        finally:
            engine.close()

    def pool(self) -> Pool:
        """Worker processes with the world in them."""
        workers = worker_count(self.settings)
        notice(f"environment: {self.world.name} in {workers} worker processes, on {self.world.runtime()}")
        return Pool(self._world_builder, workers, self.settings.run.timeout)


def digest(*parts: object) -> str:
    """A short hash of what a unit depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def in_first(keys: Iterable[Key], limit: int | None) -> set[Key]:
    """The keys that belong to the first `limit` trajectories; all where there is no limit."""
    keys = list(keys)
    ids = list(dict.fromkeys(key[0] for key in keys))[:limit]
    kept = set(ids)
    return {key for key in keys if key[0] in kept}
