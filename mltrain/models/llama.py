"""The reference GPT in the layout of `transformers`' LlamaForCausalLM: the same arithmetic under other names.

Ours packs keys and values in one matrix (rows of the keys first) and gate and up in one (gate first); the rotation of positions is the
same. Documents do not matter there: one sequence is one document.
"""
from __future__ import annotations

from typing import Any

from mltrain.models.gpt import GPT
from mltrain.models.layers import Attention

Rows = tuple[str, int, int]             # name in our model, first row, number of rows


def tensors(model: GPT) -> dict[str, Rows]:
    """Name there -> what it is here."""
    found = {"model.embed_tokens.weight": _whole(model, "embedding.weight"), "model.norm.weight": _whole(model, "norm.weight")}
    if model.head is not None:
        found["lm_head.weight"] = _whole(model, "head.weight")
    for number in range(len(model.blocks)):
        ours, theirs = f"blocks.{number}", f"model.layers.{number}"
        for there, here in (("input_layernorm", "attention_norm"), ("self_attn.q_proj", "attention.query"),
                            ("self_attn.o_proj", "attention.out"), ("post_attention_layernorm", "feed_forward_norm"),
                            ("mlp.down_proj", "feed_forward.down")):
            found[f"{theirs}.{there}.weight"] = _whole(model, f"{ours}.{here}.weight")
        for (first, second), here in ((("self_attn.k_proj", "self_attn.v_proj"), "attention.key_value"),
                                      (("mlp.gate_proj", "mlp.up_proj"), "feed_forward.gate_up")):
            name, _, rows = _whole(model, f"{ours}.{here}.weight")
            found[f"{theirs}.{first}.weight"] = name, 0, rows // 2
            found[f"{theirs}.{second}.weight"] = name, rows // 2, rows // 2
    return found


def _whole(model: GPT, name: str) -> Rows:
    return name, 0, model.get_parameter(name).shape[0]


def config(model: GPT, separator: int | None, positions: int) -> dict[str, Any]:
    """config.json. separator: the token that begins each document, so it also ends the one before. positions: the longest sequence."""
    attention = model.get_submodule("blocks.0.attention")
    assert isinstance(attention, Attention)
    hidden = model.get_parameter("blocks.0.feed_forward.down.weight").shape[1]
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": model.vocabulary,
        "hidden_size": model.embedding.embedding_dim, "intermediate_size": hidden,
        "num_hidden_layers": len(model.blocks), "num_attention_heads": attention.heads, "num_key_value_heads": attention.kv_heads,
        "head_dim": model.size, "hidden_act": "silu", "rms_norm_eps": model.norm.eps,
        "rope_theta": model.base, "rope_parameters": {"rope_type": "default", "rope_theta": model.base},    # before and since version 5
        "max_position_embeddings": positions, "tie_word_embeddings": model.head is None, "attention_bias": False, "mlp_bias": False,
        "attention_dropout": 0.0, "initializer_range": 0.02, "bos_token_id": separator, "eos_token_id": separator, "torch_dtype": "float32",
    }
