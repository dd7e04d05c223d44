"""ScienceWorld 1.2.3's task types as data, so that listing tasks needs no simulator.

A test compares the variation counts and splits with the simulator's own. The step limits and the selection of `seen`
variations are those of the published comparisons on ScienceWorld; so are the training variations in the file beside
this module.
"""

import functools
import tomllib
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple


class TaskType(NamedTuple):
    """The number of variations, the step limit (0 if the literature leaves the type out), and the seen variations."""

    variations: int
    limit: int = 0
    seen: tuple[int, ...] = ()


DEFAULT_LIMIT = 100
"""The step limit of the task types that the literature leaves out."""

TYPES = {
    "boil": TaskType(30, 100, (14, 15, 16, 17, 19, 20)),
    "change-the-state-of-matter-of": TaskType(30, 80, (14, 15, 16, 17, 18, 19, 20)),
    "chemistry-mix": TaskType(32, 60, (16, 17, 18, 19, 20, 21, 22, 23)),
    "chemistry-mix-paint-secondary-color": TaskType(36, 15, (18, 19, 20, 21, 22, 23, 24, 25, 26)),
    "chemistry-mix-paint-tertiary-color": TaskType(36, 30, (18, 19, 20, 21, 22, 23, 24, 25, 26)),
    "find-animal": TaskType(300, 15, (159, 173, 176, 188, 193, 211, 213, 216, 218, 221)),
    "find-living-thing": TaskType(300, 15, (161, 180, 186, 202, 206, 209, 214, 216, 218, 221)),
    "find-non-living-thing": TaskType(300, 15, (150, 158, 179, 184, 185, 187, 192, 198, 209, 214)),
    "find-plant": TaskType(300, 15, (154, 164, 165, 175, 177, 179, 181, 203, 206, 209)),
    "freeze": TaskType(30, 80, (14, 15, 16, 17, 18, 19, 20)),
    "grow-fruit": TaskType(126, 60, (62, 65, 68, 71, 72, 80, 84, 85, 88, 90)),
    "grow-plant": TaskType(126, 30, (64, 65, 68, 77, 78, 84, 85, 86, 87, 88)),
    "identify-life-stages-1": TaskType(14, 30, (6, 7, 8)),
    "identify-life-stages-2": TaskType(10, 30, (4, 5)),
    "inclined-plane-determine-angle": TaskType(168),
    "inclined-plane-friction-named-surfaces": TaskType(1386),
    "inclined-plane-friction-unnamed-surfaces": TaskType(162),
    "lifespan-longest-lived": TaskType(125, 10, (66, 68, 72, 73, 78, 80, 83, 84, 88, 92)),
    "lifespan-longest-lived-then-shortest-lived": TaskType(125, 12, (64, 66, 67, 68, 69, 72, 78, 80, 85, 87)),
    "lifespan-shortest-lived": TaskType(125, 10, (69, 70, 71, 76, 80, 82, 84, 85, 87, 91)),
    "measure-melting-point-known-substance": TaskType(436, 120, (253, 280, 281, 286, 287, 292, 299, 300, 325, 326)),
    "measure-melting-point-unknown-substance": TaskType(300),
    "melt": TaskType(30, 80, (14, 15, 16, 17, 18, 19, 20)),
    "mendelian-genetics-known-plant": TaskType(120),
    "mendelian-genetics-unknown-plant": TaskType(480),
    "power-component": TaskType(20, 20, (11, 12, 13)),
    "power-component-renewable-vs-nonrenewable-energy": TaskType(20, 30, (10, 13, 14)),
    "test-conductivity": TaskType(900, 30, (474, 479, 485, 523, 528, 579, 587, 640, 655, 662)),
    "test-conductivity-of-unknown-substances": TaskType(600, 30, (313, 352, 376, 386, 389, 394, 409, 413, 418, 448)),
    "use-thermometer": TaskType(540, 30, (284, 285, 291, 314, 358, 360, 364, 378, 384, 385)),
}

ETO_ORDER = [
    "boil",
    "change-the-state-of-matter-of",
    "freeze",
    "melt",
    "measure-melting-point-known-substance",
    "measure-melting-point-unknown-substance",
    "use-thermometer",
    "power-component",
    "power-component-renewable-vs-nonrenewable-energy",
    "test-conductivity",
    "test-conductivity-of-unknown-substances",
    "find-animal",
    "find-living-thing",
    "find-non-living-thing",
    "find-plant",
    "grow-fruit",
    "grow-plant",
    "chemistry-mix",
    "chemistry-mix-paint-secondary-color",
    "chemistry-mix-paint-tertiary-color",
    "lifespan-longest-lived",
    "lifespan-longest-lived-then-shortest-lived",
    "lifespan-shortest-lived",
    "identify-life-stages-1",
    "identify-life-stages-2",
    "inclined-plane-determine-angle",
    "inclined-plane-friction-named-surfaces",
    "inclined-plane-friction-unnamed-surfaces",
    "mendelian-genetics-known-plant",
    "mendelian-genetics-unknown-plant",
]
"""Expert data in ETO's form names a task by its index in this list and its variation: `9_412`."""

AGENTGYM_ORDER = [
    "boil",
    "melt",
    "freeze",
    "change-the-state-of-matter-of",
    "use-thermometer",
    "measure-melting-point-known-substance",
    "measure-melting-point-unknown-substance",
    "power-component",
    "power-component-renewable-vs-nonrenewable-energy",
    "test-conductivity",
    "test-conductivity-of-unknown-substances",
    "find-living-thing",
    "find-non-living-thing",
    "find-plant",
    "find-animal",
    "chemistry-mix",
    "chemistry-mix-paint-secondary-color",
    "chemistry-mix-paint-tertiary-color",
    "lifespan-longest-lived",
    "lifespan-shortest-lived",
    "lifespan-longest-lived-then-shortest-lived",
    "identify-life-stages-1",
    "identify-life-stages-2",
]
"""AgentGym's data names a task by its number among the variations of these types, counted one type after another."""


def agentgym_task(number: int) -> tuple[str, str]:
    """The type and variation of AgentGym's task with this number; the type is empty if there is none."""
    for name in AGENTGYM_ORDER:
        if number < TYPES[name].variations:
            return name, str(number)
        number -= TYPES[name].variations
    return "", ""


def spread(variations: Sequence[int]) -> list[int]:
    """The variations reordered so that any first N of them lie far apart, since neighbours share a scene and objects.

    This is the van der Corput order: indices sorted by their binary digits read backwards.
    """
    digits = (len(variations) - 1).bit_length()
    order = sorted(range(len(variations)), key=lambda index: f"{index:0{digits}b}"[::-1])
    return [variations[index] for index in order]


@functools.cache
def literature() -> dict[str, list[int]]:
    """The literature's training variations, by type.

    A quarter of them are in the simulator's development range, and 54 of them also in the literature's seen set.
    """
    text = resources.files(__package__).joinpath("training_tasks.toml").read_text(encoding="utf-8")
    return {name: [v for part in parts.split() for v in _range(part)] for name, parts in tomllib.loads(text).items()}


def _range(text: str) -> range:
    """The numbers in `3-5`, or in `3`."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def train(kind: TaskType) -> range:
    """The simulator's training variations: the first two quarters."""
    return range(kind.variations // 4 * 2)


def dev(kind: TaskType) -> range:
    """The simulator's development variations: the third quarter, quarters rounded down."""
    return range(kind.variations // 4 * 2, kind.variations // 4 * 3)


def test(kind: TaskType) -> range:
    """The simulator's test variations: the rest."""
    return range(kind.variations // 4 * 3, kind.variations)
