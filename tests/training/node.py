"""A node for tests: `sand` in a network namespace, with a host name of its own.

It is forked from a process that has imported `HEAVY`, and so are the processes that it starts: importing those again
in each of them would take most of the time of a test.
"""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sandcli.cli import main
from sandcli.training import nodes
from sandcli.training.distributed import TrainingJob

HEAVY = ["torch.distributed.launcher.api", "sandcli.training.trainer"]

_NEW_NETWORK, _NEW_HOST_NAME = 0x40000000, 0x04000000


def sand_on(namespace: str, host: str, arguments: Sequence[str], output: Path, when: int, what: signal.Signals) -> None:
    """Run `sand` there. After `when` steps of its training, if that is not 0, it sends all its processes `what`."""
    from torch import set_num_threads
    from torch.distributed.launcher import api as launcher

    os.setsid()
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", namespace).open() as file:
        assert libc.setns(file.fileno(), _NEW_NETWORK) == 0
    assert libc.unshare(_NEW_HOST_NAME) == 0
    socket.sethostname(host)
    os.environ.update(GLOO_SOCKET_IFNAME="eth0", OMP_NUM_THREADS="1", COLUMNS="200")
    os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
    set_num_threads(1)
    launcher.LaunchConfig = partial(launcher.LaunchConfig, start_method="fork")
    nodes.LOST = 15.0
    if when:
        TrainingJob.run = _run_that_ends(TrainingJob.run, when, what)  # type: ignore[method-assign]
    sys.argv = ["sand", *arguments]
    main()


def _run_that_ends(run: Any, when: int, what: signal.Signals) -> Any:
    def ending(job: TrainingJob, stop: Callable[[], bool]) -> Any:
        steps = iter(range(1, when))

        def counting() -> bool:
            if next(steps, None) is None and os.environ["LOCAL_RANK"] == "0":
                os.killpg(0, what)
            return stop()

        return run(job, counting)

    return ending


def make_model(folder: Path) -> None:
    """Make a small model with a vocabulary of 384."""
    from torch import manual_seed
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.families import SMOLLM2, publish

    config = LlamaConfig(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=1024,
    )
    manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    publish(SMOLLM2, folder)
