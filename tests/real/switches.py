"""How often the expert switch fires on ALFWorld's games: `python -m tests.real.switches GAMES --count 24`.

The policy is scripted: it acts as the handcoded expert does, from any position, and takes a random admissible command
with some probability. So it searches as the expert does, and sometimes is luckier. At every step of the expert's path
it gives N candidates, and each other action than the expert's is played to the end, as `sand rollout` does.
"""

import argparse
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from alfworld.agents.expert import HandCodedAgentFailed, HandCodedAgentTimeout, HandCodedTWAgent
from fast_downward import load_lib

from sandcli.agent.turns import normalise
from sandcli.envs.alfworld import experts
from sandcli.envs.alfworld.files import FILE, goal_of, read_game
from sandcli.envs.alfworld.game import Game
from sandcli.envs.alfworld.grammars import to_move, to_put
from sandcli.method.expert_switch import switches
from sandcli.records import Rollout, Step, Task, Trajectory

LIMIT = 40


class Player:
    """The handcoded expert at a position that a path of commands leads to."""

    def __init__(self, game: Game, name: str, slips: float, path: list[str]) -> None:
        goal = goal_of(name)
        lowered = {key: str(value).lower() if value else value for key, value in goal.parameters.items()}
        self._game, self._slips, self._last = game, slips, ""
        self._agent = HandCodedTWAgent(max_steps=10 * LIMIT)
        self._agent.task_params = {"task_type": goal.type, **lowered}
        self._agent.policy = self._agent.get_task_policy(self._agent.task_params)(
            self._agent.task_params, max_steps=10 * LIMIT
        )
        self._agent.observe(game.intro())
        self.position, self._feedback = game.start, game.intro()
        for command in path:
            self.choose(slips=0.0)
            self.take(command)

    def choose(self, slips: float | None = None) -> str:
        """The next command."""
        known = self._game.commands(self.position)
        commands = {to_move(c) if self._game.verb == "put" else c: c for c in known}
        state = experts._state(self._game, self.position, self._feedback, sorted(commands))
        chosen = commands.get(self._act(state) if self._last else "look", "look")
        slip = random.random() < (self._slips if slips is None else slips)
        return random.choice(sorted(known)) if slip else chosen

    def _act(self, state: Any) -> str:
        try:
            return str(self._agent.act(state, 0, False, self._last))
        except IndexError:  # the handcoded expert's own mistake: nothing that it looks for is in sight
            return "look"

    def take(self, command: str) -> None:
        """Execute a command."""
        self._last = to_put(command)
        self.position, self._feedback = self._game.apply(self.position, self._game.commands(self.position)[command])

    def play(self, steps: int) -> list[str]:
        """Commands until the game is won, or for so many steps."""
        path: list[str] = []
        while len(path) < steps and not self._game.won(self.position):
            path.append(self.choose())
            self.take(path[-1])
        return path


def rollouts(game: Game, name: str, expert: list[str], slips: float, n: int) -> Iterator[Rollout]:
    """Every candidate of every step but the expert's own, played to the end."""
    for number, own in enumerate(expert):
        candidates: Counter[str] = Counter()
        for _ in range(n):
            candidates[Player(game, name, slips, expert[:number]).choose()] += 1
        for candidate, (command, count) in enumerate(candidates.items(), 1):
            if normalise(command) == normalise(own):
                continue
            player = Player(game, name, slips, expert[:number])
            player.choose(slips=0.0)
            player.take(command)
            try:
                path = [command, *player.play(max(LIMIT, len(expert)) - number - 1)]
            except (HandCodedAgentFailed, HandCodedAgentTimeout):
                continue
            yield _rollout(name, number, candidate, count, path, game.won(player.position))


def _steps(path: list[str]) -> list[Step]:
    return [Step(thought="", action=command, observation="", score=0.0) for command in path]


def _rollout(name: str, step: int, candidate: int, count: int, path: list[str], won: bool) -> Rollout:
    return Rollout(
        id=name,
        step=step,
        candidate=candidate,
        action=path[0],
        thought="",
        expert=False,
        count=count,
        steps=_steps(path),
        reward=float(won),
        success=won,
        end="done" if won else "max_steps",
        tokens=0,
    )


def _trajectory(name: str, path: list[str]) -> Trajectory:
    task = Task(name=goal_of(name).type, game=name)
    return Trajectory(
        id=name, env="alfworld", task=task, instruction="", steps=_steps(path), reward=1.0, success=True, source=""
    )


def _saved(trajectories: dict[str, Trajectory], taken: dict[str, Rollout]) -> str:
    """By how many steps the switched trajectories are shorter."""
    saved = [len(trajectories[name].steps) - r.step - len(r.steps) for name, r in taken.items()]
    return (
        f", shorter by {median(saved):g} steps in the median, {max(saved)} at most, {sum(saved)} together"
        if saved
        else ""
    )


def main() -> None:
    """Print how often each rule fires."""
    parser = argparse.ArgumentParser()
    parser.add_argument("games", type=Path, help="a folder of games")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--n", type=int, default=5)
    parser.add_argument("--slips", type=float, default=0.2)
    asked = parser.parse_args()
    random.seed(0)
    files = random.sample(sorted(asked.games.glob(f"**/{FILE}")), asked.count)
    trajectories, found = dict[str, Trajectory](), list[Rollout]()
    library: Any = load_lib()
    for file in files:
        name = file.parent.relative_to(asked.games).as_posix()
        game = Game(read_game(file), library)
        path = experts.handcoded(game, goal_of(name), 0)
        if path:
            trajectories[name] = _trajectory(name, path)
            found += rollouts(game, name, path, asked.slips, asked.n)
    for rule in ("better", "shorter"):
        taken = switches(trajectories, found, rule)
        print(f"{rule}: {len(taken)} of {len(trajectories)} trajectories{_saved(trajectories, taken)}")
        types = Counter(t.task.name for t in trajectories.values())
        switched = Counter(trajectories[name].task.name for name in taken)
        for kind, count in sorted(types.items()):
            print(f"  {switched[kind]} of {count}: {kind}")
    steps = {(r.id, r.step) for r in found}
    won = sum(r.success for r in found)
    total = sum(len(t.steps) for t in trajectories.values())
    print(f"{total} steps, {len(steps)} with another candidate; {len(found)} rollouts, {won} of them won")


if __name__ == "__main__":
    main()
