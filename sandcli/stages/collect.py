"""`sand collect`: D_exp, the expert trajectories that everything starts from.

They come from the world's own expert: each path is executed and verified, and the base model writes the thoughts if
asked to. Or they come from recorded data: each trajectory is replayed, and its texts come from the replay. Expert
actions are stored in the form in which the agent's own are executed; another form would give them away among the
candidates.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Sized
from functools import cached_property
from itertools import islice
from pathlib import Path

from sandcli.agent.preamble import most_common, written
from sandcli.core.context import Context
from sandcli.core.manifest import Identity
from sandcli.core.run import PREAMBLE
from sandcli.core.stage import Metrics, Skipped, Stage, State, Unit
from sandcli.engines.base import Model
from sandcli.errors import UsageError
from sandcli.importers.replays import differences
from sandcli.importers.rows import locate_data, read_rows
from sandcli.models import fingerprint
from sandcli.progress import notice
from sandcli.records import FROM_FILE, Trajectory
from sandcli.stages.demonstrations import Demonstrator
from sandcli.stages.inputs import must_hold
from sandcli.stages.recorded import Wanted, wanted_rows

OTHER_RUN = "run "
"""How the source of expert data begins that is a file of another run."""

PAPER_WORLDS = "scienceworld", "alfworld"
"""The worlds on which the paper evaluates."""

_CHECK = "set env.simplifications and env.games to those of the recording, or choose other data"


class CollectStage(Stage[Wanted, Trajectory]):
    """Units are trajectories."""

    name = "collect"
    tables = ("run", "prompts", "collect", "env", "engine")
    plays = True
    allow_extra = True
    can_use_cluster = False

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._left_out: Counter[str] = Counter()

    @cached_property
    def _source(self) -> Path | None:
        """The file or folder of recorded trajectories in `collect.source`."""
        name = self.settings.collect.source
        return locate_data(self.context.path(name)) if name else None

    @property
    def prompts(self) -> tuple[str, ...]:  # type: ignore[override]
        """The prompt for thoughts, if the base model writes any."""
        return ("think",) if self._writes_thoughts else ()

    @property
    def _writes_thoughts(self) -> bool:
        return self._source is None and self.settings.collect.thoughts == "base"

    def reads(self) -> tuple[Path, ...]:
        """No artifact."""
        return ()

    def models(self) -> dict[str, Model]:
        """pi_base, if it writes thoughts."""
        return {"base": self.context.base()} if self._writes_thoughts else {}

    def depends_on(self) -> dict[str, str]:
        """Where the trajectories come from."""
        if self._source is None:
            return {"source": self._origin}
        return {"source": self._origin, "file": fingerprint(self._source)}

    def identity(self) -> Identity:
        """That of the finished artifact, if it came from a file or another run: this run's settings did not make it."""
        made = self._made_elsewhere()
        return made or super().identity()

    def _made_elsewhere(self) -> Identity | None:
        made = None
        with contextlib.suppress(UsageError):  # a damaged manifest says nothing
            made = self.artifact.manifest()
        source = made.identity.settings.get("source", "") if made else ""
        elsewhere = self._source is None and source.startswith((OTHER_RUN, "D_delib of ", FROM_FILE))
        return made.identity if made and elsewhere else None

    @property
    def _origin(self) -> str:
        if self._source is not None:
            name = Path(self.context.path(self.settings.collect.source))
            return f"{FROM_FILE}{name.name if name.exists() else name}"  # or a name on the hub
        return f"{self._expert}, thoughts {self.settings.collect.thoughts}"

    @property
    def _expert(self) -> str:
        known, wanted = self.context.world.experts, self.settings.collect.expert
        if wanted and wanted not in known:
            raise UsageError(f"{self.context.world.name} has no expert {wanted!r}", f"use {' or '.join(known)}")
        return wanted or known[0]

    def check_redo(self) -> None:
        """Raise `UsageError` if the trajectories came from elsewhere: this run's settings cannot make them again."""
        if made := self._made_elsewhere():
            raise UsageError(
                f"{self.artifact.path} came from elsewhere ({made.settings['source']}); this run cannot make it again",
                "name the file again with --from, or make another run with sand init --from or --d-exp",
            )

    def check(self, state: State) -> None:
        """Raise `UsageError` if the trajectories came from elsewhere and were all deleted since.

        Also for a preamble that the later stages would refuse: collecting may take hours.
        """
        if self._made_elsewhere():
            must_hold(self.artifact.path, Trajectory, "restore the file, or make another run with sand init --from")
        elif self.context.settings.agent.preamble != "data":
            _ = self.context.preamble
        elif self._source is None:
            raise UsageError(
                "agent.preamble is data, and the world's own expert brings none",
                "pass recorded trajectories with --from, or set agent.preamble to world or to a JSON file",
            )

    def units(self) -> list[Unit[Wanted]]:
        """The rows of the data, or the world's training tasks; none if the trajectories came from elsewhere."""
        if self._made_elsewhere():
            return []
        wanted = self._recorded
        if self._source is None:
            wanted = {str(task): Wanted(task) for task in self.context.world.tasks("train")[: self.limit]}
        if not wanted:
            where = f"{self.context.world.name} with env.tasks = {self.settings.env.tasks}"
            raise UsageError(f"there is no task to collect in {where}", "name tasks in env.tasks")
        return [Unit((name,), unit, (unit,)) for name, unit in wanted.items()]

    @cached_property
    def _recorded(self) -> dict[str, Wanted]:
        """The recorded rows by id, including unusable ones; none if there is no data."""
        if self._source is None:
            return {}
        return wanted_rows(self.context.world, self._source, islice(read_rows(self._source), self.limit))

    async def step(self, unit: Unit[Wanted], earlier: Trajectory | None) -> Trajectory | Skipped:
        """Replay a recorded row, or execute the expert's path."""
        made = await self._make(unit.payload)
        if isinstance(made, Skipped):
            self._left_out[made.reason.partition(": ")[0]] += 1
        return made

    async def _make(self, wanted: Wanted) -> Trajectory | Skipped:
        if wanted.task is None:
            return Skipped(wanted.why)
        demonstrator = Demonstrator(self.context, self.pool, self._origin)
        if wanted.row is not None:
            return await demonstrator.replay(wanted.task, wanted.row, self.settings.collect.rows)
        made = await demonstrator.expert(wanted.task, self._expert, self.stop)
        if isinstance(made, Skipped) or not self._writes_thoughts:
            return made
        return await demonstrator.with_thoughts(self.engine, made, self.settings.collect.max_tokens)

    def derive(self, records: Iterable[Trajectory]) -> dict[str, Iterable[bytes]]:
        """The preamble that most of the accepted rows begin with, if they have one."""
        rows = (self._recorded.get(record.id, Wanted(None)).row for record in records)
        common = most_common(row.preamble for row in rows if row is not None)
        if not common.preamble:
            return {}
        notice(f'preamble of the data: {common}; agent.preamble = "data" uses it')
        return {PREAMBLE: [written(common.preamble)]}

    def metrics(self, records: Iterable[Trajectory]) -> Metrics:
        """Steps, thoughts, rewards, and what differs from the recording. `UsageError` if there is no trajectory."""
        metrics = Metrics(counts={"steps": 0, "thoughts": 0})
        rewards = []
        for record in records:
            metrics.counts["steps"] += len(record.steps)
            metrics.counts["thoughts"] += sum(bool(step.thought) for step in record.steps)
            rewards.append(record.reward)
            self._compare(record, metrics)
        if not rewards:
            raise UsageError(f"{self._origin}: no trajectory was accepted{self._why_not()}", _CHECK)
        if partial := sum(reward < 1.0 for reward in rewards):
            metrics.counts["below_the_full_score"] = partial
        metrics.figures["mean_reward"] = round(sum(rewards) / len(rewards), 4)
        return metrics

    def summary(self, records: Sized) -> str:
        """What was made, and that it is not the paper's data if it is the world's own."""
        count = super().summary(records)
        if self._source is not None or self._made_elsewhere() or self.context.world.name not in PAPER_WORLDS:
            return count
        return f"{count}; D_exp is our own ({self._origin}), the paper's is the ETO data (--from)"

    def _compare(self, record: Trajectory, metrics: Metrics) -> None:
        """Add every kind of difference between a trajectory and the row that it was made from."""
        wanted = self._recorded.get(record.id)
        if wanted is None or wanted.row is None:
            return
        for kind, detail in differences(record, wanted.row).items():
            count, first = metrics.differences.get(kind.value, (0, f"{record.id}: {detail}"))
            metrics.differences[kind.value] = (count + 1, first)

    def _why_not(self) -> str:
        reasons = "; ".join(f"{kind}: {count}" for kind, count in self._left_out.most_common())
        return f" ({reasons})" if reasons else ""
