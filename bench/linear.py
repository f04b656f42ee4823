"""Trains `agentrl.text.linear.Linear`: logistic regression with a penalty on large weights, to its one optimum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from agentrl.text.linear import Group, Linear, hashed

MAX_STEPS = 200


def fit(
    rows: Sequence[Sequence[Group]],
    labels: Sequence[str],
    names: Sequence[str],
    *,
    num_buckets: int,
    penalty: float,
    weights_of: Sequence[float] | None = None,
    trained_on: str = "",
) -> Linear:
    """The classifier of least loss: cross entropy, summed over rows, and half of `penalty` times the squared weights.

    The loss is convex and nothing is drawn, so the same rows give the same weights.

    Args:
        rows: the features of each example.
        labels: what each one is.
        names: all labels, in the order of the classifier.
        weights_of: how often each example counts; by default once.
    """
    pairs = [hashed(row, num_buckets) for row in rows]
    at = np.concatenate([np.full(len(buckets), row) for row, (buckets, _) in enumerate(pairs)])
    columns, values = (np.concatenate(each) for each in zip(*pairs, strict=True))
    used, columns = np.unique(columns, return_inverse=True)
    data = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([at, columns])),
        torch.from_numpy(values.astype(np.float64)),
        (len(rows), len(used)),
        check_invariants=True,
    ).coalesce()
    counts = torch.tensor([1.0] * len(rows) if weights_of is None else weights_of, dtype=torch.float64)
    targets = torch.tensor([names.index(label) for label in labels])
    weights = torch.zeros(len(used), len(names), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(names), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, bias], max_iter=MAX_STEPS, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = torch.sparse.mm(data, weights) + bias
        total = (counts * torch.nn.functional.cross_entropy(logits, targets, reduction="none")).sum()
        total = total + 0.5 * penalty * weights.square().sum()
        total.backward()
        return total

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums of several threads differ in their last digits from run to run
    try:
        optimizer.step(loss)
    finally:
        torch.set_num_threads(threads)
    found = np.zeros((num_buckets, len(names)))
    found[used] = weights.detach().numpy()
    scale = np.abs(found).max(axis=0) / 127
    return Linear(
        labels=tuple(names),
        weights=np.round(found / scale).astype(np.int8),
        scale=scale.astype(np.float32),
        bias=bias.detach().numpy().astype(np.float32),
        trained_on=trained_on,
    )
