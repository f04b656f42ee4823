"""The mask of a tree, as each kind of attention wants it, and the attention of GPUs that skips what the mask hides.

Hugging Face models hand a four-dimensional mask to their attention as it is. `sdpa` reads truth values, `eager` adds
numbers to the scores; both visit all S · (P + S) pairs. FlexAttention gets the rule instead and computes only the
blocks of pairs that a tree has. It is registered under a name of its own, which leaves sequences without a tree's mask
to `sdpa`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from agentrl.learner.tree import visible

FLEX_ATTENTION = "agentrl_tree"
"""Name of the attention that reads a tree's `BlockMask`, among those of transformers."""


def tree_mask(reads: Tensor, ends: Tensor, num_trunk: int, attention: str) -> Tensor | BlockMask:
    """[1, 1, S, P + S] the mask of S ids that branch from a trunk of P.

    Args:
        reads, ends: [S] of `Branches`.
        attention: the model's attention implementation.
    """
    if attention == FLEX_ATTENTION:
        return _block_mask(reads, ends, num_trunk)
    mask = visible(reads, ends, num_trunk)[None, None]
    if attention == "eager":
        lowest = torch.finfo(torch.float32).min  # not -inf: a hidden pair must not turn a gradient into NaN
        return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, lowest)
    return mask


def _block_mask(reads: Tensor, ends: Tensor, num_trunk: int) -> BlockMask:
    total = num_trunk + len(ends)
    until = torch.cat([ends.new_zeros(num_trunk), ends + num_trunk])

    def seen(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        here = query + num_trunk
        of_branches = (key >= num_trunk) & (key <= here) & (here < until[key])
        return (key < reads[query]) | of_branches

    return create_block_mask(
        seen, B=1, H=None, Q_LEN=len(ends), KV_LEN=total, device=ends.device, _compile=ends.is_cuda
    )


@functools.cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention)


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | BlockMask | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """[B, S, heads, D] what transformers' attention functions return."""
    if not isinstance(attention_mask, BlockMask):
        plain = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
        return cast(tuple[Tensor, None], plain)
    kind = query.device.type
    if torch.is_autocast_enabled(kind):  # FlexAttention is no operation that autocast knows
        number = torch.get_autocast_dtype(kind)
        query, key, value = query.to(number), key.to(number), value.to(number)
    attend: Any = _compiled() if query.is_cuda else flex_attention
    output = attend(
        query, key, value, block_mask=attention_mask, scale=scaling, enable_gqa=key.shape[1] != query.shape[1]
    )
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(FLEX_ATTENTION, _attend)
AttentionMaskInterface.register(FLEX_ATTENTION, sdpa_mask)
