"""A turn's streams beside its ids: which of them are trained, and what was recorded of the sampled ones."""

from __future__ import annotations

from collections.abc import Sequence

from agentrl.types import Turn

SAMPLED_PATH = "completion.token_ids"
"""Redacted spans of this path count sampled ids; of other paths, characters."""


def loss_mask(turn: Turn, trained: tuple[int, int] | None) -> tuple[bool, ...]:
    """[L] True on sampled ids that stand as they were sampled, of [start, end) among them where that is given."""
    start = len(turn.prompt_ids)
    first, end = trained or (0, len(turn.completion.token_ids))
    mask = [False] * start + [first <= i < end for i in range(len(turn.completion.token_ids))]
    for span in turn.redacted_spans:
        if span.path == SAMPLED_PATH:
            mask[start + span.start : start + span.end] = [False] * (span.end - span.start)
    located = any(span.path == SAMPLED_PATH for span in turn.redacted_spans)
    if not located and any(span.path.startswith("reply") for span in turn.redacted_spans):
        return (False,) * len(
            mask
        )  # something sampled was replaced and nobody says which ids: none is trusted
    mask[0] = False  # predicted by nothing
    return tuple(mask)


def behind(turn: Turn, filler: float, stream: Sequence[float]) -> tuple[float, ...]:
    """[L] a stream of the sampled ids, with `filler` on the prompt's.

    Raises:
        ValueError: the stream is not as long as the completion.
    """
    if len(stream) != len(turn.completion.token_ids):
        raise ValueError(
            f"a stream has {len(stream)} entries for {len(turn.completion.token_ids)} sampled ids"
        )
    return (filler,) * len(turn.prompt_ids) + tuple(stream)
