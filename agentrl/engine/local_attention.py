"""One forward pass over many sequences: which ids, at which positions, and what each may look at.

A step packs ids of several sequences behind each other; every part of a decoder but attention treats ids one by one
and needs no more. First come the decoding rows, one id each, then pieces of prompts:

    ids        d0 d1 d2 | p p p p | p p
    sequence   0  1  2  | row 3   | row 4

`Step.attend` is the one place where sequences are told apart. It writes the new keys and values into the version's
rows and attends: all decoding rows in one batched product over the padded rows, each piece over its own row.

On the CPU ids are padded to one of few lengths: oneDNN compiles each product for the number of its rows and keeps
what it compiled, a third of a megabyte apiece, which grew to several hundred megabytes in a server's first hour.

Shapes: T ids of the step, F with the padding, B decoding rows, A attention heads, H key/value heads,
G = A / H, D head dimension, S longest decoding sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from agentrl.engine.kv import Rows, few_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Ids [start, start + len(token_ids)) of the sequence in `row`."""

    row: int
    start: int
    token_ids: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Where a piece stands in the step, and what its ids see."""

    row: int
    first: int
    last: int
    """The piece is ids [first, last) of the step."""
    visible: int
    """Positions of the row that its last id sees."""
    mask: Tensor | None
    """[last - first, visible] added to the scores; None = plain causal from position 0."""


class Step:
    """The ids of one forward pass and the rows they belong to."""

    def __init__(
        self,
        rows: Rows,
        decode_ids: Sequence[int],
        decode_positions: Sequence[int],
        pieces: Sequence[Piece] = (),
        wanted: Sequence[int] | None = None,
    ) -> None:
        """
        Args:
            rows: the version's keys and values, with room for every position named here.
            decode_ids: [B] the newest id of rows 0..B-1.
            decode_positions: [B] its position.
            pieces: prompt ids, each piece of a row of its own, no row below B.
            wanted: indices of ids whose logits are needed; None = all.
        """
        self.rows = rows
        self.num_decoding = len(decode_ids)
        shape, length = rows.shape, rows.length
        device = shape.device
        self.fused = device.type != "cpu"
        """Decoding rows go through the fused kernel. On CPUs two products and a softmax take a third of its time."""

        ids, positions = list(decode_ids), list(decode_positions)
        bases = [row * shape.num_heads * length + position for row, position in enumerate(positions)]
        self.spans: list[Span] = []
        for piece in pieces:
            first, end = len(ids), piece.start + len(piece.token_ids)
            ids.extend(piece.token_ids)
            positions.extend(range(piece.start, end))
            base = piece.row * shape.num_heads * length
            bases.extend(range(base + piece.start, base + end))
            mask = causal_mask(piece.start, end, shape.dtype, device) if piece.start else None
            self.spans.append(Span(row=piece.row, first=first, last=len(ids), visible=end, mask=mask))

        self.num_ids = len(ids)
        few = few_sizes if device.type == "cpu" else int
        self.num_padded = few(len(ids))
        self.ids = torch.tensor(ids + [0] * (self.num_padded - len(ids)), device=device)
        """[F]"""
        self.positions = torch.tensor(positions + [0] * (self.num_padded - len(ids)), device=device)
        """[F]"""
        self.num_wanted = len(ids) if wanted is None else len(wanted)
        """Rows of logits that count; those behind them belong to the padding."""
        self.wanted: Tensor | None = None
        """[F'] ids whose logits are computed; None = all F."""
        if wanted is not None:
            padding = [0] * (few(len(wanted)) - len(wanted))
            self.wanted = torch.tensor([*wanted, *padding], dtype=torch.long, device=device)
        heads = torch.arange(0, shape.num_heads * length, length, device=device)
        self.slots = (torch.tensor(bases, device=device).unsqueeze(1) + heads).flatten()
        """[T * H] where each id's keys and values go in the flat storage of a layer."""

        self.longest = 1 + max(decode_positions, default=-1)
        self.mask: Tensor | None = None
        """[B * H, 1, S] added to the scores of the decoding rows."""
        if self.num_decoding:
            reach = torch.arange(self.longest, device=device)
            hidden = reach > self.positions[: self.num_decoding].unsqueeze(1)
            mask = torch.zeros(hidden.shape, dtype=shape.dtype, device=device).masked_fill_(
                hidden, -torch.inf
            )
            self.mask = mask.repeat_interleave(shape.num_heads, 0).unsqueeze(1)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of one layer over everything each id may see, itself included.

        Args:
            layer: index of the layer.
            query: [F, A, D] with positions applied.
            key: [F, H, D] with positions applied.
            value: [F, H, D].
            scale: factor of the scores.

        Returns:
            [F, A * D] in the query's type, zeros for the padding.
        """
        rows, dtype = self.rows, self.rows.shape.dtype
        dim = rows.shape.head_dim
        key, value = key[: self.num_ids], value[: self.num_ids]
        rows.flat_keys[layer].index_copy_(0, self.slots, key.reshape(-1, dim).to(dtype))
        rows.flat_values[layer].index_copy_(0, self.slots, value.reshape(-1, dim).to(dtype))

        parts = []
        if self.num_decoding:
            parts.append(self._decode(layer, query[: self.num_decoding].to(dtype), scale))
        parts += [
            self._prefill(layer, span, query[span.first : span.last].to(dtype), scale) for span in self.spans
        ]
        if self.num_padded > self.num_ids:
            parts.append(parts[0].new_zeros(self.num_padded - self.num_ids, parts[0].shape[1]))
        joined = parts[0] if len(parts) == 1 else torch.cat(parts)
        return joined.to(query.dtype)

    def _decode(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """[B, A * D]. The G heads that share keys stand where SDPA has query positions, so nothing is repeated."""
        assert self.mask is not None
        batch, heads, dim = query.shape
        shape = self.rows.shape
        packed = batch * shape.num_heads
        grouped = query.reshape(packed, heads // shape.num_heads, dim)
        key = self.rows.keys[layer][:packed, : self.longest]
        value = self.rows.values[layer][:packed, : self.longest]
        if self.fused:
            mask = self.mask.unsqueeze(0)
            out = F.scaled_dot_product_attention(grouped[None], key[None], value[None], mask, scale=scale)
        else:
            scores = torch.baddbmm(self.mask, grouped, key.transpose(1, 2), alpha=scale)
            out = torch.bmm(torch.softmax(scores, dim=-1), value)
        return out.reshape(batch, heads * dim)

    def _prefill(self, layer: int, span: Span, query: Tensor, scale: float) -> Tensor:
        """[P, A * D] for the P ids of one piece."""
        count, heads, dim = query.shape
        shape = self.rows.shape
        mine = slice(span.row * shape.num_heads, (span.row + 1) * shape.num_heads)
        key = self.rows.keys[layer][mine, : span.visible]
        value = self.rows.values[layer][mine, : span.visible]
        out = F.scaled_dot_product_attention(
            query.transpose(0, 1).unsqueeze(0),
            key.unsqueeze(0),
            value.unsqueeze(0),
            span.mask,
            is_causal=span.mask is None,
            scale=scale,
            enable_gqa=heads != shape.num_heads,
        )
        return out.squeeze(0).transpose(0, 1).reshape(count, heads * dim)


def causal_mask(start: int, end: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[end - start, end]: position start + i sees positions 0..start + i."""
    mask = torch.full((end - start, end), -torch.inf, dtype=dtype, device=device)
    return mask.triu_(start + 1)
