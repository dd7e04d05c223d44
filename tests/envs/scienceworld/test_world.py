"""ScienceWorld without its simulator: tasks and their names, step limits, folded walks, simplifications."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcli.envs.scienceworld import tasks as table
from sandcli.envs.scienceworld.navigation import fold_walks
from sandcli.envs.scienceworld.world import ScienceWorld, simplifications_for
from sandcli.errors import UsageError
from sandcli.records import Task
from sandcli.settings import EnvSettings

SPLITS = ("train", "seen", "unseen")

LIMITS = {
    "boil": 100,
    "change-the-state-of-matter-of": 80,
    "freeze": 80,
    "melt": 80,
    "measure-melting-point-known-substance": 120,
    "use-thermometer": 30,
    "power-component": 20,
    "power-component-renewable-vs-nonrenewable-energy": 30,
    "test-conductivity": 30,
    "test-conductivity-of-unknown-substances": 30,
    "find-animal": 15,
    "find-living-thing": 15,
    "find-non-living-thing": 15,
    "find-plant": 15,
    "grow-fruit": 60,
    "grow-plant": 30,
    "chemistry-mix": 60,
    "chemistry-mix-paint-secondary-color": 15,
    "chemistry-mix-paint-tertiary-color": 30,
    "lifespan-longest-lived": 10,
    "lifespan-longest-lived-then-shortest-lived": 12,
    "lifespan-shortest-lived": 10,
    "identify-life-stages-1": 30,
    "identify-life-stages-2": 30,
}
"""The literature's 24 task types and their step limits."""


OLD_NAMES = [
    ("task-1-boil", "boil"),
    ("task-1-change-the-state-of-matter-of", "change-the-state-of-matter-of"),
    ("task-10-measure-melting-point-(known-substance)", "measure-melting-point-known-substance"),
    ("task-10-use-thermometer", "use-thermometer"),
    ("task-2-power-component-(renewable-vs-nonrenewable-energy)", "power-component-renewable-vs-nonrenewable-energy"),
    ("task-2a-test-conductivity", "test-conductivity"),
    ("task-2a-test-conductivity-of-unknown-substances", "test-conductivity-of-unknown-substances"),
    ("task-3-find-non-living-thing", "find-non-living-thing"),
    ("task-5-chemistry-mix-paint-(tertiary-color)", "chemistry-mix-paint-tertiary-color"),
    ("task-6-lifespan-(longest-lived-then-shortest-lived)", "lifespan-longest-lived-then-shortest-lived"),
    ("task-7-identify-life-stages-1", "identify-life-stages-1"),
    ("task-8-inclined-plane-friction-(named-surfaces)", "inclined-plane-friction-named-surfaces"),
    ("task-9-mendellian-genetics-(known-plant)", "mendelian-genetics-known-plant"),
    ("mendelian-genetics-unknown-plant", "mendelian-genetics-unknown-plant"),
]


def selected(tasks: list[str]) -> ScienceWorld:
    return ScienceWorld(EnvSettings(tasks=tasks))


def task(name: str, variation: int = 0) -> Task:
    return Task(name=name, variation=variation)


def test_all_selects_every_type_and_variation() -> None:
    assert len(table.TYPES) == 30
    assert sum(kind.variations for kind in table.TYPES.values()) == 7207
    world = selected(["all"])
    assert [len(world.tasks(split)) for split in SPLITS] == [3592, 1796, 1819]


def test_paper_selects_the_tasks_of_the_literature() -> None:
    world = selected(["paper"])
    assert {item.name for item in world.tasks("train")} == set(LIMITS)
    assert [len(world.tasks(split)) for split in SPLITS] == [1483, 194, 211]


TRAINING = {
    **dict.fromkeys(("boil", "change-the-state-of-matter-of", "freeze", "melt"), 14),
    **dict.fromkeys(("measure-melting-point-known-substance", "use-thermometer"), 120),
    **dict.fromkeys(("test-conductivity", "test-conductivity-of-unknown-substances"), 120),
    **dict.fromkeys(("find-animal", "find-living-thing", "find-non-living-thing", "find-plant"), 120),
    **dict.fromkeys(("power-component", "power-component-renewable-vs-nonrenewable-energy"), 8),
    **dict.fromkeys(("chemistry-mix-paint-secondary-color", "chemistry-mix-paint-tertiary-color"), 18),
    **dict.fromkeys(("grow-plant", "lifespan-longest-lived", "lifespan-shortest-lived"), 83),
    **{"grow-fruit": 62, "chemistry-mix": 16, "lifespan-longest-lived-then-shortest-lived": 78},
    **{"identify-life-stages-1": 6, "identify-life-stages-2": 4},
}
"""The literature's training tasks by type."""


def test_paper_selects_the_training_tasks_of_the_literature() -> None:
    found = selected(["paper"]).tasks("train")
    assert Counter(item.name for item in found) == TRAINING
    assert len(set(map(str, found))) == len(found)
    assert sum((item.variation or 0) not in table.train(table.TYPES[item.name]) for item in found) == 357


def test_literature_trains_on_54_of_its_seen_tasks_and_on_no_unseen_one() -> None:
    train, seen, unseen = ({str(item) for item in selected(["paper"]).tasks(split)} for split in SPLITS)
    assert (len(train & seen), len(train & unseen), len(seen & unseen)) == (54, 0, 0)


def test_splits_of_all_tasks_share_no_task() -> None:
    found = [item for split in SPLITS for item in selected(["all"]).tasks(split)]
    assert len(set(map(str, found))) == len(found)


def test_type_beside_the_paper_keeps_the_simulators_training_tasks() -> None:
    added = "mendelian-genetics-known-plant"
    found = [item for item in selected(["paper", added]).tasks("train") if item.name == added]
    assert len(found) == len(table.train(table.TYPES[added]))


def test_tasks_have_only_existing_variations() -> None:
    world = selected(["paper"])
    for item in (item for split in SPLITS for item in world.tasks(split)):
        assert item.variation in range(table.TYPES[item.name].variations)


def test_tasks_interleave_their_types() -> None:
    first = selected(["paper"]).tasks("train")[:24]
    assert {item.name for item in first} == set(LIMITS)
    mixed = selected(["identify-life-stages-2", "boil"]).tasks("train")
    assert [(item.name, item.variation) for item in mixed[:4]] == [
        ("identify-life-stages-2", 0),
        ("boil", 0),
        ("identify-life-stages-2", 2),
        ("boil", 8),
    ]


@given(st.integers(1, 200), st.data())
def test_spread_puts_any_first_variations_far_apart(size: int, data: st.DataObject) -> None:
    """No gap between chosen variations is more than four times the gap of an even spread."""
    order = table.spread(range(size))
    assert sorted(order) == list(range(size))
    count = data.draw(st.integers(1, size))
    chosen = sorted(order[:count])
    gaps = [after - before for before, after in zip(chosen, [*chosen[1:], size], strict=True)]
    assert max(gaps) <= 4 * size / count


def test_type_named_twice_counts_once() -> None:
    assert selected(["boil", "boil"]).tasks("train") == selected(["boil"]).tasks("train")
    assert selected(["paper", "boil"]).tasks("seen") == selected(["paper"]).tasks("seen")


def test_unknown_split_is_an_error() -> None:
    with pytest.raises(UsageError, match="unknown split 'dev'"):
        ScienceWorld().tasks("dev")


def test_unknown_type_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="'find-plants'") as caught:
        selected(["boil", "find-plants"])
    assert caught.value.fix == "did you mean find-plant?"


@pytest.mark.parametrize(("name", "limit"), LIMITS.items())
def test_step_limits_are_those_of_the_literature(name: str, limit: int) -> None:
    assert ScienceWorld().step_limit(task(name)) == limit


def test_other_types_have_the_default_limit_and_a_setting_overrides_it() -> None:
    assert ScienceWorld().step_limit(task("mendelian-genetics-known-plant")) == 100
    assert ScienceWorld(EnvSettings(tasks=["all"], step_limit=7)).step_limit(task("boil")) == 7


@pytest.mark.parametrize(
    ("identifier", "name", "variation"),
    [("9_412", "test-conductivity", 412), ("0_29", "boil", 29), ("29_0", "mendelian-genetics-unknown-plant", 0)]
    + [("sciworld_0", "boil", 0), ("sciworld_30", "melt", 0), ("sciworld_4638", "identify-life-stages-2", 9)]
    + [(f"{name}_7", name, 7) for name in table.TYPES]
    + [(f"{old}_3", name, 3) for old, name in OLD_NAMES],
)
def test_task_of_knows_the_names_in_expert_data(identifier: str, name: str, variation: int) -> None:
    assert ScienceWorld().task_of(identifier) == task(name, variation)


@pytest.mark.parametrize(
    "identifier",
    [
        "",
        "boil",
        "_3",
        "boil_",
        "boil_x",
        "boil_-1",
        "30_0",
        "9.412",
        "find-unicorn_3",
        "9_412_1",
        "²_3",
        "boil_²",
        "sciworld_99999",
    ],
)
def test_task_of_rejects_an_unknown_name(identifier: str) -> None:
    with pytest.raises(UsageError, match="names no ScienceWorld task"):
        ScienceWorld().task_of(identifier)


@pytest.mark.parametrize("identifier", ["boil_30", "0_30", "task-1-boil_999"])
def test_task_of_rejects_a_variation_that_does_not_exist(identifier: str) -> None:
    with pytest.raises(UsageError, match="boil has no variation") as caught:
        ScienceWorld().task_of(identifier)
    assert caught.value.fix == "use a variation below 30"


def test_observations_match_in_any_order_of_lines() -> None:
    match = ScienceWorld().observations_match
    assert match("You see:\n\ta pot\n\ta cup", "You see:\n\ta cup\n\ta pot\n")
    assert not match("You see:\n\ta pot", "You see:\n\ta cup")
    assert not match("You see:\n\ta pot\n\ta pot", "You see:\n\ta pot")


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ([], []),
        (["look around"], ["look around"]),
        (["open door to hallway", "go to hallway"], ["teleport to hallway"]),
        (
            ["open door to hallway", "go to hallway", "open door to kitchen", "go to kitchen", "pick up cup"],
            ["teleport to kitchen", "pick up cup"],
        ),
        (
            ["go to hallway", "look around", "go to kitchen"],
            ["teleport to hallway", "look around", "teleport to kitchen"],
        ),
        (["pick up cup", "go to hallway", "go to outside"], ["pick up cup", "teleport to outside"]),
    ],
)
def test_fold_walks_replaces_walks_with_teleports(path: list[str], short: list[str]) -> None:
    assert fold_walks(path) == short


def test_fold_walks_never_yields_two_teleports_in_a_row() -> None:
    path = ["go to a", "look", "go to b", "go to c", "open door to d", "go to d", "look", "look", "go to e"]
    short = fold_walks(path)
    assert [action for action in short if action == "look"] == ["look"] * 3
    assert not any(a.startswith("teleport") and b.startswith("teleport") for a, b in pairwise(short))


@pytest.mark.parametrize("name", table.TYPES)
def test_eto_keeps_electricity_for_tasks_that_need_it(name: str) -> None:
    labels = simplifications_for("eto", task(name)).split(",")
    assert labels[:4] == ["teleportAction", "openDoors", "selfWateringFlowerPots", "openContainers"]
    needed = "conductivity" in name or "power-component" in name
    assert labels[4:] == ([] if needed else ["noElectricalAction"])


@pytest.mark.parametrize(
    ("setting", "passed_on"),
    [("none", ""), ("easy", "easy"), ("openDoors,openContainers", "openDoors,openContainers")],
)
def test_other_simplifications_are_passed_on(setting: str, passed_on: str) -> None:
    assert simplifications_for(setting, task("boil")) == passed_on


def test_versions_hold_the_simulator_and_the_simplifications() -> None:
    versions = ScienceWorld(EnvSettings(simplifications="easy")).versions()
    assert versions["simplifications"] == "easy"
    assert versions["scienceworld"] == "1.2.3"


def test_every_task_is_there_and_has_no_content_of_its_own() -> None:
    world = ScienceWorld(EnvSettings(tasks=["all"]))
    assert {world.content(task) for split in SPLITS for task in world.tasks(split)} == {""}


@pytest.mark.parametrize(
    "task",
    [
        Task(name="boil", variation=30),
        Task(name="fly", variation=0),
        Task(name="boil"),
        Task(name="boil", game="boil_1"),
        Task(name="boil", variation=-1),
    ],
)
def test_task_that_scienceworld_lacks_is_refused(task: Task) -> None:
    with pytest.raises(UsageError):
        ScienceWorld().content(task)


@pytest.mark.parametrize(
    ("simplifications", "true", "false"),
    [
        ("eto", ["single teleport, and every container is already open", "teleport to ROOM"], ["Doors", "go to ROOM"]),
        ("easy", ["single teleport, and a container may be closed", "teleport to ROOM"], ["Doors", "go to ROOM"]),
        ("none", ["Doors lead from room to room, and a container may be closed", "go to ROOM"], ["teleport"]),
        ("openContainers", ["Doors", "every container is already open"], ["teleport"]),
    ],
)
def test_instruction_is_true_of_the_simplified_world(simplifications: str, true: list[str], false: list[str]) -> None:
    told = ScienceWorld(EnvSettings(simplifications=simplifications)).system
    assert all(text in told for text in true) and not any(text in told for text in [*false, "{", "|Action"])
