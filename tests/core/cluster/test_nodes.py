"""Which crews fit on the nodes of a cluster."""

from typing import Any

import pytest

from sandcli.core.cluster.nodes import Needs, Node, alive, crews_that_fit, gpus_of_crew, needs
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
    ("settings", "gpus"),
    [
        (settings(kind="vllm"), 1),
        (settings(kind="auto"), 1),
        (settings(kind="vllm", tensor_parallel=4), 4),
        (settings(kind="vllm", data_parallel=2), 2),
        (settings(kind="server"), 0),  # the model runs elsewhere
        (settings(kind="auto", urls=["http://a:1"]), 0),
        (settings(kind="scripted"), 0),
    ],
)
def test_gpus_of_a_crew_are_those_of_one_engine(settings: Settings, gpus: int) -> None:
    assert gpus_of_crew(settings, generates=True) == gpus
    assert gpus_of_crew(settings, generates=False) == 0


@pytest.mark.parametrize(
    ("node", "gpus", "wanted", "crews"),
    [
        (node(64, 8), 1, Needs(8, 1), 8),  # a crew for each GPU, the cores shared
        (node(64, 8), 4, Needs(32, 4), 2),
        (node(4, 8), 1, Needs(1, 1), 4),  # fewer cores than GPUs
        (node(96), 1, Needs(32, 1), 0),  # a node without GPUs beside others with some
        (node(16), 0, Needs(16, 0), 1),
        (node(96), 0, Needs(32, 0), 3),
        (node(0), 0, Needs(1, 0), 0),  # such as a head that only coordinates
    ],
)
def test_crews_of_a_node(node: Node, gpus: int, wanted: Needs, crews: int) -> None:
    assert needs(settings(), node, gpus) == wanted
    assert crews_that_fit(node, wanted) == crews


@pytest.mark.parametrize(("workers", "gpus", "crews"), [(2, 1, 2), (4, 0, 4), (64, 0, 0)])
def test_a_set_number_of_workers_is_what_a_crew_reserves(workers: int, gpus: int, crews: int) -> None:
    wanted = needs(settings(workers), node(16, 2), gpus)
    assert wanted == Needs(workers, gpus)
    assert crews_that_fit(node(16, 2), wanted) == crews
