"""Compares a recorded trajectory with its replay: whether it is accepted, and how the texts differ.

A replay can differ from its recording in ways that do not matter: the wording of the task in older simulators, the
order in a listing, containers that were closed (ScienceWorld 1.1.3 ignored `openContainers`), and random changes of
animals and plants. Any other difference is real.
"""

import re
from collections import Counter
from collections.abc import Callable
from enum import Enum

from sandcli.envs.base import Outcome
from sandcli.envs.pool import Restored, replay_diverged
from sandcli.importers.conversations import RecordedTrajectory
from sandcli.records import Trajectory


class Kind(Enum):
    """Kinds of differences between two texts, the least important first."""

    SENTENCE = "the task's sentence"
    ORDER = "order in a listing"
    CONTAINERS = "containers closed when recorded"
    CHANCE = "chance: animals, plants, temperatures"
    OTHER = "really different"


_BETWEEN_ITEMS = re.compile(r"[\n.,:;]+|\b(?:and|[Yy]ou see)\b")
_CONTAINER = re.compile(r"The (?P<name>[\w ]+) door is (?P<state>open|closed)\b[^\n]*")
_CHANCE = {
    "scienceworld": re.compile(
        r"\b(?:bees?|butterfly|moth|ant|egg|larva|pupa|flowers?|pollen|tree|stage|seed|fruit|apple|banana|orange|peach|"
        r"lemon|avocado|cherry|grapes?|degrees)\b"
    )
}
"""Items that appear, disappear and change at random, by the name of their world."""


def differences(made: Trajectory, row: RecordedTrajectory) -> dict[Kind, str]:
    """The kinds of differences between a trajectory and the row that it was made from, each with its first instance."""
    found: dict[Kind, str] = {}
    if _plain(made.instruction) not in _plain(row.instruction):
        found[Kind.SENTENCE] = f"recorded {row.instruction!r}, now {made.instruction!r}"
    for number, (step, recorded) in enumerate(zip(made.steps, row.observations, strict=False)):
        kind = difference(made.env, step.observation, recorded)
        if kind and kind not in found:
            found[kind] = replay_diverged(number, step.action, step.observation, recorded).detail
    if len(made.steps) < len(row.turns):
        found.setdefault(Kind.OTHER, f"the episode ends after step {len(made.steps)} of {len(row.turns)}")
    return found


def difference(world: str, observed: str, recorded: str) -> Kind | None:
    """The kind of difference between two observations; None if they are the same."""
    now, then = _plain(observed), _plain(recorded)
    if now == then:
        return None
    if _items(observed) == _items(recorded):
        return Kind.ORDER
    left = _leftovers(*_without_containers(observed, recorded))
    if not left:
        return Kind.CONTAINERS
    chance = _CHANCE.get(world)
    return Kind.CHANCE if chance and all(chance.search(item) or item == "nothing" for item in left) else Kind.OTHER


def rejected(world: str, row: RecordedTrajectory, replay: Restored) -> str:
    """Why a row is left out, as `kind: detail`; empty if it is accepted.

    A row is accepted if the replay reached the recorded outcome or the full score, and every action was understood,
    except for those that the recording shows with the same refusal: recorded experts make such mistakes.
    """
    for number, outcome in enumerate(replay.outcomes):
        if not outcome.valid and not _refused_then(row, number, outcome):
            return _not_understood(world, row, number, outcome)
    if replay.best < 1.0 and not _as_recorded(world, row, replay):
        return f"the recorded outcome is not reached: {replay.best:.2f} of 1.00"
    return ""


def strictly_rejected(match: Callable[[str, str], bool], row: RecordedTrajectory, replay: Restored) -> str:
    """Why a row is left out under the rule `strict`, as `kind: detail`; empty if it is accepted."""
    texts = [(replay.reset.instruction, row.instruction)]
    texts += zip((outcome.observation for outcome in replay.outcomes), row.observations, strict=False)
    unlike = [number for number, (now, then) in enumerate(texts) if not match(_a(now), _a(then))]
    if not unlike and len(replay.outcomes) == len(row.turns):
        return ""
    if not unlike:
        return f"the episode ends early: after step {len(replay.outcomes)} of {len(row.turns)}"
    now, then = texts[unlike[0]]
    action = row.turns[unlike[0] - 1].action if unlike[0] else "the task"
    detail = replay_diverged(unlike[0] - 1, action, now, then).detail
    return f"texts differ: {len(unlike)} of {len(texts)}; {detail}"


def _as_recorded(world: str, row: RecordedTrajectory, replay: Restored) -> bool:
    """Whether a replay below the full score ends as its recording does.

    If the row has a reward, the replay must reach it. If it ends with the agent's turn, as ETO's do, that turn
    completed the task. If it ends with an observation, the replay must end with the same observation.
    """
    if row.reward is not None:
        return 0 < row.reward <= replay.best
    ended = len(row.observations) == len(row.turns) == len(replay.outcomes)
    return ended and difference(world, replay.outcomes[-1].observation, row.observations[-1]) is not Kind.OTHER


def _refused_then(row: RecordedTrajectory, number: int, outcome: Outcome) -> bool:
    return number < len(row.observations) and _plain(row.observations[number]) == _plain(outcome.observation)


def _not_understood(world: str, row: RecordedTrajectory, number: int, outcome: Outcome) -> str:
    where = f"step {number} ({row.turns[number].action})"
    recorded = row.observations[number] if number < len(row.observations) else ""
    if recorded and difference(world, outcome.observation, recorded) is Kind.OTHER:
        return f"edited after the recording, or recorded under other settings: {where} was answered {recorded!r}"
    return f"an action is not understood: {where}"


def _a(text: str) -> str:
    """The text with `a` for `an`: recordings have both `an egg 2` and `a egg 2`."""
    return re.sub(r"\b([Aa])n\b", r"\1", text)


def _plain(text: str) -> str:
    return " ".join(_a(text).split())


def _items(text: str) -> Counter[str]:
    return Counter(piece.strip() for piece in _BETWEEN_ITEMS.split(_a(text)) if piece.strip())


def _leftovers(one: str, other: str) -> Counter[str]:
    """The items that only one of two texts mentions."""
    here, there = _items(one), _items(other)
    return (here - there) + (there - here)


def _without_containers(*texts: str) -> list[str]:
    """The texts without containers that are open in one text and closed in the other."""
    states = {(found["name"], found["state"]) for text in texts for found in _CONTAINER.finditer(text)}
    unlike = {name for name, state in states if state == "open"} & {name for name, state in states if state == "closed"}
    kept = [_CONTAINER.sub(lambda found: "" if found["name"] in unlike else found[0], text) for text in texts]
    return [text.replace("is already open", "is now open") for text in kept]
