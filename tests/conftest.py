"""Models, from the real small one to a tokenizer without weights, and servers for tests."""

import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from sandcli.engines.base import Model
from sandcli.models import EMBEDDED, locate

if TYPE_CHECKING:
    from tests.servers import Behaviour, Serve
    from tests.trainer import Trainer


TRAINED = {"smollm", "tiny"}
"""Fixtures that are models with weights."""

LONGEST = ("torture", "real", "core/cluster", "crash", "gpu", "docs")
"""Folders with the longest tests; the first has one that takes minutes."""


def pytest_configure() -> None:
    """Worker processes start without importing pytest; property-based tests have no deadline."""
    main = sys.modules["__main__"]
    main.__spec__ = None
    vars(main).pop("__file__", None)
    settings.register_profile("shared", deadline=None)  # on a busy machine any example may take long
    settings.load_profile("shared")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that use a model with weights `real`, and put files with long tests first.

    They would otherwise come last, when one of the processes that share the tests has none left.
    """
    for item in items:
        if TRAINED & set(getattr(item, "fixturenames", ())):
            item.add_marker("real")
    long = {item.path for item in items if any(item.iter_markers("real")) or any(item.iter_markers("slow"))}
    items.sort(key=lambda item: (_place(item.path), item.path not in long))


def _place(file: Path) -> int:
    """The place of a file's folder in `LONGEST`, or behind all of them."""
    folder = file.parent.relative_to(Path(__file__).parent).as_posix()
    return LONGEST.index(folder) if folder in LONGEST else len(LONGEST)


@pytest.fixture(scope="session")
def smollm() -> Path:
    """The embedded model, converted on first use."""
    return locate(EMBEDDED)


@pytest.fixture(scope="session")
def tiny(smollm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised Llama with the embedded model's tokenizer: 3 million weights."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = AutoTokenizer.from_pretrained(smollm)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,  # vLLM takes heads of 32 and more
        num_key_value_heads=1,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A tokenizer that knows a few words, and the config of a model with 512 positions; no weights."""
    from tests.words import publish

    folder = publish(tmp_path_factory.mktemp("models") / "policy")
    return Model(folder, "policy")


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders of all families by name, without weights."""
    from tests.families import FAMILIES, publish

    return {family.name: publish(family, tmp_path_factory.mktemp(family.name)) for family in FAMILIES}


@pytest.fixture(scope="session")
def tokenizers(families: dict[str, Path]) -> dict[str, Any]:
    """The families' tokenizers."""
    from sandcli.engines.tokens import load_tokenizer

    return {name: load_tokenizer(folder) for name, folder in families.items()}


@pytest.fixture(scope="session")
def certificates() -> ssl.SSLContext:
    """Every client reads these at its start; loading them each time would dominate these tests."""
    return ssl.create_default_context()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, certificates: ssl.SSLContext) -> "Iterator[Serve]":
    """Starts servers with a queue of behaviours, and stops them after the test."""
    from tests.servers import FakeServer

    monkeypatch.setattr(ssl, "create_default_context", lambda **options: certificates)
    servers: list[FakeServer] = []

    def start(*behaviours: "Behaviour", **card: Any) -> FakeServer:
        servers.append(FakeServer(**card))
        servers[-1].behaviours.extend(behaviours)
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> "Trainer":
    """Stands in for all trainings."""
    from tests.trainer import Trainer

    made = Trainer()
    made.put_in_place(monkeypatch)
    return made
