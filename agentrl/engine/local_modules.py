"""Any decoder of transformers whose cache is keys and values by position, run through its own modules.

The model runs on a packed step ([1, T] ids with explicit positions) under an attention function of ours, registered
with transformers as "agentrl": it hands queries, keys and values to `Step.attend`, which knows the sequences. Whether
a model can be held this way is not guessed from its name alone: at load, a prompt in two pieces plus a decode step is
compared with the model's own forward pass, and a model that differs is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agentrl.engine.kv import KVShape, Rows
from agentrl.engine.local_attention import Piece, Step
from agentrl.errors import ModelError

ATTENTION = "agentrl"
PROBE_TOLERANCE = 1e-3
"""Largest difference of fp32 logits, relative to their largest size, that counts as the same model."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    step: Step | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query [1, A, T, D], key and value [1, H, T, D] -> [1, T, A, D]."""
    assert step is not None
    assert isinstance(module.layer_idx, int)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    heads = (query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1))
    seen = step.attend(module.layer_idx, *heads, scale)
    return seen.view(1, query.shape[2], query.shape[1], -1), None


def build(folder: Path, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """The model of a folder under our attention function, its output matrix in fp32.

    Raises:
        ModelError: transformers cannot build it.
    """
    from transformers import AutoModelForCausalLM
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.utils.logging import disable_progress_bar

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
    disable_progress_bar()
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation=ATTENTION, local_files_only=True
        )
    except (ValueError, OSError, KeyError, ImportError) as error:
        raise ModelError(f"transformers cannot build the model in {folder}: {error}") from error
    model: nn.Module = loaded.to(device).eval()
    head = loaded.get_output_embeddings()
    if dtype is not torch.float32 and isinstance(head, nn.Linear):
        # Logits in fp32 from a matrix of its own: the embedding that it may be tied to keeps its type.
        head.weight = nn.Parameter(head.weight.float(), requires_grad=False)
        head.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    return model


def with_weights(model: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> nn.Module:
    """The same modules over other weights. Buffers are shared; nothing of the old weights is copied.

    Raises:
        ModelError: a weight is missing or has another shape.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    head = names[id(model.get_output_embeddings().weight)]  # type: ignore[operator]
    embedding = names[id(model.get_input_embeddings().weight)]  # type: ignore[operator]
    replaced: dict[int, nn.Parameter] = {}
    for name, old in model.named_parameters():
        # A tied output matrix is not in the file, and here it may be one of its own, in another type.
        tensor = tensors.get(embedding if name == head and head not in tensors else name)
        if tensor is None or tensor.shape != old.shape:
            raise ModelError(f"{folder} has no {name} of shape {list(old.shape)}")
        new = tensor.to(device=old.device, dtype=old.dtype, copy=True)
        replaced[id(old)] = nn.Parameter(new, requires_grad=False)
    # deepcopy takes what its memo already holds: each parameter is exchanged, each buffer is kept.
    memo: dict[int, Any] = {**replaced, **{id(buffer): buffer for buffer in model.buffers()}}
    return copy.deepcopy(model, memo)


class ModuleDecoder:
    """One version as transformers modules."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def logits(self, step: Step) -> Tensor:
        """[W, V] fp32 for the wanted ids of the step; writes the step's keys and values."""
        out = self.model(
            input_ids=step.ids.unsqueeze(0),
            position_ids=step.positions.unsqueeze(0),
            use_cache=False,
            logits_to_keep=0 if step.wanted is None else step.wanted,
            step=step,
        )
        logits: Tensor = out.logits[0, : step.num_wanted].float()
        return logits


def refuse_other_caches(config: Mapping[str, Any], max_len: int) -> None:
    """Raises ModelError, by name, for models whose cache is not keys and values of every position."""
    name = config.get("model_type", "this model")
    window = config.get("sliding_window")
    if window and config.get("use_sliding_window", True) and int(window) < max_len:
        raise ModelError(
            f"{name} attends through a sliding window of {window} ids, which the local engine holds only up to "
            f"that length: set engine.max_len={window} or less (now {max_len}), or use kind='vllm'"
        )
    kinds = set(config.get("layer_types") or ()) - {"full_attention", "sliding_attention"}
    recurrent = [
        key for key in ("ssm_cfg", "state_size", "mamba_d_state", "attention_window_size") if key in config
    ]
    if kinds or recurrent or "num_attention_heads" not in config:
        found = ", ".join(sorted(kinds) + recurrent) or "no attention heads"
        raise ModelError(
            f"{name} ({found}) keeps more than keys and values by position; the local engine cannot hold it"
        )


def check(decoder: ModuleDecoder, shape: KVShape, vocab_size: int, name: str) -> None:
    """Compares the packed forward pass with the model's own on a short prompt.

    Raises:
        ModelError: they differ, so the model computes attention in a way that its modules do not hand to us.
    """
    model = decoder.model
    ids = [(7 * i + 3) % vocab_size for i in range(24)]
    rows = Rows(shape)
    rows.reserve(1, len(ids))
    try:
        decoder.logits(Step(rows, (), (), [Piece(row=0, start=0, token_ids=ids[:15])]))
        decoder.logits(Step(rows, (), (), [Piece(row=0, start=15, token_ids=ids[15:-1])]))
        mine = decoder.logits(Step(rows, ids[-1:], [len(ids) - 1]))
    except (TypeError, AssertionError, AttributeError, RuntimeError, IndexError) as error:
        raise ModelError(
            f"{name} does not hand keys and values by position to transformers' attention interface: {error}"
        ) from error
    model.set_attn_implementation("eager")  # type: ignore[operator]
    try:
        own = model(torch.tensor([ids], device=shape.device), use_cache=False).logits[0, -1:].float()
    finally:
        model.set_attn_implementation(ATTENTION)  # type: ignore[operator]
    scale = float(own.abs().max())
    gap = float((mine - own).abs().max())
    bound = PROBE_TOLERANCE if next(model.parameters()).dtype is torch.float32 else 0.05
    if not gap <= bound * max(scale, 1.0):
        raise ModelError(
            f"{name} gives other logits through keys and values by position (by {gap:.3g} of {scale:.3g}); "
            "the local engine cannot hold it"
        )
