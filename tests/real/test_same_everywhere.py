"""The same run with every engine: the same model, in float32 and greedy, takes the same actions."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandcli.errors import Exit
from tests.helpers import artifact, lines, make_run, perform
from tests.real.test_server import VLLM

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed"),
]


@pytest.fixture(scope="module")
def url(smollm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = VLLM(smollm, str(smollm), tmp_path_factory.mktemp("server"))
    yield server.url
    server.kill()


def greedy(root: Path, kind: str, smollm: Path, **settings: Any) -> tuple[list[Any], Any]:
    """Sample every expert step greedily; returns the records and the costs."""
    common: dict[str, Any] = {"model__policy": str(smollm), "agent__max_tokens": 40, "engine__max_length": 512}
    summary = perform("sample", root, engine__kind=kind, sample__temperature=0.0, **common, **settings)
    assert summary.exit is Exit.DONE
    records = lines(artifact(root, "sample").path)
    artifact(root, "sample").set_aside()
    return records, summary.manifest.spent if summary.manifest else None


def test_every_engine_takes_the_same_actions(tmp_path: Path, smollm: Path, url: str) -> None:
    root = make_run(tmp_path / "run", sample__n=1, env__tasks="fetch,carry")
    perform("collect", root)
    ours, spent = greedy(root, "transformers", smollm)
    launched, spent_by_vllm = greedy(root, "vllm", smollm)
    served, spent_by_server = greedy(root, "server", smollm, engine__urls=[url], engine__patience=120.0)
    assert len(ours) == len(launched) == len(served) > 30
    for others in (launched, served):
        assert [list(record) for record in ours] == [list(record) for record in others]
        same = sum(a["samples"] == b["samples"] for a, b in zip(ours, others, strict=True))
        assert same / len(ours) >= 0.95
    assert sum(record["unparsable"] == 0 for record in ours) > len(ours) / 4, "hardly anything to compare"
    assert [s.engine for s in (spent, spent_by_vllm, spent_by_server)] == ["transformers", "vllm", "server"]
    for taken in (spent, spent_by_vllm, spent_by_server):
        assert taken.generated > 0
        assert taken.batch >= 1
        assert taken.prompt == spent.prompt
        assert taken.units == len(ours)
