"""The stock environment that ours is compared with, and recorded games."""

import random
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

from tests.helpers import REPO

SHARED = REPO.parent / "shared" / "data"
ARCHIVES = {"older": "alfworld-games.tar.xz", "newer": "alfworld-games-new-grammar.tar.xz"}


class Seen(NamedTuple):
    """The stock environment's answer to an action, and the commands that it admits next."""

    action: str
    feedback: str
    admissible: list[str]
    won: bool


def unpacked(grammar: str, folder: Path, count: int) -> list[Path]:
    """Some recorded games of a grammar; none if the archive is missing."""
    archive = SHARED / ARCHIVES[grammar]
    if not archive.exists():
        return []
    with tarfile.open(archive) as packed:
        names = sorted(name for name in packed.getnames() if name.endswith("game.tw-pddl"))
        chosen = random.Random(0).sample(names, count)
        for name in chosen:
            packed.extract(name, folder, filter="data")
    return [folder / name for name in chosen]


def stock(path: Path, expert: bool = False) -> Any:
    """TextWorld's environment with ALFWorld's wrappers."""
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredExpert

    wrappers = [AlfredDemangler, AlfredExpert] if expert else [AlfredDemangler]
    return textworld.start(str(path), textworld.EnvInfos(won=True, admissible_commands=True), wrappers=wrappers)


def wander(path: Path, seed: int, length: int, walkthrough: list[str]) -> tuple[str, list[Seen]]:
    """The intro, and the answers to the walkthrough followed by a random walk with some invalid commands."""
    env, draw = stock(path), random.Random(seed)
    state = env.reset()
    intro, seen = state.feedback, list[Seen]()
    for number in range(length + len(walkthrough)):
        known = [*state.admissible_commands, "fly", "go to Desk 1", ""]
        action = walkthrough[number] if number < len(walkthrough) else draw.choice(known)
        state, _, _ = env.step(action)
        seen.append(Seen(action, state.feedback, state.admissible_commands, bool(state.won)))
    return intro, seen
