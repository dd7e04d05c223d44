"""The weights of pairs in a batch that the empty row fills up."""

from sandcli.training.batches import Batches
from sandcli.training.preferences import real_shares, weights


def test_every_pair_of_a_batch_weighs_the_same_and_the_empty_row_nothing() -> None:
    batches = Batches(order=[0, 1, 2, 3, 1, 4, 4, 4], accumulate=2, tokens=[9, 9], epoch=1)  # 4 is the empty row
    assert real_shares(batches, 4) == [1.0, 0.25]
    assert weights(batches, 4) == [1.0, 1.0, 1.0, 1.0, 4.0, 0.0, 0.0, 0.0]
