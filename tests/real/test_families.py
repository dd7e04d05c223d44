"""Which kinds of models the embedded engine runs: those whose logits stay the same in pieces and side by side.

Every family is a random model of two layers.
"""

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from sandcli.engines.ragged import Ragged
from sandcli.errors import PrerequisiteError

pytestmark = pytest.mark.real

PLAIN: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = PLAIN | {"num_key_value_heads": 2, "head_dim": 16}
EXPERTS = GROUPED | {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
FULL = GROUPED | {"layer_types": ["full_attention"] * 2}
LATENT = PLAIN | {
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}
VISION = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
NESTED = {
    "text_config": FULL,
    "vision_config": VISION | {"image_size": 28, "patch_size": 14},
    "mm_tokens_per_image": 4,
}


def families(names: str, sizes: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(kind, sizes) for kind in names.split()]


THE_SAME = [
    *families("biogpt ctrl fuyu gpt2 gpt_bigcode gpt_neox opt persimmon phi", PLAIN),
    *families("apertus arcee bitnet cohere ernie4_5 gemma glm glm4 granite helium hunyuan_v1_dense", GROUPED),
    *families("hyperclovax jais2 llama ministral3 mistral nanochat olmo olmo2 phi3 qwen2 qwen3", GROUPED),
    *families("seed_oss smollm3 starcoder2", GROUPED),
    *families("aria_text doge dots1 ernie4_5_moe flex_olmo glm4_moe granitemoe granitemoeshared", EXPERTS),
    *families("hunyuan_v1_moe minimax_m2 mixtral olmoe phimoe qwen2_moe qwen3_moe", EXPERTS),
    *families("cohere2 gemma3_text olmo3", FULL),
    ("gemma3", NESTED),
]
OTHERS = [
    *families("bert bloom cpmant falcon gpt_oss gptj jetmoe mamba mpt openai-gpt rembert roformer rwkv", PLAIN),
    *families("stablelm xglm", PLAIN),
    ("diffllama", GROUPED),
    ("gemma2", FULL),  # a soft cap
    ("gpt_oss", FULL | {"num_local_experts": 4}),  # attention sinks
    ("mistral", GROUPED | {"sliding_window": 16}),
    ("deepseek_v2", EXPERTS | LATENT),
    ("minicpm3", LATENT),
]


def random_model(kind: str, sizes: dict[str, Any]) -> Any:
    """A model of this kind with weights that make its attention matter."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**sizes)).float().eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.08)
    return model


@pytest.mark.parametrize(("kind", "sizes"), THE_SAME)
def test_model_that_attends_to_all_earlier_tokens_is_run(kind: str, sizes: dict[str, Any]) -> None:
    model = random_model(kind, sizes)
    first, second = [5, 7, 11, 13, 17], [19, 23]
    with torch.inference_mode():
        wanted = [model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1] for ids in (first, second)]
        ragged = Ragged(model)  # refuses a model that differs on its own probe
        _, begun = ragged.forward([(ragged.empty(), first[:3]), (ragged.empty(), second[:1])])
        found, _ = ragged.forward([(begun[0], first[3:]), (begun[1], second[1:])])
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "sizes"), OTHERS)
def test_model_with_another_kind_of_attention_is_refused_when_it_is_loaded(kind: str, sizes: dict[str, Any]) -> None:
    model = random_model(kind, sizes)
    with pytest.raises(PrerequisiteError, match=f"the embedded engine cannot run {kind}: it ") as caught:
        Ragged(model)
    assert caught.value.fix == "use --engine vllm or server"
