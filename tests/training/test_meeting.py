"""Nodes meet, must want the same, and end together. Here each is a thread, and the store is on loopback."""

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandcli.errors import Exit, Interrupted, PrerequisiteError, SandError, UsageError
from sandcli.interrupts import never
from sandcli.training import nodes
from sandcli.training.nodes import Nodes
from tests.helpers import wait_until

pytestmark = pytest.mark.slow

SAME = {"sft.epochs": "3"}
Then = Callable[[Nodes], None]


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the first node. Its host has the name node0, that of the others node1."""
    monkeypatch.setattr(nodes, "_BEAT", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def outcomes(first: str, *each: tuple[dict[str, str], Then]) -> list[SandError | None]:
    """How nodes end that want something and then do something; the first one leads."""
    made = [Nodes("sft", len(each), first, never) for _ in each]
    for node in made[1:]:
        node.leads = False

    def live(node: Nodes, same: dict[str, str], then: Then) -> SandError | None:
        try:
            with node:
                node.agree(same)
                then(node)
        except SandError as error:
            return error
        return None

    with ThreadPoolExecutor() as threads:
        return list(threads.map(live, made, *zip(*each, strict=True)))


def lead(node: Nodes) -> None:
    node.begin("a mark")


def follow(node: Nodes) -> None:
    assert node.await_begin() == "a mark"


def wait(node: Nodes) -> None:
    wait_until(lambda: node.problem is not None)
    node.await_begin()


def fail(node: Nodes) -> None:
    raise PrerequisiteError("the disk is full", "free some space")


def test_job_of_the_first_node_reaches_all(first: str) -> None:
    assert outcomes(first, (SAME, lead), (SAME, follow), (SAME, follow)) == [None, None, None]


def test_nothing_to_do_reaches_all(first: str) -> None:
    idle: Then = lambda node: None  # noqa: E731

    def nothing(node: Nodes) -> None:
        assert node.await_begin() is None

    assert outcomes(first, (SAME, idle), (SAME, nothing)) == [None, None]


def test_node_that_wants_something_else_is_named_everywhere(first: str) -> None:
    errors = outcomes(first, (SAME, lead), ({"sft.epochs": "2"}, wait))
    host = socket.gethostname()
    said = f"{host} differs from {host}: sft.epochs is 2 there and 3 here"
    assert [error.what for error in errors if error] == [said, said]


def test_error_of_one_node_ends_all(first: str, tmp_path: Path) -> None:
    def watch(node: Nodes) -> None:
        node.watched_by(tmp_path / "end")
        wait(node)

    errors = outcomes(first, (SAME, watch), (SAME, fail), (SAME, wait))
    there = f"{socket.gethostname()}: the disk is full"
    assert [error.what for error in errors if error] == [there, "the disk is full", there]
    assert {error.exit for error in errors if error} == {Exit.PREREQUISITE}
    assert (tmp_path / "end").exists()


def test_error_of_the_first_node_ends_all(first: str) -> None:
    errors = outcomes(first, (SAME, fail), (SAME, wait))
    assert [error.what for error in errors if error] == ["the disk is full"] * 2


def test_first_node_that_fails_before_all_have_come_ends(first: str) -> None:
    with pytest.raises(PrerequisiteError, match="the disk is full"), Nodes("sft", 2, first, never) as node:
        fail(node)


def test_interrupted_training_is_no_problem_of_the_others(first: str) -> None:
    def stopped(node: Nodes) -> None:
        lead(node) if node.leads else follow(node)
        raise Interrupted("sft")

    errors = outcomes(first, (SAME, stopped), (SAME, stopped))
    assert [error.exit for error in errors if error] == [Exit.INTERRUPTED] * 2


def test_node_that_does_not_come_is_missed(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "START", 0.0)
    with (
        pytest.raises(PrerequisiteError, match=r"^only 1 of 2 nodes came within 0 s: "),
        Nodes("sft", 2, first, never) as node,
    ):
        node.agree(SAME)


def test_first_node_that_does_not_come_is_missed(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "START", 0.0)
    node = Nodes("sft", 2, first, never)
    node.leads = False
    with pytest.raises(PrerequisiteError, match=r"^nobody answers at 127.0.0.1, port \d+: "):
        node.__enter__()


class Cut:
    """The store if the network fails: its first call fails, or never ends."""

    def __init__(self, waits: bool) -> None:
        self._waits = waits

    def set(self, key: str, value: bytes) -> None:
        if self._waits:
            threading.Event().wait()
        raise RuntimeError("connection reset by peer")


@pytest.mark.parametrize("waits", [False, True])
def test_nodes_that_cannot_reach_one_another_name_one_another(
    first: str, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "LOST", 1.0)

    def cut(node: Nodes) -> None:
        wait_until(lambda: "about/0" in node._heard)
        node._store = Cut(waits)
        wait(node)

    host = socket.gethostname()
    for error in outcomes(first, (SAME, wait), (SAME, cut)):
        assert error is not None and error.what == f"lost {host}: killed, or down, or unreachable for 1 s"
        assert "resumes from the last checkpoint" in error.fix


def test_address_needs_a_port() -> None:
    with pytest.raises(UsageError, match=r"^trainer.first_node is 'node1'"):
        Nodes("sft", 2, "node1", never)
