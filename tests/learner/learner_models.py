"""Tiny random models of the architecture that ships."""

from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

VOCAB = 64


def write_model(path: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: object) -> Path:
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
    } | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        Qwen3ForCausalLM(Qwen3Config(**settings)).to(dtype).save_pretrained(path)
    return path
