"""The order of training: every row once per epoch, the same batches on any number of devices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcli.training.batches import make_batches
from sandcli.training_settings import TrainingSettings

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=30)
SIZES = st.integers(1, 8)


def aims(epochs: int, batch_size: int) -> TrainingSettings:
    return TrainingSettings(epochs=epochs, batch_size=batch_size)


def batches(
    lengths: list[int], wanted: TrainingSettings, processes: int, device_batch: int, seed: int = 0
) -> list[list[int]]:
    """The rows of every optimiser step, without the empty row."""
    plan = make_batches(lengths, wanted, seed, processes, device_batch)
    width = plan.accumulate * processes * device_batch
    assert len(plan.order) == plan.steps * width
    steps = [plan.order[n * width : (n + 1) * width] for n in range(plan.steps)]
    return [[index for index in step if index < len(lengths)] for step in steps]


@given(LENGTHS, SIZES, SIZES, SIZES, SIZES)
def test_number_of_devices_changes_nothing(
    lengths: list[int], epochs: int, size: int, processes: int, device: int
) -> None:
    alone = batches(lengths, aims(epochs, size), 1, 1)
    assert batches(lengths, aims(epochs, size), processes, device) == alone


@given(LENGTHS, SIZES, SIZES)
def test_epoch_uses_every_row_once(lengths: list[int], epochs: int, size: int) -> None:
    steps = batches(lengths, aims(epochs, size), 1, 1)
    each = -(-len(lengths) // size)
    for epoch in range(epochs):
        seen = [index for step in steps[epoch * each : (epoch + 1) * each] for index in step]
        assert sorted(seen) == list(range(len(lengths)))
    assert all(0 < len(step) <= size for step in steps)


@given(LENGTHS, SIZES, st.integers(1, 40))
def test_number_of_steps_that_is_set_is_reached_over_as_many_epochs_as_it_takes(
    lengths: list[int], size: int, most: int
) -> None:
    wanted = TrainingSettings(epochs=2, batch_size=size, max_steps=most)
    assert batches(lengths, wanted, 1, 1) == batches(lengths, aims(most, size), 1, 1)[:most]
    assert make_batches(lengths, wanted, 0, 1, 1).steps == most


def test_without_a_row_there_is_no_step() -> None:
    assert make_batches([], TrainingSettings(max_steps=5), 0, 1, 1).steps == 0


@given(LENGTHS, SIZES)
def test_tokens_of_a_step_are_those_of_its_rows(lengths: list[int], size: int) -> None:
    plan = make_batches(lengths, aims(2, size), 0, 2, 1)
    assert plan.tokens == [sum(lengths[i] for i in step) for step in batches(lengths, aims(2, size), 2, 1)]


@pytest.mark.parametrize("seed", [0, 1])
def test_order_differs_between_epochs_and_seeds(seed: int) -> None:
    first, second = batches([9] * 20, aims(2, 20), 1, 1, seed)
    other, _ = batches([9] * 20, aims(2, 20), 1, 1, seed + 1)
    assert first != second and first != other
    assert first == batches([9] * 20, aims(2, 20), 1, 1, seed)[0]
