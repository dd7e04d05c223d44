"""`sand collect`: D_exp, the expert trajectories that everything starts from.

They come from the world's own expert: each path is executed and verified, and the base model writes the thoughts if
asked to. Or they come from a recorded file: each trajectory is replayed and its observations compared. Expert actions
are stored in the form in which the agent's own are executed; any other form would give them away among the candidates.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sandcli.agent.turns import normalise
from sandcli.core.context import Context
from sandcli.core.manifest import Identity
from sandcli.core.stage import Metrics, Skipped, Stage, State, Unit
from sandcli.engines.base import Model
from sandcli.errors import UsageError
from sandcli.importers.eto import RecordedTrajectory, read_trajectories
from sandcli.models import fingerprint
from sandcli.records import Task, Trajectory
from sandcli.stages.demonstrations import Demonstrator
from sandcli.stages.inputs import must_hold_trajectories

PREVIOUS = "D_delib of "
"""How the source of expert data begins that is the previous iteration's D_delib."""

_FROM_FILE = "file:"


class Wanted(NamedTuple):
    """A trajectory to make: from a recorded row, or from the world's own expert if there is none."""

    task: Task
    row: RecordedTrajectory | None


class CollectStage(Stage[Wanted, Trajectory]):
    """Units are trajectories."""

    name = "collect"
    tables = ("run", "prompts", "collect", "env", "engine")
    plays = True
    allow_extra = True

    def __init__(self, context: Context, source: Path | None = None, keep_diverged: bool = False) -> None:
        """`source`: a file of recorded trajectories. `keep_diverged`: take those that replay differently, too."""
        super().__init__(context)
        self._source = source
        self._keep_diverged = keep_diverged

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
        return {"source": self._origin, "file": fingerprint(self._source), "keep_diverged": str(self._keep_diverged)}

    def identity(self) -> Identity:
        """That of the finished artifact, if it came from a file or another run: this run's settings did not make it."""
        made = self._made_elsewhere()
        return made or super().identity()

    def _made_elsewhere(self) -> Identity | None:
        made = None
        with contextlib.suppress(UsageError):  # a damaged manifest says nothing
            made = self.artifact.manifest()
        source = made.identity.settings.get("source", "") if made else ""
        elsewhere = self._source is None and source.startswith((PREVIOUS, _FROM_FILE))
        return made.identity if made and elsewhere else None

    @property
    def _origin(self) -> str:
        if self._source is not None:
            return f"{_FROM_FILE}{self._source.name}"
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
                "name the file again with --from, or make another run with sand init --from",
            )

    def check(self, state: State) -> None:
        """Raise `UsageError` if the trajectories came from elsewhere and were all deleted since."""
        if self._made_elsewhere():
            must_hold_trajectories(self.artifact.path, "put the file back, or make another run with sand init --from")

    def units(self) -> list[Unit[Wanted]]:
        """The rows of the file, or the world's training tasks; none if the trajectories came from elsewhere."""
        if self._made_elsewhere():
            return []
        if self._source is not None:
            wanted = {row.id: self._wanted(row) for row in read_trajectories(self._source)[: self.limit]}
        else:
            tasks = self.context.world.tasks("train")[: self.limit]
            wanted = {str(task): Wanted(task, None) for task in tasks}
        if not wanted:
            where = self._source or f"{self.context.world.name} with env.tasks = {self.settings.env.tasks}"
            raise UsageError(f"there is no task to collect in {where}", "name tasks in env.tasks, or another file")
        return [Unit((name,), unit, (unit,)) for name, unit in wanted.items()]

    def _wanted(self, row: RecordedTrajectory) -> Wanted:
        """The task of a recorded row, and the row in the grammar that the task is played in."""
        world = self.context.world
        task = world.task_of(row.task)
        actions, seen = world.to_game_grammar(task, [turn.action for turn in row.turns], row.observations)
        turns = [turn._replace(action=normalise(action)) for turn, action in zip(row.turns, actions, strict=True)]
        return Wanted(task, row._replace(turns=turns, observations=seen))

    async def step(self, unit: Unit[Wanted], earlier: Trajectory | None) -> Trajectory | Skipped:
        """Replay a recorded row, or execute the expert's path."""
        task, row = unit.payload
        demonstrator = Demonstrator(self.context, self.pool, self._origin)
        if row is not None:
            return await demonstrator.replay(task, row, self._keep_diverged)
        made = await demonstrator.expert(task, self._expert)
        if isinstance(made, Skipped) or not self._writes_thoughts:
            return made
        return await demonstrator.with_thoughts(self.engine, made, self.settings.collect.max_tokens)

    def metrics(self, records: Iterable[Trajectory]) -> Metrics:
        """Steps, thoughts and rewards."""
        metrics = Metrics(counts={"steps": 0, "thoughts": 0})
        rewards = []
        for record in records:
            metrics.counts["steps"] += len(record.steps)
            metrics.counts["thoughts"] += sum(bool(step.thought) for step in record.steps)
            rewards.append(record.reward)
        metrics.figures["mean_reward"] = round(sum(rewards) / len(rewards), 4) if rewards else 0.0
        return metrics
