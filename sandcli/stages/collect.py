"""`sand collect`: D_exp, the expert trajectories that everything starts from.

They come from the world's own expert, each path executed and verified, thoughts written by the base model or left
out; or from a file in ETO's form, each trajectory replayed and its observations compared. Actions stand in the form
in which the agent's own are executed and kept: another would tell the expert's from the other candidates.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from sandcli.agent.turns import Turn, has_action_line, normalise
from sandcli.core.context import Context, digest
from sandcli.core.run import Identity
from sandcli.core.stage import Do, Figures, Job, LeftOut, Unit
from sandcli.engines.base import Completion, Engine, Model, Sampling
from sandcli.envs.base import Outcome
from sandcli.envs.pool import Pool, replay_diverged
from sandcli.errors import ContextOverflow, UsageError
from sandcli.importers.eto import RecordedTrajectory, read_trajectories
from sandcli.method.texts import repeats, sentences, told
from sandcli.models import fingerprint
from sandcli.progress import notice
from sandcli.prompts import digest as text_digest
from sandcli.prompts import fill, load
from sandcli.records import Step, Task, Trajectory

TAKEN_OVER = "D_delib of "
"""How the source of expert data begins that is the previous iteration's result."""

_FROM_FILE = "file:"
_SHOWN_STEPS = 8
"""Steps of history that the base model is shown when it writes a thought."""


class Wanted(NamedTuple):
    """A trajectory to make: from a recorded row, or from the world's own expert where there is none."""

    task: Task
    row: RecordedTrajectory | None


class CollectJob(Job[Wanted, Trajectory]):
    """Units are trajectories."""

    stage = "collect"
    record = Trajectory
    may_hold_more = True

    def __init__(self, context: Context, source: Path | None = None, keep_diverged: bool = False) -> None:
        """`source`: a file in ETO's form. `keep_diverged`: take its trajectories even where replay differs."""
        super().__init__(context)
        self._source = source
        self._keep_diverged = keep_diverged

    def identity(self) -> Identity:
        """The world and the expert; the base model where it writes the thoughts."""
        made = self.run.manifest("collect")
        source = made.identity.settings.get("source", "") if made else ""
        if made and self._source is None and source.startswith((TAKEN_OVER, _FROM_FILE)):
            return made.identity  # this run's own settings did not make it
        settings = {"source": self._origin, **self.context.environment()}
        if self._source is None:
            settings["run.seed"] = str(self.context.settings.run.seed)  # some experts draw lots
        if self._source is not None:
            settings |= {"file": fingerprint(self._source), "keep_diverged": str(self._keep_diverged)}
        elif self.context.settings.collect.thoughts == "base":
            settings |= {
                "base": fingerprint(self.context.base().folder),
                "collect.max_tokens": str(self.context.settings.collect.max_tokens),
                "prompt.think": text_digest(load("think")),
            }
        tasks = ",".join(self.context.settings.env.tasks)
        return Identity(settings=settings, inputs={}, scope={"tasks": tasks, "limit": str(self.context.limit)})

    @property
    def _origin(self) -> str:
        if self._source is not None:
            return f"{_FROM_FILE}{self._source.name}"
        return f"{self._expert}, thoughts {self.context.settings.collect.thoughts}"

    @property
    def _expert(self) -> str:
        known, wanted = self.context.world.experts, self.context.settings.collect.expert
        if wanted and wanted not in known:
            raise UsageError(f"{self.context.world.name} has no expert {wanted!r}", f"use {' or '.join(known)}")
        return wanted or known[0]

    def model(self) -> Model | None:
        """pi_base, where it is to write thoughts."""
        asked = self._source is None and self.context.settings.collect.thoughts == "base"
        return self.context.base() if asked else None

    def plan(self) -> list[Unit[Wanted]]:
        """The rows of the file, or the world's training tasks."""
        if self._source is not None:
            rows = read_trajectories(self._source)[: self.context.limit]
            _no_twins(self._source, rows)
            wanted = {row.id: self._wanted(row) for row in rows}
        else:
            tasks = self.context.world.tasks("train")[: self.context.limit]
            wanted = {str(task): Wanted(task, None) for task in tasks}
        if not wanted:
            where = self._source or f"{self.context.world.name} with env.tasks = {self.context.settings.env.tasks}"
            raise UsageError(f"there is no task to collect in {where}", "name tasks in env.tasks, or another file")
        return [Unit((name,), digest(unit), unit) for name, unit in wanted.items()]

    def _wanted(self, row: RecordedTrajectory) -> Wanted:
        """The task of a recorded row, and the row in the words that the task is played in."""
        world = self.context.world
        task = world.task_of(row.task)
        actions, seen = world.to_game_grammar(task, [turn.action for turn in row.turns], row.observations)
        turns = [turn._replace(action=normalise(action)) for turn, action in zip(row.turns, actions, strict=True)]
        return Wanted(task, row._replace(turns=turns, observations=seen))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Do[Wanted, Trajectory]]:
        """Start the environments; load the base model where it is to write thoughts."""
        async with AsyncExitStack() as stack:
            model = self.model()
            engine = await stack.enter_async_context(self.context.engine(model)) if model else None
            async with self.context.pool() as pool:

                async def do(unit: Unit[Wanted], earlier: Trajectory | None) -> Trajectory | LeftOut:
                    if unit.payload.row is not None:
                        return await self._replayed(pool, unit.payload.task, unit.payload.row)
                    return await self.demonstrated(pool, engine, unit.payload.task)

                yield do

    async def demonstrated(self, pool: Pool, engine: Engine | None, task: Task) -> Trajectory | LeftOut:
        """The expert's path, executed; left out where it does not reach the full score."""
        found = await pool.expert(task, self._expert, self.context.seed("expert", str(task)))
        actions = [normalise(action) for action in found]
        if not actions:
            return LeftOut("the expert gave up")
        reset, outcomes = await pool.replay(task, actions)
        reward = _reward(reset.score, outcomes)
        if reward < 1.0:
            return LeftOut(f"the expert's own path reaches {reward:.2f}, not 1.00")
        turns = [Turn("", action) for action in actions]
        trajectory = self._trajectory(str(task), task, reset.instruction, _steps(turns, outcomes), reward)
        return await self._with_thoughts(engine, trajectory) if engine else trajectory

    async def _replayed(self, pool: Pool, task: Task, row: RecordedTrajectory) -> Trajectory | LeftOut:
        """A recorded row, executed; left out where the world answers differently, unless asked for."""
        reset, outcomes = await pool.replay(task, [turn.action for turn in row.turns])
        unlike = self._differences(row, reset.instruction, outcomes)
        if unlike:
            told_so = f"{len(unlike)} of {len(row.observations) + 1} texts differ on replay; {unlike[0]}"
            if not self._keep_diverged:
                return LeftOut(told_so)
            notice(f"{row.id}: kept, though {told_so}")
        steps = _steps(row.turns, outcomes)
        return self._trajectory(row.id, task, reset.instruction, steps, _reward(reset.score, outcomes))

    def _differences(self, row: RecordedTrajectory, instruction: str, outcomes: Sequence[Outcome]) -> list[str]:
        same = self.context.world.observations_match
        unlike = [] if same(instruction, row.instruction) else [f"the task is {instruction!r}, not {row.instruction!r}"]
        for number, (outcome, recorded) in enumerate(zip(outcomes, row.observations, strict=False)):
            if not same(outcome.observation, recorded):
                unlike.append(replay_diverged(number, row.turns[number].action, outcome.observation, recorded).detail)
        if len(outcomes) < len(row.turns):
            unlike.append(f"the episode ends after step {len(outcomes)} of {len(row.turns)}")
        return unlike

    def _trajectory(self, name: str, task: Task, instruction: str, steps: list[Step], reward: float) -> Trajectory:
        return Trajectory(
            id=name,
            env=self.context.world.name,
            task=task,
            instruction=instruction,
            steps=steps,
            reward=reward,
            success=reward >= 1.0,
            source=self._origin,
        )

    async def _with_thoughts(self, engine: Engine, trajectory: Trajectory) -> Trajectory:
        """The base model's reason before every action; a step for which it writes none stays without."""
        steps: list[Step] = []
        for step in trajectory.steps:
            question = fill(
                "think",
                instruction=trajectory.instruction,
                history=told(steps, _SHOWN_STEPS),
                action=step.action,
            )
            sampling = Sampling(max_tokens=self.context.settings.collect.max_tokens, stop=("\n",))
            try:
                (completion,) = await engine.generate(question, sampling)
            except ContextOverflow:
                steps.append(step)
            else:
                steps.append(replace(step, thought=_thought(completion)))
        return replace(trajectory, steps=steps)

    def figures(self, records: Iterable[Trajectory]) -> Figures:
        """Steps, thoughts and rewards."""
        figures = Figures(counts={"steps": 0, "thoughts": 0})
        rewards = []
        for record in records:
            figures.counts["steps"] += len(record.steps)
            figures.counts["thoughts"] += sum(bool(step.thought) for step in record.steps)
            rewards.append(record.reward)
        figures.values["mean_reward"] = round(sum(rewards) / len(rewards), 4) if rewards else 0.0
        return figures


def _thought(completion: Completion) -> str:
    """The first sentence, or none where the model went round in circles or wrote an action."""
    text = sentences(completion.text.removeprefix("Thought:"), 1)
    spoilt = completion.finish == "length" or has_action_line(text) or repeats(text)
    return "" if spoilt else text


def _steps(turns: Sequence[Turn], outcomes: Sequence[Outcome]) -> list[Step]:
    """Turns and what they led to; turns after the end of the episode are dropped."""
    return [
        Step(thought=turn.thought, action=turn.action, observation=outcome.observation, score=outcome.score)
        for turn, outcome in zip(turns, outcomes, strict=False)
    ]


def _reward(start: float, outcomes: Sequence[Outcome]) -> float:
    """The best score of the episode, as the literature counts."""
    return max(start, *(outcome.score for outcome in outcomes), 0.0)


def _no_twins(path: Path, rows: Sequence[RecordedTrajectory]) -> None:
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        if row.id in seen:
            raise UsageError(f"{path}: row {number}: id {row.id!r} came before", "give every row an id of its own")
        seen.add(row.id)
