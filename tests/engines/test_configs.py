"""What model folders say about themselves, and what adapters say about their base."""

import json
from pathlib import Path
from typing import Any

import pytest

from sandcli import models
from sandcli.engines.adapters import weights_of
from sandcli.engines.configs import load_config, longest, stop_ids
from sandcli.engines.tokens import load_tokenizer
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.models import differences
from tests.families import LLAMA, QWEN, publish


def written(folder: Path, name: str = "config.json", **content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder


def adapter(folder: Path, base: str, **content: Any) -> Path:
    return written(folder, "adapter_config.json", base_model_name_or_path=base, **content)


@pytest.mark.parametrize(
    ("kind", "config", "tokens"),
    [
        ("llama", {"max_position_embeddings": 2048}, 2048),
        ("gpt2", {"n_positions": 1024}, 1024),
        ("gemma3", {"text_config": {"max_position_embeddings": 512}}, 512),
        ("mistral3", {"text_config": {"model_type": "mistral", "max_position_embeddings": 512}}, 512),
        ("llama4", {"text_config": {"max_position_embeddings": 512}}, 512),
        ("qwen2_5_vl", {"text_config": {"max_position_embeddings": 512}}, 512),
        ("qwen3_vl", {"text_config": {"max_position_embeddings": 512}}, 512),
    ],
)
def test_context_length_is_read_from_the_language_part(
    tmp_path: Path, kind: str, config: dict[str, Any], tokens: int
) -> None:
    folder = written(tmp_path, model_type=kind, **config)
    assert (longest(folder, 0), longest(folder, 100), longest(folder, 9999)) == (tokens, 100, tokens)


def test_model_that_does_not_say_its_context_length_needs_a_bound(tmp_path: Path) -> None:
    folder = written(tmp_path, model_type="bloom")
    assert longest(folder, 300) == 300
    with pytest.raises(UsageError, match="a bloom model does not say how long a conversation may be") as caught:
        longest(folder, 0)
    assert "set max_length" in caught.value.fix


MINE = 'raise SystemExit("the code of a model ran")\n'


def test_code_that_comes_with_a_model_is_never_run_and_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on stdin"))
    own = {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Model", "AutoTokenizer": ["mine.Words", None]}
    folder = written(tmp_path, model_type="mine", auto_map=own)
    written(tmp_path, "tokenizer_config.json", tokenizer_class="Words", auto_map=own)
    (tmp_path / "mine.py").write_text(MINE)
    for load in (load_config, load_tokenizer):
        with pytest.raises(UsageError, match=rf"the model in {folder} needs code that comes with it"):
            load(folder)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where transformers copies the code of models to."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


@pytest.mark.usefixtures("modules")
def test_code_that_comes_with_a_model_is_run_if_it_is_trusted(tmp_path: Path) -> None:
    own = {"AutoConfig": "mine.Mine"}
    folder = written(tmp_path / "own", model_type="mine", auto_map=own, max_position_embeddings=77)
    (folder / "mine.py").write_text(
        'from transformers import LlamaConfig\nclass Mine(LlamaConfig):\n    model_type = "mine"\n'
    )
    assert longest(folder, 0, trust_code=True) == 77


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("source", [MINE, "import no_such_package", "1 / 0"])
def test_error_in_the_code_of_a_model_is_reported(tmp_path: Path, source: str) -> None:
    folder = written(tmp_path / "own", model_type="mine", auto_map={"AutoConfig": "mine.Mine"})
    (folder / "mine.py").write_text(source)
    with pytest.raises(UsageError, match=f"cannot read the config of the model in {folder}: "):
        load_config(folder, trust_code=True)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('{"model_type": "qwen99"}', "model type `qwen99`"),
        ('{"model_type": "llama", "hidden_size": "wide"}', "hidden_size"),
        ('{"model_type": ', "config.json"),
    ],
)
def test_config_that_transformers_does_not_understand_is_reported(tmp_path: Path, content: str, what: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match=f"cannot read the config of the model in {tmp_path}: .*{what}"):
        load_config(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_damaged_generation_config_is_reported(tmp_path: Path, content: bytes) -> None:
    folder = publish(QWEN, tmp_path)
    (folder / "generation_config.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"generation_config\.json is not a JSON object"):
        stop_ids(folder, load_tokenizer(folder))


def test_adapter_of_a_hub_model_has_its_end_tokens_and_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = publish(LLAMA, written(tmp_path / "snapshot", model_type="llama", max_position_embeddings=640))
    asked: list[tuple[str, str | None]] = []

    def downloaded(name: str, revision: str | None, fetch: bool) -> Path:
        asked.append((name, revision))
        return base

    monkeypatch.setattr(models, "_from_hub", downloaded)
    policy = adapter(tmp_path / "policy", "meta/llama", revision="abc")
    tokenizer = load_tokenizer(base)
    assert stop_ids(policy, tokenizer) == stop_ids(base, tokenizer) and len(stop_ids(base, tokenizer)) == 3
    assert longest(policy, 0) == 640
    assert set(asked) == {("meta/llama", "abc")}


def test_adapter_whose_base_was_moved_names_its_old_place(tmp_path: Path) -> None:
    base = written(tmp_path / "base", model_type="llama")
    policy = adapter(tmp_path / "run" / "sft", str(base))
    assert weights_of(policy) == base
    moved = base.rename(tmp_path / "elsewhere")
    with pytest.raises(PrerequisiteError, match=f"sft is an adapter of {base}, which is not there") as caught:
        weights_of(policy)
    assert caught.value.fix.endswith(f"ln -s FOLDER {base}")
    base.symlink_to(moved)
    assert weights_of(policy) == base


def test_adapter_that_was_moved_with_its_base_finds_it(tmp_path: Path) -> None:
    base = written(tmp_path / "old" / "models" / "base", model_type="llama")
    policy = adapter(tmp_path / "old" / "runs" / "it1" / "sft", str(base))
    assert weights_of(policy) == base
    (tmp_path / "old").rename(tmp_path / "new")
    assert weights_of(tmp_path / "new" / "runs" / "it1" / "sft") == tmp_path / "new" / "models" / "base"


def test_model_that_only_has_the_name_of_the_base_is_not_taken(tmp_path: Path) -> None:
    base = written(tmp_path / "models" / "base", model_type="llama")
    policy = adapter(tmp_path / "runs" / "it1" / "sft", str(base))
    base.rename(tmp_path / "elsewhere")
    written(tmp_path / "runs" / "base", model_type="llama")
    with pytest.raises(PrerequisiteError, match="which is not there"):
        weights_of(policy)


def test_folder_that_only_looks_like_an_adapter_is_reported(tmp_path: Path) -> None:
    folder = written(tmp_path, "adapter_config.json", r=8)
    with pytest.raises(UsageError, match=r"adapter_config\.json is not an adapter.s config: .*base_model_name_or_path"):
        weights_of(folder)


def test_policies_of_models_with_a_nested_language_part_are_compared_with_their_base(tmp_path: Path) -> None:
    base = written(tmp_path / "base", model_type="gemma3", text_config={"hidden_size": 64})
    full = {"hidden_size": 64, "vocab_size": 99, "num_hidden_layers": 2}
    assert differences(written(tmp_path / "policy", model_type="gemma3", text_config=full), base) == []
    other = written(tmp_path / "other", model_type="gemma3", text_config=full | {"hidden_size": 32})
    assert differences(other, base) == ["hidden_size 32, not 64"]


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "", '{"base_model_name_or_path": null'])
def test_invalid_adapter_config_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(UsageError, match="not an adapter's config"):
        weights_of(tmp_path)


def test_config_that_is_nested_too_deep_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(UsageError, match="cannot read the config"):
        load_config(tmp_path)
