"""Processes that train together are not open to anybody else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from sandcli.errors import UsageError
from sandcli.training.config import TrainingResult
from sandcli.training.distributed import TrainingJob

NOTHING: Any = None


class Listing(TrainingJob):
    """Reports the ports on which its launcher listens."""

    def run(self, stop: Callable[[], bool]) -> TrainingResult:
        launcher = psutil.Process().parent()
        assert launcher is not None
        ports = {each.laddr.port for each in launcher.net_connections("inet") if each.status == psutil.CONN_LISTEN}
        raise UsageError(f"{len(ports)} ports", "")


@pytest.mark.slow
def test_launcher_has_no_port_whose_data_it_unpickles() -> None:
    with pytest.raises(UsageError, match=r"^1 ports$"):  # the store of the processes' addresses, which holds no pickles
        Listing("train", NOTHING, Path(), None).launch(1)
