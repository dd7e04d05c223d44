"""The order of training: every row once an epoch, the same batches whatever the number of devices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcli.training.batches import batched
from sandcli.training.recipe import Recipe

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=30)
SIZES = st.integers(1, 8)


def recipe(epochs: int, batch_size: int, seed: int = 0) -> Recipe:
    return Recipe("full", 16, 1e-5, epochs, batch_size, 0, "drop", seed)


def batches(lengths: list[int], wanted: Recipe, processes: int, device_batch: int) -> list[list[int]]:
    """The rows of every optimiser step, the empty row left out."""
    plan = batched(lengths, wanted, processes, device_batch)
    width = plan.accumulate * processes * device_batch
    assert len(plan.order) == plan.steps * width
    steps = [plan.order[n * width : (n + 1) * width] for n in range(plan.steps)]
    return [[index for index in step if index < len(lengths)] for step in steps]


@given(LENGTHS, SIZES, SIZES, SIZES, SIZES)
def test_devices_change_nothing(lengths: list[int], epochs: int, size: int, processes: int, device: int) -> None:
    alone = batches(lengths, recipe(epochs, size), 1, 1)
    assert batches(lengths, recipe(epochs, size), processes, device) == alone


@given(LENGTHS, SIZES, SIZES)
def test_every_epoch_sees_every_row_once(lengths: list[int], epochs: int, size: int) -> None:
    steps = batches(lengths, recipe(epochs, size), 1, 1)
    each = -(-len(lengths) // size)
    for epoch in range(epochs):
        seen = [index for step in steps[epoch * each : (epoch + 1) * each] for index in step]
        assert sorted(seen) == list(range(len(lengths)))
    assert all(0 < len(step) <= size for step in steps)


@given(LENGTHS, SIZES)
def test_the_tokens_of_a_step_are_those_of_its_rows(lengths: list[int], size: int) -> None:
    plan = batched(lengths, recipe(2, size), 2, 1)
    assert plan.tokens == [sum(lengths[i] for i in step) for step in batches(lengths, recipe(2, size), 2, 1)]


@pytest.mark.parametrize("seed", [0, 1])
def test_epochs_and_seeds_differ_in_their_order(seed: int) -> None:
    first, second = batches([9] * 20, recipe(2, 20, seed), 1, 1)
    other, _ = batches([9] * 20, recipe(2, 20, seed + 1), 1, 1)
    assert first != second and first != other
    assert first == batches([9] * 20, recipe(2, 20, seed), 1, 1)[0]
