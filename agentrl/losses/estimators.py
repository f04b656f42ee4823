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

from agentrl.losses.divergence import rkl

Terms = Callable[[Tensor, Tensor], Tensor]


def full(
    policy_logprobs: Tensor, teacher_logprobs: Tensor, terms: Terms, *, pointwise_clip: float | None = None
) -> Tensor:
    """Σ_v min(d_v, τ) over the whole vocabulary, d_v the divergence's terms; τ None is no clip.

    The clip is OPSD's (arXiv 2601.18734): an outcome whose term exceeds τ gets no gradient of its own, so that a few
    ids of style do not make the update. With it the sum is no divergence: it may be negative, and π = q is but a local
    minimum. Of fkl with the cut outcomes C, the logit of one of them has the gradient π_v·(1 − Σ_C q) ≥ 0: what the
    teacher wants much more than the policy is pushed away by what is left, and all but nothing is left where q is sure.

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
        k: number of ids; k ≥ V is the full divergence.
        support: whose likeliest ids.
        tail: what is done with the rest.

    Returns:
        [n].
    """
    vocab = policy_logprobs.shape[-1]
    # With a bucket the one id that is left out is an outcome of its own; without, its term is missing.
    if k >= vocab - (tail == "bucket"):
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


def pg_advantages(
    log_u: Tensor,
    weigh: Callable[[Tensor], Tensor],
    trained: Tensor,
    sequence: Tensor,
    num_sequences: int,
    *,
    kl: Tensor | None = None,
    gamma: float = 0.0,
    single_step: bool = False,
    length_norm: bool = False,
    ratio_clip: float | None = None,
    reward_floor: float | None = None,
) -> Tensor:
    """A_t = w_t + KL_t + Σ_{s≥1} γ^s·w_{t+s}, so that −E[A·∇ log π] is the gradient of the divergence.

    The later terms are a divergence of sequences' credit for the prefixes that its tokens lead to: with γ = 1 and rkl
    it is the gradient of the whole sequences' KL, with γ = 0 that of each position's alone (MiniLLM, arXiv
    2306.08543). KL_t = KL(π‖q) at t is a baseline (vOPD, arXiv 2605.07865): E_π[w_t] = −KL_t for rkl, so E_π[A_t] = 0,
    and whatever does not depend on y_t changes no expected gradient. Later positions keep their own w without it:
    their states depend on y_t, and centred they would give no credit at all.

    Args:
        log_u: [N] log q − log π of the sampled ids, in the order of sampling within each sequence.
        weigh: [N] log u -> [N] w.
        trained: [N] bool; other positions count as if they were not there.
        sequence: [N] int64 in 0..num_sequences-1.
        kl: [N] the baseline, of t alone; None without one.
        gamma: γ in [0, 1].
        single_step: leaves w_t out, because the caller adds the divergence at t itself.
        length_norm: divides each sum by the number of its terms.
        ratio_clip: log u is first brought to ±ratio_clip (OPD+, arXiv 2606.01039).
        reward_floor: smallest w.

    Returns:
        [N] detached, 0 outside `trained`.
    """
    zeros = torch.zeros_like(log_u)
    log_u = torch.where(trained, log_u.detach(), zeros)
    if ratio_clip is not None:
        log_u = log_u.clamp(-ratio_clip, ratio_clip)
    rewards = weigh(log_u)
    if reward_floor is not None:
        rewards = rewards.clamp(min=reward_floor)
    rewards = torch.where(trained, rewards, zeros)
    advantages = rewards
    if gamma > 0.0 or single_step:
        advantages = _to_go(rewards, trained, sequence, num_sequences, gamma, single_step, length_norm)
    if kl is not None:
        advantages = advantages + torch.where(trained, kl.detach(), zeros)
    return advantages


def _to_go(
    rewards: Tensor,
    trained: Tensor,
    sequence: Tensor,
    num_sequences: int,
    gamma: float,
    single_step: bool,
    length_norm: bool,
) -> Tensor:
    """[N] Σ_{s≥0} γ^s·r_{t+s} over the trained positions of t's own sequence; from s = 1 on with `single_step`."""
    result = torch.zeros_like(rewards)
    for index in range(num_sequences):
        rows = torch.nonzero(trained & (sequence == index)).squeeze(-1)
        total = rewards[rows]
        # Each pass doubles the number of terms that a position has; nothing is subtracted, so no digits are lost.
        reach = 1
        while reach < rows.numel():
            total = total + gamma**reach * torch.cat([total[reach:], total.new_zeros(reach)])
            reach *= 2
        terms = torch.arange(rows.numel(), 0, -1, device=rows.device)
        if single_step:
            total = total - rewards[rows]
            terms = terms - 1
        result[rows] = total / terms.clamp(min=1) if length_norm else total
    return result


def kl_topk(policy_logprobs: Tensor, teacher_logprobs: Tensor, *, k: int) -> Tensor:
    """KL(π̃‖q̃) of both sides renormalised over the policy's k likeliest ids: vOPD's cheap baseline.

    Args:
        policy_logprobs, teacher_logprobs: [n, V].
        k: number of ids; V and above is the whole KL.

    Returns:
        [n].
    """
    chosen = policy_logprobs.detach().topk(min(k, policy_logprobs.shape[-1]), dim=-1).indices
    bins = [log_p.gather(-1, chosen).log_softmax(dim=-1) for log_p in (policy_logprobs, teacher_logprobs)]
    return rkl(bins[0], bins[1]).sum(dim=-1)


DENSE: dict[str, Callable[..., Tensor]] = {"full": full, "topk": topk}
SAMPLED = frozenset({"pg", "k2", "iw_k3", "k3"})
"""pg is a policy gradient with the divergence's advantage: agentrl.losses.policy_gradient."""
