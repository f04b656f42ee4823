"""The served model: what all its versions share, and how one version becomes a decoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from agentrl.config import EngineConfig
from agentrl.engine import local_modules
from agentrl.engine.kv import KVShape, Rows
from agentrl.engine.local_attention import Piece, Step
from agentrl.engine.local_decoder import LeanDecoder, LeanShape, lean_shape, rotations
from agentrl.engine.local_weights import check_names, read_config, read_weights
from agentrl.errors import ConfigError, ModelError

PROBE_S = 0.5
"""Time spent on each number type when the precision is left to a CPU."""

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Decoder(Protocol):
    """One version's weights and its forward pass."""

    def logits(self, step: Step) -> Tensor:
        """[W, V] fp32 for the wanted ids of the step; writes the step's keys and values."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What the versions of one model share."""

    folder: Path
    max_len: int
    vocab_size: int
    precision: str
    kv_shape: KVShape
    load: Callable[[Path], Decoder]
    """Reads one version's folder. Safe on any thread; raises ModelError."""


def open_model(folder: Path, config: EngineConfig, *, modules: bool = False) -> Model:
    """Reads a model folder and picks the forward pass and the number type.

    Args:
        folder: Hugging Face folder.
        config: engine settings.
        modules: use the model's own modules even where the lean forward pass would do.

    Raises:
        ModelError: the model cannot be served; the message names it and the remedy.
        ConfigError: the device is not there.
    """
    settings = read_config(folder)
    device = pick_device(config.device)
    limit = int(settings.get("max_position_embeddings") or config.max_len)
    max_len = min(config.max_len, limit)
    local_modules.refuse_other_caches(settings, max_len)
    lean = None if modules else lean_shape(settings)

    precision = pick_precision(settings, device) if config.precision == "auto" else config.precision
    dtype = TYPES[precision]
    shape = kv_shape(settings, dtype, device)
    return Model(
        folder=folder,
        max_len=max_len,
        vocab_size=int(settings["vocab_size"]),
        precision=precision,
        kv_shape=shape,
        load=lean_loader(folder, lean, max_len, dtype, device)
        if lean
        else module_loader(
            folder, str(settings.get("model_type")), int(settings["vocab_size"]), dtype, shape
        ),
    )


def pick_device(name: str) -> torch.device:
    """Raises ConfigError when the device is unknown or absent."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"engine.device={name!r} cannot be used here: {error}") from error
    return device


def lean_loader(
    base: Path, shape: LeanShape, max_len: int, dtype: torch.dtype, device: torch.device
) -> Callable[[Path], Decoder]:
    turns = rotations(shape, max_len, device)
    expected: dict[str, torch.Size] = {}

    def load(folder: Path) -> Decoder:
        tensors = read_weights(folder, base)
        check_names(tensors, expected, folder)
        try:
            decoder = LeanDecoder(shape, tensors, turns, dtype, device)
        except (KeyError, RuntimeError) as error:
            raise ModelError(f"the weights in {folder} do not fit their config.json: {error}") from error
        if not expected:
            used = {name for name in tensors if not (shape.tied and name == "lm_head.weight")}
            expected.update({name: tensors[name].shape for name in used if not name.endswith(".inv_freq")})
        return decoder

    return load


def module_loader(
    base: Path, name: str, vocab_size: int, dtype: torch.dtype, shape: KVShape
) -> Callable[[Path], Decoder]:
    model = local_modules.build(base, dtype, shape.device)
    with torch.inference_mode():
        local_modules.check(local_modules.ModuleDecoder(model), shape, vocab_size, name)

    def load(folder: Path) -> Decoder:
        if folder == base:
            return local_modules.ModuleDecoder(model)
        weights = read_weights(folder, base)
        return local_modules.ModuleDecoder(local_modules.with_weights(model, weights, folder))

    return load


def kv_shape(settings: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> KVShape:
    """Size of keys and values from a `config.json`.

    On the CPU they stay fp32 beside bf16 products: small batched products have no fast bf16 kernel there, and
    attention loses nothing to rounding.
    """
    heads = int(settings["num_attention_heads"])
    return KVShape(
        num_layers=int(settings["num_hidden_layers"]),
        num_heads=int(settings.get("num_key_value_heads") or heads),
        head_dim=int(settings.get("head_dim") or int(settings["hidden_size"]) // heads),
        dtype=torch.float32 if device.type == "cpu" else dtype,
        device=device,
    )


def pick_precision(settings: Mapping[str, Any], device: torch.device) -> str:
    """The faster of fp32 and bf16.

    On a GPU that has bf16 it is bf16. On a CPU a step of two layers of the model's width is timed in both: which one
    wins differs by processor, by a factor of several either way.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return min(TYPES, key=lambda precision: step_seconds(settings, TYPES[precision], device))


def step_seconds(settings: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> float:
    """Fastest time of a step as served: eight sequences decode while 64 ids of a prompt are read."""
    sizes = kv_shape(settings, dtype, device)
    hidden, heads = int(settings["hidden_size"]), int(settings["num_attention_heads"])
    wide = int(settings.get("intermediate_size") or 4 * hidden)
    shape = LeanShape(
        num_layers=2,
        num_heads=heads,
        num_kv_heads=sizes.num_heads,
        head_dim=sizes.head_dim,
        hidden_size=hidden,
        vocab_size=2048,
        norm_eps=1e-6,
        rope_theta=1e4,
        tied=True,
    )
    query, key = heads * sizes.head_dim, sizes.num_heads * sizes.head_dim
    tensors = {
        "model.embed_tokens.weight": torch.zeros(2048, hidden),
        "model.norm.weight": torch.ones(hidden),
    }
    for layer in range(2):
        at = f"model.layers.{layer}"
        tensors |= {
            f"{at}.{norm}_layernorm.weight": torch.ones(hidden) for norm in ("input", "post_attention")
        }
        for name, size in (("q", query), ("k", key), ("v", key)):
            tensors[f"{at}.self_attn.{name}_proj.weight"] = torch.zeros(size, hidden)
        tensors[f"{at}.self_attn.o_proj.weight"] = torch.zeros(hidden, query)
        tensors |= {f"{at}.mlp.{name}_proj.weight": torch.zeros(wide, hidden) for name in ("gate", "up")}
        tensors[f"{at}.mlp.down_proj.weight"] = torch.zeros(hidden, wide)
    decoder = LeanDecoder(shape, tensors, rotations(shape, 96, device), dtype, device)

    rows = Rows(replace(sizes, num_layers=2))
    rows.reserve(9, 96)
    piece = Piece(row=8, start=0, token_ids=range(64))
    best, deadline = float("inf"), time.monotonic() + PROBE_S
    with torch.inference_mode():
        while best == float("inf") or time.monotonic() < deadline:
            begin = time.perf_counter()
            decoder.logits(Step(rows, [1] * 8, [64] * 8, [piece]))
            best = min(best, time.perf_counter() - begin)
    return best
