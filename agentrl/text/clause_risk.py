"""How likely a clause of a tool's output is an attacker's: a linear model over its features.

`python -m bench.injection --train` writes the weights, from texts of several authors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentrl.text.clause_features import Buckets, Told, features, windows

WEIGHTS: Final = "clause_weights.npz"
MOST_RISK: Final = -1.5
"""Log-odds above which a clause is left out. Of six authors, each held out of training, 28 of 2,779 attacks come
through below it, and 2,389 of 2,715 honest answers keep what is essential."""


class Model(NamedTuple):
    """What training found."""

    weights: NDArray[np.float32]
    """Of each bucket."""
    bias: np.float32
    known: Buckets
    """Hashes of the words that it was trained on."""
    digest: str = ""
    """Of the texts that it was trained on."""


def risks(clauses: Sequence[Told]) -> NDArray[np.float32]:
    """Log-odds that each clause is an attacker's, of shape (clauses,): those of its riskiest window.

    The weights of a window's features are summed and divided by the root of their number: a long one is no surer for
    its length.
    """
    if not clauses:
        return np.zeros(0, np.float32)
    weights, bias, known, _ = model()
    parts = [windows(clause) for clause in clauses]
    buckets, owners = features([window for part in parts for window in part], known)
    means = np.bincount(owners, weights[buckets]) / np.sqrt(np.bincount(owners))
    starts = np.cumsum([0, *map(len, parts[:-1])])
    return np.maximum.reduceat(means, starts).astype(np.float32) + bias


@cache
def model() -> Model:
    """What is shipped."""
    with (files("agentrl.text") / WEIGHTS).open("rb") as file, np.load(file) as stored:
        weights = stored["weights"] * np.float32(stored["scale"])
        return Model(weights, np.float32(stored["bias"]), stored["known"], str(stored["digest"]))
