"""Fixture F of the algebra, and small batches whose hidden states are their own logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from agentrl.losses.objective import LossBatch

torch.set_num_threads(1)

POLICY = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
TEACHER = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
SAMPLER = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)
REFERENCE = torch.tensor([0.6, 0.2, 0.2], dtype=torch.float64)


def leaf(probabilities: Tensor) -> Tensor:
    """Logits with gradient whose softmax is `probabilities`."""
    return probabilities.log().clone().requires_grad_()


def distribution(seed: int, vocab: int = 7) -> Tensor:
    """A random distribution with full support."""
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(1.5 * torch.randn(vocab, generator=generator, dtype=torch.float64), dim=-1)


def gradient(loss: Callable[[Tensor], Tensor], policy: Tensor) -> Tensor:
    """Gradient in the policy's logits of a loss of its log-probs."""
    logits = leaf(policy)
    (grad,) = torch.autograd.grad(loss(torch.log_softmax(logits, dim=-1)), logits)
    return grad


def expected(weights: Tensor, losses: Tensor) -> Tensor:
    """Σ_v weights_v·losses_v with the sampling weights held fixed: what sampling from them estimates."""
    return (weights.detach() * losses).sum()


def random_batch(seed: int, *, rows: int = 9, vocab: int = 6, **streams: Any) -> LossBatch:
    """`rows` positions of three sequences; both heads are the identity, so hidden states are logits. fp64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden = normal(rows, vocab)
    ids = torch.randint(vocab, (rows,), generator=generator)
    own = torch.log_softmax(hidden, dim=-1).gather(1, ids[:, None]).squeeze(1)
    given: dict[str, Any] = {
        "hidden": hidden.requires_grad_(),
        "head": torch.eye(vocab, dtype=torch.float64),
        "token_ids": ids,
        "sequence": torch.arange(rows) * 3 // rows,
        "teacher_hidden": normal(rows, vocab),
        "teacher_head": torch.eye(vocab, dtype=torch.float64),
        "behavior_logprobs": own + 0.1 * normal(rows),
        "advantages": normal(rows),
    }
    return LossBatch(**given | streams)
