"""Other torch work in the learner's process, which must leave no trace in what is learned."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def aside() -> Iterator[None]:
    """One torch thread inside; behind it the generators of random numbers and the number of threads are as before."""
    num_threads, drawn, drawn_by_numpy = torch.get_num_threads(), random.getstate(), np.random.get_state()
    torch.set_num_threads(1)
    try:
        # Its devices are the CPU alone: what is done aside stays there.
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(num_threads)
        random.setstate(drawn)
        np.random.set_state(drawn_by_numpy)
