"""Which crews fit on the nodes of a cluster."""

from typing import Any

import pytest
from msgspec.structs import replace

from sandcli.core.cluster.nodes import Needs, Node, alive, crews_that_fit, needs
from sandcli.engine_settings import EngineSettings
from sandcli.settings import RunSettings, Settings


def node(cpus: int, gpus: int = 0) -> Node:
    return Node("1", "a", cpus, gpus)


def settings(workers: int = 0, **engine: Any) -> Settings:
    return Settings(run=RunSettings(workers=workers), engine=EngineSettings(**engine))


def test_dead_nodes_are_left_out() -> None:
    told = {"NodeManagerAddress": "10.0.0.1", "Resources": {"CPU": 8.0, "GPU": 2.0, "memory": 1.0}}
    nodes = [{"NodeID": "x", "Alive": True, **told}, {"NodeID": "y", "Alive": False, **told}]
    assert alive(nodes) == [Node("x", "10.0.0.1", 8, 2)]


@pytest.mark.parametrize(
    ("settings", "node", "any_gpu", "wanted", "crews"),
    [
        (settings(kind="vllm"), node(64, 8), True, Needs(8, 1), 8),  # a crew for each GPU, the cores shared
        (settings(kind="auto"), node(64, 8), True, Needs(8, 1), 8),
        (settings(kind="vllm", tensor_parallel=4), node(64, 8), True, Needs(32, 4), 2),
        (settings(kind="vllm", data_parallel=2), node(64, 8), True, Needs(16, 2), 4),
        (settings(kind="vllm"), node(4, 8), True, Needs(1, 1), 4),  # fewer cores than GPUs
        (settings(kind="vllm"), node(96), True, Needs(32, 1), 0),  # a node without GPUs beside others with some
        (settings(kind="vllm"), node(16), False, Needs(16, 0), 1),  # no GPU anywhere: the CPU computes
        (settings(kind="vllm"), node(96), False, Needs(32, 0), 3),
        (settings(kind="server"), node(16, 8), True, Needs(16, 0), 1),  # the model runs elsewhere
        (settings(kind="scripted"), node(1), False, Needs(1, 0), 1),
        (settings(workers=2, kind="vllm"), node(16, 2), True, Needs(2, 1), 2),
        (settings(workers=4, kind="server"), node(16), False, Needs(4, 0), 4),
        (settings(kind="vllm"), node(0), False, Needs(1, 0), 0),  # such as a head that only coordinates
    ],
)
def test_crews_of_a_node(settings: Settings, node: Node, any_gpu: bool, wanted: Needs, crews: int) -> None:
    assert needs(settings, node, any_gpu) == wanted
    assert crews_that_fit(node, wanted) == crews


def test_a_set_number_of_workers_is_what_a_crew_reserves() -> None:
    many = replace(settings(kind="server"), run=RunSettings(workers=64))
    assert needs(many, node(16), any_gpu=False) == Needs(64, 0)
    assert crews_that_fit(node(16), Needs(64, 0)) == 0
