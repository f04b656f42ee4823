"""From hidden states to numbers of single positions, a chunk of positions at a time.

A row of logits over a large vocabulary is far bigger than the hidden state that it comes from (Qwen3: 151,936 against
4,096 numbers). Here the logits of one chunk exist at a time: the forward pass keeps only what `function` returns for
each position, the backward pass computes a chunk again. Memory is flat in the number of positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

MAX_ENTRIES = 2**24
"""Rows times vocabulary of one chunk when no size is given: 64 MiB for each fp32 array of that shape."""

Outputs = dict[str, Tensor]


def chunk_rows(vocab: int) -> int:
    """Rows of a chunk so that rows·vocab stays within MAX_ENTRIES; at least 1."""
    return max(1, MAX_ENTRIES // vocab)


def per_position(
    function: Callable[..., Outputs], streams: Sequence[Tensor | None], *, chunk_size: int
) -> Outputs:
    """Applies `function` to chunks of rows and joins what it returns.

    Args:
        function: [n, ...] rows of every stream -> named [n] values. It must be pure: it runs again in backward.
        streams: [N, ...] each, or None, which is passed on as None.
        chunk_size: most rows at a time; the result does not depend on it.

    Returns:
        Named [N] values. With N = 0 they are empty and still have a gradient path.

    Raises:
        ValueError: streams of different lengths, or chunk_size below 1.
    """
    lengths = {stream.shape[0] for stream in streams if stream is not None}
    if len(lengths) != 1:
        raise ValueError(f"streams have lengths {sorted(lengths)}; all must be one")
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it must be at least 1")
    (rows,) = lengths
    parts: list[Outputs] = []
    # One empty chunk when there are no rows: the graph is then built all the same.
    for start in range(0, max(rows, 1), chunk_size):
        part = [None if stream is None else stream[start : start + chunk_size] for stream in streams]
        if torch.is_grad_enabled():
            parts.append(checkpoint(function, *part, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(function(*part))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
