"""Token weights that compare the distilled tokens of the whole batch; their mean over them is 1."""

from __future__ import annotations

from dataclasses import replace

import torch

from agentrl.losses.batch import RecipeLike
from agentrl.losses.scores import Score, Scores, highest
from agentrl.losses.whole import WHOLE_BATCH, WholeBatch


def neg_teacher_entropy(batch: WholeBatch, recipe: RecipeLike, *, beta: float) -> WholeBatch:
    """w_t = e^{−β·H(q_t)} / mean over the distilled tokens: a teacher that is unsure is not imitated.

    SRPO, arXiv 2604.02288.

    Args:
        batch: with teacher_entropy.
        recipe: not used.
        beta: β ≥ 0; 0 changes nothing.

    Returns:
        The batch with kd_scale multiplied by w.
    """
    del recipe
    if not bool(batch.kd.any()):
        return batch
    raw = (-beta * batch.out["teacher_entropy"]).exp()
    weights = raw / raw[batch.kd].mean()
    return replace(batch, kd_scale=batch.kd_scale * torch.where(batch.kd, weights, torch.ones_like(weights)))


def batch_top_frac(
    batch: WholeBatch, recipe: RecipeLike, *, frac: float, score: Score, reference: str | None = None
) -> WholeBatch:
    """w_t = n/k on the k = ⌈frac·n⌉ distilled tokens of the batch that score highest, else 0.

    TIP, arXiv 2604.14084, as published: ranks and scales run over the batch, so a whole sequence may be left out.

    Args:
        batch: with what `score` is made of.
        recipe: not used.
        frac: in (0, 1]; 1 changes nothing.
        score: what is compared (`Scores.by`).
        reference: read by the learner, which then scores another version 0.

    Returns:
        The batch with kd_scale multiplied by w.
    """
    del recipe, reference
    rows = torch.nonzero(batch.kd).squeeze(-1)
    if rows.numel() == 0:
        return batch
    weights = torch.ones_like(batch.kd_scale)
    weights[rows] = highest(Scores.of(batch.out).by(score, rows), frac).to(weights.dtype)
    return replace(batch, kd_scale=batch.kd_scale * weights)


WHOLE_BATCH["neg_teacher_entropy"] = neg_teacher_entropy
WHOLE_BATCH["batch_top_frac"] = batch_top_frac
