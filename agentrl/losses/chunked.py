"""From hidden states to numbers of single positions, a chunk of positions at a time.

A row of logits over a large vocabulary is far bigger than the hidden state that it comes from (Qwen3: 151,936 against
4,096 numbers). Here the logits of one chunk exist at a time: the forward pass keeps only what `function` returns for
each position, the backward pass computes a chunk again. Memory is flat in the number of positions.

Whatever depends on a whole sequence (a ratio, a token weight, a denominator) comes after, on [N] numbers: that is why
the gradient of a chunk is not computed in the forward pass, when what it will be multiplied with is not known yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

MAX_ENTRIES = 9 * 2**20
"""Rows times vocabulary of one chunk when no size is given: 36 MiB for each fp32 array of that shape.

The Jensen-Shannon divergence with its backward pass holds about 16 such arrays at once, 0.6 GiB. On a CPU glibc may
keep some freed ones besides (0.3 GiB seen); at half this size its heap had so many holes that 2.9 GiB were resident.
"""

Outputs = dict[str, Tensor]


def chunk_rows(vocab: int) -> int:
    """Rows of a chunk so that rows·vocab stays within MAX_ENTRIES; at least 1."""
    return max(1, MAX_ENTRIES // vocab)


def per_position(
    function: Callable[..., Outputs], streams: Sequence[Tensor | None], *, chunk_size: int
) -> Outputs:
    """Applies `function` to chunks of rows and joins what it returns.

    Args:
        function: [n, ...] rows of every stream -> named [n] values. It must be pure: it runs again in backward. What
            every chunk needs whole (the head) it binds by `functools.partial`: then the gradients of the chunks in it
            are added up in one array.
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
    # Without rows there is one empty chunk, and the graph is built all the same.
    chunks = max(1, -(-rows // chunk_size))
    # split, not slices: the gradient of a slice is a whole [N, ...] array of zeros, N²/chunk_size rows in all.
    columns = [[None] * chunks if stream is None else torch.split(stream, chunk_size) for stream in streams]
    call, bound = _bound(function)
    parts: list[Outputs] = []
    for part in zip(*columns, strict=True):
        if torch.is_grad_enabled():
            arguments = [item() for item in bound]
            parts.append(checkpoint(call, *arguments, *part, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(function(*part))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _bound(function: Callable[..., Outputs]) -> tuple[Callable[..., Outputs], list[Callable[[], Any]]]:
    """`function` without its bound arguments, and what gives each of them for one more chunk."""
    if not isinstance(function, partial):
        return function, []
    call = partial(function.func, **function.keywords)
    return call, [_Shared.of(argument) for argument in function.args]


class _Shared:
    """A tensor that every chunk uses whole. Left to autograd, up to three arrays of its size exist while the
    gradients of two chunks are added; here there are the sum and the gradient of one chunk."""

    __slots__ = ("_sum", "_whole")

    def __init__(self, tensor: Tensor) -> None:
        self._sum: list[Tensor] = []
        self._whole: Tensor = _Collect.apply(tensor, self._sum)  # type: ignore[no-untyped-call]

    @staticmethod
    def of(argument: Any) -> Callable[[], Any]:
        if torch.is_grad_enabled() and isinstance(argument, Tensor) and argument.requires_grad:
            return _Shared(argument)
        return lambda: argument

    def __call__(self) -> Tensor:
        result: Tensor = _Add.apply(self._whole, self._sum)  # type: ignore[no-untyped-call]
        return result


class _Collect(torch.autograd.Function):
    """The identity; its gradient is what the chunks have added up when the last of them is done."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, total: list[Tensor]) -> Tensor:
        ctx.total = total
        ctx.set_materialize_grads(False)
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *_: None) -> tuple[Tensor | None, None]:
        return (ctx.total.pop() if ctx.total else None), None


class _Add(torch.autograd.Function):
    """The identity; its gradient goes into the sum instead of on."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, total: list[Tensor]) -> Tensor:
        ctx.total = total
        ctx.set_materialize_grads(False)
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[None, None]:
        if grad is not None:
            if not ctx.total:
                ctx.total.append(torch.zeros(grad.shape, dtype=grad.dtype, device=grad.device))
            ctx.total[0].add_(grad)
        return None, None
