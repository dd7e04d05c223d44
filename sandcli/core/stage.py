"""What a stage is: what it reads and depends on, its units of work, and one step that does a unit.

Everything else (planning, resuming, retrying, journalling, sealing) is the runner's and the same for all stages.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sized
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar, cast

from sandcli.agent.preamble import written
from sandcli.core.artifact import Artifact, StageName
from sandcli.core.context import Context, model_fingerprint
from sandcli.core.manifest import SCHEMA, Identity, Manifest
from sandcli.core.store import Keyed
from sandcli.engines.base import Engine, Model
from sandcli.envs.pool import Pool
from sandcli.errors import Exit
from sandcli.fields import values_with
from sandcli.models import fingerprint
from sandcli.prompts import digest as text_digest
from sandcli.records import Failure, Key, encoded
from sandcli.settings import Settings
from sandcli.tables import SCOPE, Effect

P = TypeVar("P")
R = TypeVar("R", bound=Keyed)


@dataclass(frozen=True)
class Unit(Generic[P]):
    """One unit of work. `depends_on` is the part of the input that its result depends on."""

    key: Key
    payload: P
    depends_on: tuple[object, ...]

    @property
    def name(self) -> str:
        """The key as text, for messages and manifests."""
        return unit_name(self.key)

    @property
    def digest(self) -> str:
        """A short hash of `depends_on`."""
        return digest_of(*self.depends_on)


def digest_of(*depends_on: object) -> str:
    """A short hash of what a unit's result depends on."""
    return hashlib.sha256(repr(depends_on).encode()).hexdigest()[:12]


def unit_name(key: Key) -> str:
    """A unit's key as text."""
    return encoded(key).decode()


class Skipped(NamedTuple):
    """The result of a unit that makes no record, such as an expert path that does not reach its score."""

    reason: str


@dataclass
class Metrics:
    """What a stage's summary and manifest say about its records."""

    counts: dict[str, int] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    differences: dict[str, tuple[int, str]] = field(default_factory=dict)
    loss: list[tuple[int, float]] = field(default_factory=list)


class Options(NamedTuple):
    """What the user asks of any stage."""

    force: bool = False
    accept_stale: bool = False
    accept_failures: bool = False
    dry_run: bool = False
    gpus: int | None = None
    """Estimate a dry run for so many GPUs instead of this machine."""


class State(NamedTuple):
    """How a stage's artifact compares with what is asked for.

    `stale`: made from something else, and `reasons` says what. `wider`: finished, and more is asked for now. `todo`
    counts units, `first` is the first of them. `refresh`: its records are right, its manifest describes older input.
    `edited`: it was changed by hand after it was finished.
    """

    kind: Literal["missing", "partial", "wider", "done", "stale"]
    recorded: int
    todo: int
    reasons: list[str]
    first: Key | None = None
    refresh: bool = False
    edited: bool = False


class Summary(NamedTuple):
    """How a stage ended. `forecast`: nothing was done yet, and there is something to do."""

    stage: StageName
    exit: Exit
    message: str
    manifest: Manifest | None
    failures: list[Failure]
    forecast: bool = False


class Stage(ABC, Generic[P, R]):
    """One stage on one run.

    `tables` names the settings tables that the stage may read: `self.settings` holds no others, so the identity cannot
    miss a setting that the result depends on. `prompts` are questions of the chosen set. A stage that
    `plays` uses the world; one in which an agent speaks, or learns to, names the prompt `preamble`.
    """

    name: ClassVar[StageName]
    tables: ClassVar[tuple[str, ...]] = ()
    prompts: ClassVar[tuple[str, ...]] = ()
    plays: ClassVar[bool] = False

    allow_extra: ClassVar[bool] = False
    """Whether `units()` itself applies `limit` and the tasks that are set, so that other records are fine. Otherwise it
    gives all that the inputs hold, and any other record shows that an input changed."""

    own_progress: ClassVar[bool] = False
    """Whether a step shows its own progress."""

    can_use_cluster: ClassVar[bool] = True
    """Whether crews on a cluster can do its units: a step depends on its unit and the inputs alone."""

    engine: Engine
    pool: Pool
    stop: Callable[[], bool]
    """Whether the user asked to stop; a step that takes long should look."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.run = context.run
        self.limit = context.limit
        self.artifact: Artifact[R] = context.run.artifact(self.name)
        self.settings = cast(Settings, _OnlyTables(context.settings, self.tables))

    # What the stage is made of

    @abstractmethod
    def reads(self) -> tuple[Path, ...]:
        """The artifacts that it reads. Raises `PrerequisiteError` if one is not there."""

    def models(self) -> dict[str, Model]:
        """The models whose content the result depends on, by role. The first one does the work."""
        return {}

    @abstractmethod
    def units(self) -> Iterable[Unit[P]]:
        """Every unit that the inputs define, in canonical order. Pure, and lazy: there may be very many."""

    @abstractmethod
    async def step(self, unit: Unit[P], earlier: R | None) -> R | Skipped:
        """Do one unit. `earlier` is a record that does not satisfy what is asked for now."""

    @abstractmethod
    def metrics(self, records: Iterable[R]) -> Metrics:
        """Summarise the records."""

    # What only some stages say

    @property
    def sequences(self) -> int:
        """Sequences that the engine decodes together for one unit."""
        return 1

    def training(self) -> tuple[str, int]:
        """The kind and the processes of a training, on which its speed depends; "" and 0 for all other stages."""
        return "", 0

    def depends_on(self) -> dict[str, str]:
        """What else the content depends on, by name."""
        return {}

    def satisfied(self, unit: Unit[P], record: R) -> bool:
        """Whether a record is all that is asked for now."""
        return True

    def binds(self) -> bool:
        """Whether unfinished work must not continue under other settings although it has no record: a checkpoint."""
        return False

    def length(self, unit: Unit[P]) -> int:
        """The most steps that a unit may take in its world; 0 if it takes none."""
        return 0

    def begins_like(self, key: Key) -> Key:
        """The same for units whose prompts have a long beginning in common: those of a trajectory."""
        return key[:1]

    def derive(self, records: Iterable[R]) -> dict[str, Iterable[bytes]]:
        """The lines of every file that is derived from the finished records, by file name."""
        return {}

    @contextmanager
    def process_group(self, stop: Callable[[], bool]) -> Iterator[bool]:
        """Entered around everything else. Yields whether another process leads, so that nothing is left to do here."""
        yield False

    def check_redo(self) -> None:
        """Raise if the stage cannot make its artifact from nothing."""

    def check(self, state: State) -> None:
        """Raise before anything is begun if the work cannot succeed."""

    def check_stale(self, state: State) -> None:
        """Raise if what was made from something else cannot even be kept, with what to do instead."""

    def plan_text(self, gpus: int | None) -> str:
        """What a dry run says about the amount of work, if the number of units does not say it."""
        return ""

    def summary(self, records: Sized) -> str:
        """What was made, in a few words."""
        return f"{len(records)} records"

    # What all stages share

    def identity(self) -> Identity:
        """What the artifact's content depends on: everything it could depend on, except what settings.py marks."""
        settings = values_with(self.context.settings, self.tables, Effect.CONTENT)
        settings |= {role: model_fingerprint(model.folder) for role, model in self.models().items()}
        settings |= {f"prompt.{name}": text_digest(self._prompt(name)) for name in self.prompts}
        settings |= {"schema": SCHEMA, **self.depends_on()}
        if self.plays:
            settings |= {f"env.{name}": version for name, version in self.context.world.versions().items()}
        scope = values_with(self.context.settings, self.tables, SCOPE) | {"limit": str(self.limit)}
        return Identity(settings=settings, inputs=self.input_hashes(), scope=scope)

    def input_hashes(self) -> dict[str, str]:
        """Hashes of what is compared unit by unit if it changed: the files that the stage reads."""
        return {path.name: fingerprint(path) for path in self.reads()}

    def _prompt(self, name: str) -> str:
        return written(self.context.preamble).decode() if name == "preamble" else self.context.prompts.load(name)

    def model(self) -> Model | None:
        """The model that does the work."""
        return next(iter(self.models().values()), None)

    def seed(self, *key: str | int) -> int:
        """A unit's seed: a function of the run's seed and the unit's key."""
        assert "run" in self.tables
        return self.context.seed(*key)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Load the model and start the environments, as far as the stage uses them."""
        async with AsyncExitStack() as stack:
            if model := self.model():
                self.engine = await stack.enter_async_context(self.context.engine(model))
            if self.plays:
                self.pool = await stack.enter_async_context(self.context.pool(self.artifact.world_log))
            yield


class _OnlyTables:
    """The settings tables that a stage names, and no others."""

    def __init__(self, settings: Settings, tables: tuple[str, ...]) -> None:
        self._settings = settings
        self._tables = tables

    def __getattr__(self, table: str) -> Any:
        if table not in self._tables:
            raise AttributeError(f"this stage does not name the settings table [{table}] in `tables`")
        return getattr(self._settings, table)
