"""Ways to compute a divergence at the sampled positions.

Dense estimators read both whole distributions and run inside a chunk of positions. Sampled estimators read the two
log-probs of the sampled id; their gradients are right in expectation over what the policy (or, with a ratio, the
sampler) would sample, so a forced id must not take them (law 7).

    ℓ = log π(y) − log q(y)      ρ = π(y)/μ(y)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Terms = Callable[[Tensor, Tensor], Tensor]


def full(
    policy_logprobs: Tensor, teacher_logprobs: Tensor, terms: Terms, *, pointwise_clip: float | None = None
) -> Tensor:
    """Σ_v min(d_v, τ) over the whole vocabulary, d_v the divergence's terms; τ None is no clip.

    The clip is OPSD's (arXiv 2601.18734): an outcome whose term exceeds τ gets no gradient, so that a few ids of
    style do not make the update.

    Args:
        policy_logprobs, teacher_logprobs: [n, V].
        terms: the divergence, [n, V] of both -> [n, V].
        pointwise_clip: τ.

    Returns:
        [n].
    """
    values = terms(policy_logprobs, teacher_logprobs)
    if pointwise_clip is not None:
        values = values.clamp(max=pointwise_clip)
    return values.sum(dim=-1)


def topk(
    policy_logprobs: Tensor,
    teacher_logprobs: Tensor,
    terms: Terms,
    *,
    k: int,
    support: Literal["student", "teacher"],
    tail: Literal["bucket", "renorm", "drop"],
) -> Tensor:
    """The divergence over the k likeliest ids of one side.

    bucket: all other ids are one more outcome on both sides (SDPO, arXiv 2601.20802): a lower bound that grows with k
    and is exact from k = V−1 on. renorm: both sides renormalised over the k ids, which is another objective.
    drop: the other ids' terms are left out.

    Args:
        policy_logprobs, teacher_logprobs: [n, V].
        terms: the divergence, [n, B] of both -> [n, B].
        k: number of ids; k ≥ V−1 is the full divergence.
        support: whose likeliest ids.
        tail: what is done with the rest.

    Returns:
        [n].
    """
    vocab = policy_logprobs.shape[-1]
    if k >= vocab - 1:
        return full(policy_logprobs, teacher_logprobs, terms)
    chosen = (policy_logprobs if support == "student" else teacher_logprobs).detach().topk(k, dim=-1).indices
    bins = [log_p.gather(-1, chosen) for log_p in (policy_logprobs, teacher_logprobs)]
    if tail == "renorm":
        bins = [log_p - log_p.logsumexp(dim=-1, keepdim=True) for log_p in bins]
    if tail == "bucket":
        # The rest is summed rather than taken as 1 − Σ, which loses all digits where Σ is near 1.
        rest = [
            log_p.scatter(-1, chosen, -torch.inf).logsumexp(dim=-1, keepdim=True)
            for log_p in (policy_logprobs, teacher_logprobs)
        ]
        bins = [torch.cat(pair, dim=-1) for pair in zip(bins, rest, strict=True)]
    return terms(bins[0], bins[1]).sum(dim=-1)


def k2(policy_logprobs: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """½ℓ²: on the policy's own samples its gradient is that of KL(π‖q). http://joschu.net/blog/kl-approx.html

    Args:
        policy_logprobs, teacher_logprobs: [N] of the sampled ids.

    Returns:
        [N].
    """
    return 0.5 * (policy_logprobs - teacher_logprobs.detach()).square()


def k3(policy_logprobs: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """e^{−ℓ} − 1 + ℓ: its value estimates KL(π‖q), its gradient on the policy's samples is that of KL(q‖π).

    Args:
        policy_logprobs, teacher_logprobs: [N] of the sampled ids.

    Returns:
        [N].
    """
    log_u = teacher_logprobs.detach() - policy_logprobs
    return torch.expm1(log_u) - log_u


def iw_k3(policy_logprobs: Tensor, teacher_logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """ρ·k3 with a differentiable, unclipped ρ: ∇ = ρ·ℓ·∇ log π, so E_μ∇ = ∇KL(π‖q) for any sampler μ.

    Skill-SD, arXiv 2604.10674. With ρ detached it would be the gradient of KL(q‖π).

    Args:
        policy_logprobs, teacher_logprobs: [N] of the sampled ids.
        old_logprobs: [N] of the policy that sampled.

    Returns:
        [N].
    """
    return (policy_logprobs - old_logprobs.detach()).exp() * k3(policy_logprobs, teacher_logprobs)


DENSE: dict[str, Callable[..., Tensor]] = {"full": full, "topk": topk}
SAMPLED = frozenset({"pg", "k2", "iw_k3"})
"""pg is a policy gradient with the divergence's advantage: agentrl.losses.policy_gradient."""
