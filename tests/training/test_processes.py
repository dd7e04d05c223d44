"""How many processes train: those of a launcher, as many as are set, or one for each GPU."""

import pytest
import torch

from sandcli.training.processes import Processes, processes_for


@pytest.mark.parametrize(
    ("gpus", "launched", "wanted", "batch", "expected"),
    [
        (0, 1, 0, 64, Processes(1, "there is no GPU")),
        (1, 1, 0, 64, Processes(1, "one for each GPU")),
        (8, 1, 0, 64, Processes(8, "one for each GPU")),
        (8, 1, 0, 4, Processes(4, "one for each GPU")),
        (8, 1, 2, 64, Processes(2, "as set")),
        (0, 1, 2, 64, Processes(2, "as set")),
        (8, 4, 2, 64, Processes(4, "started by a launcher")),
    ],
)
def test_processes_follow_the_launcher_then_the_setting_then_the_gpus(
    monkeypatch: pytest.MonkeyPatch, gpus: int, launched: int, wanted: int, batch: int, expected: Processes
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert processes_for(launched, wanted, batch) == expected
