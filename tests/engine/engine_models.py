"""Small random models, and what the engine is measured against: plain forward passes of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()

VOCAB = 256
SIZE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCAB,
    "max_position_embeddings": 512,
}


def random_model(family: str, seed: int = 0, **settings: Any) -> Any:
    """A model whose weights are large enough that its distributions are far from uniform."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SIZE, **settings})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6.0)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def save_model(folder: Path, family: str, seed: int = 0, **settings: Any) -> Path:
    random_model(family, seed, **settings).save_pretrained(folder)
    return folder


def save_version(folder: Path, seed: int) -> Path:
    """Other random weights of the same shape as the `qwen` fixture."""
    return save_model(folder, "qwen3", seed)


def save_tokenizer(folder: Path) -> None:
    """One id per byte, so that text and ids are easily told from each other."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))


@cache
def reference(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def rescored(folder: Path, prompt: Sequence[int], sampled: Sequence[int]) -> list[float]:
    """Raw log-probs of `sampled` by one full forward pass of transformers."""
    ids = torch.tensor([[*prompt, *sampled]])
    logprobs = torch.log_softmax(reference(folder)(ids).logits[0].float(), dim=-1)
    start = len(prompt)
    return [float(logprobs[start + i - 1, token_id]) for i, token_id in enumerate(sampled)]


@torch.no_grad()
def greedy(folder: Path, prompt: Sequence[int], count: int) -> list[int]:
    ids = torch.tensor([list(prompt)])
    out = reference(folder).generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, eos_token_id=None
    )
    return out[0, len(prompt) :].tolist()


def prompt(seed: int, length: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB, (length,), generator=generator).tolist()


LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())


IDS = {letter: i for i, letter in enumerate(LETTERS)}
"""Ids of printable ASCII characters in the byte tokenizer."""
