"""A linear classifier of features that are known by name: multinomial logistic regression with hashed weights.

A name's weights are found by its hash (Weinberger et al. 2009, arXiv 0902.2206), so no vocabulary is kept: names that
share a bucket share weights. The weights are trained elsewhere (`bench.linear`) and ship as a small file.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Group = tuple[float, Sequence[str]]
"""The value of each feature of a group, and their names; a name that stands twice counts twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """The classifier."""

    labels: tuple[str, ...]
    weights: NDArray[np.int8]
    """Shape (buckets, labels); the number of buckets is a power of two."""
    scale: NDArray[np.float32]
    """What one step of `weights` is worth, shape (labels,)."""
    bias: NDArray[np.float32]
    """Shape (labels,)."""
    trained_on: str
    """The digest of the data that the weights were trained on."""

    def probabilities(self, features: Iterable[Group]) -> dict[str, float]:
        """How likely each label is; they sum to 1. Linear in the number of features."""
        buckets, values = hashed(features, len(self.weights))
        logits = values @ self.weights[buckets] * self.scale + self.bias
        exponentials = np.exp(logits - logits.max())
        return dict(zip(self.labels, (exponentials / exponentials.sum()).tolist(), strict=True))

    def to_bytes(self) -> bytes:
        """The file's content; the same weights give the same bytes."""
        file = io.BytesIO()
        np.savez_compressed(
            file,
            labels=np.array(self.labels),
            weights=self.weights,
            scale=self.scale,
            bias=self.bias,
            trained_on=np.array(self.trained_on),
        )
        return file.getvalue()

    @classmethod
    def load(cls, path: Path) -> Linear:
        """Reads what `to_bytes` gave. Raises OSError, KeyError or ValueError where the file is none."""
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                return cls(
                    labels=tuple(file["labels"].tolist()),
                    weights=file["weights"],
                    scale=file["scale"],
                    bias=file["bias"],
                    trained_on=str(file["trained_on"]),
                )
        except (BadZipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path} holds no weights: {error}") from error


def hashed(features: Iterable[Group], num_buckets: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The buckets of all features and their values, both of shape (features,)."""
    buckets: list[int] = []
    values: list[float] = []
    for value, names in features:
        buckets += (crc32(name.encode()) & (num_buckets - 1) for name in names)
        values += [value] * len(names)
    return np.array(buckets, np.int64), np.array(values, np.float32)
