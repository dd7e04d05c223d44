"""The nodes of a Ray cluster, and which crews fit on them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sandcli.settings import MAX_WORKERS, Settings


class Node(NamedTuple):
    """A machine of the cluster, with all its cores and GPUs, in use or not."""

    id: str
    name: str
    cpus: int
    gpus: int


class Needs(NamedTuple):
    """What Ray reserves for one crew; `cpus` is also the number of its environment workers."""

    cpus: int
    gpus: int

    def __str__(self) -> str:
        return f"{self.cpus} cores and {self.gpus} GPUs"


def alive(nodes: Sequence[Mapping[str, Any]]) -> list[Node]:
    """The living nodes of `ray.nodes()`."""
    return [
        Node(
            node["NodeID"],
            node["NodeManagerAddress"],
            int(node["Resources"].get("CPU", 0)),
            int(node["Resources"].get("GPU", 0)),
        )
        for node in nodes
        if node["Alive"]
    ]


def gpus_of_crew(settings: Settings, generates: bool) -> int:
    """The GPUs of one model, if crews load one: the stage `generates`, and no server does it for them."""
    engine = settings.engine
    elsewhere = engine.kind in ("server", "scripted") or (engine.kind == "auto" and engine.urls)
    return engine.tensor_parallel * max(1, engine.data_parallel) if generates and not elsewhere else 0


def needs(settings: Settings, node: Node, gpus: int) -> Needs:
    """What a crew with so many GPUs needs on a node: with them goes its share of the cores."""
    share = node.cpus // max(1, node.gpus // gpus if gpus else 1)
    return Needs(settings.run.workers or max(1, min(share, MAX_WORKERS)), gpus)


def crews_that_fit(node: Node, wanted: Needs) -> int:
    """How many crews there can be on a node."""
    by_cores = node.cpus // wanted.cpus
    return min(by_cores, node.gpus // wanted.gpus) if wanted.gpus else by_cores
