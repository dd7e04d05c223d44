"""A rollout stage on servers that die: no unit is lost, done twice or recorded as failed."""

import threading
from pathlib import Path
from typing import Any

import pytest

from sandcli.core.run import Run
from sandcli.engines.base import Model
from sandcli.errors import Exit, PrerequisiteError
from tests.helpers import artifact, make_run, perform, turn
from tests.servers import FakeServer, Serve, answers, reset, says

ACTIONS = ("go to kitchen", "go to garden", "take lamp", "go to hall", "drop lamp", "look")


def policy(handler: Any, body: dict[str, Any]) -> None:
    """A turn that depends on the request alone, as a model's would."""
    says(turn("Hm.", ACTIONS[(body["seed"] + len(body["prompt"])) % len(ACTIONS)]), cached=4)(handler, body)


def dying(server: FakeServer, after: int) -> None:
    """Let a server go down, with its connections, after so many requests."""

    def usual(handler: Any, body: dict[str, Any]) -> None:
        if len(server.requests) <= after:
            policy(handler, body)
            return
        reset(handler, body)
        threading.Thread(target=server.stop).start()

    server.usual = usual


@pytest.fixture
def sampled(tmp_path: Path, words: Model) -> Path:
    """A run with candidates to roll out; the servers serve its policy."""
    root = make_run(tmp_path / "run", sample__n=3, model__base=str(words.folder), model__policy=str(words.folder))
    perform("collect", root, limit=4)
    perform("sample", root)
    return root


def rolled_out(root: Path, words: Model, *servers: FakeServer, patience: float = 5.0) -> Any:
    """The rollout stage on these servers."""
    for server in servers:
        server.listing = answers(200, {"data": [{"id": str(words.folder)}]})
    urls = [server.url for server in servers]
    settings: dict[str, Any] = {"engine__urls": urls, "engine__patience": patience, "agent__max_tokens": 16}
    return perform("rollout", root, engine__kind="server", run__retries=0, **settings)


@pytest.fixture
def expected(sampled: Path, words: Model, serve: Serve) -> bytes:
    """What the stage makes on a server that stays up."""
    server = serve()
    server.usual = policy
    summary = rolled_out(sampled, words, server)
    assert summary.exit is Exit.DONE
    assert summary.manifest.spent.engine == "server"
    assert summary.manifest.spent.rates()["prefix cache hit rate"] > 0
    content = artifact(sampled, "rollout").path.read_bytes()
    artifact(sampled, "rollout").set_aside()
    return content


def test_another_server_takes_over(sampled: Path, words: Model, serve: Serve, expected: bytes) -> None:
    first, second = serve(), serve()
    second.usual = policy
    dying(first, after=10)
    assert rolled_out(sampled, words, first, second).exit is Exit.DONE
    assert artifact(sampled, "rollout").path.read_bytes() == expected
    assert len(first.requests) > 10


@pytest.mark.slow
def test_stage_without_servers_left_ends_and_a_rerun_completes_it(
    sampled: Path, words: Model, serve: Serve, expected: bytes
) -> None:
    only, run = serve(), Run(sampled)
    dying(only, after=20)
    summary = rolled_out(sampled, words, only, patience=0.2)
    assert summary.exit is Exit.FAILED_UNITS
    assert {failure.reason for failure in summary.failures} == {"engine"}
    assert only.url in summary.failures[0].detail
    assert not run.artifact("rollout").path.exists()
    recorded = run.artifact("rollout").journal.read_bytes().splitlines()
    assert 0 < len(recorded) == len(set(recorded))
    assert set(recorded) < set(expected.splitlines())
    only.usual = policy
    only.start()
    assert rolled_out(sampled, words, only).exit is Exit.DONE
    assert run.artifact("rollout").path.read_bytes() == expected
    assert run.artifact("rollout").failures() == []


@pytest.mark.slow
def test_stage_waits_for_a_server_that_comes_back(sampled: Path, words: Model, serve: Serve, expected: bytes) -> None:
    only = serve()
    dying(only, after=15)

    def revive() -> None:
        only.usual = policy
        only.start()

    back = threading.Timer(2.0, revive)
    back.start()
    assert rolled_out(sampled, words, only, patience=30.0).exit is Exit.DONE
    back.join()
    assert artifact(sampled, "rollout").path.read_bytes() == expected


def test_api_key_is_written_nowhere(
    sampled: Path, words: Model, serve: Serve, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    server = serve()
    server.usual = policy
    rolled_out(sampled, words, server)
    assert server.requests[0].authorization == "Bearer sk-very-secret"
    assert "sk-very-secret" not in "".join(capfd.readouterr())
    assert not [path for path in sampled.rglob("*") if path.is_file() and b"sk-very-secret" in path.read_bytes()]


def test_unreachable_server_is_a_missing_prerequisite(sampled: Path, words: Model, serve: Serve) -> None:
    server = serve()
    server.stop()
    with pytest.raises(PrerequisiteError, match=server.url):
        rolled_out(sampled, words, server, patience=0.2)
    assert artifact(sampled, "rollout").journal.read_bytes() == b""
