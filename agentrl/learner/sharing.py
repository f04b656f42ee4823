"""Whether a model gives, to ids computed once for many rows, the hidden states of each row alone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from agentrl.learner.pack import MicroBatch, Row, Sharing, as_tree, pack
from agentrl.learner.tree_attention import FLEX_ATTENTION

if TYPE_CHECKING:
    from agentrl.learner.model import PolicyModel


def sharing_of(policy: PolicyModel, ids: Sequence[int]) -> Sharing:
    """What of the rows' computation this model can share. Compared, not assumed; on a GPU, the attention that visits
    only the pairs of a tree is taken where it works.

    Args:
        ids: 24 ids to compare with.
    """
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=policy.config).layers):
        return "none"  # sliding windows and recurrent states depend on more than keys and values
    ids = tuple(ids)
    back = ids[::-1]
    star = [_all_of(ids[:16] + rest) for rest in (ids[16:], back[:8])]
    [behind] = pack(star, max_tokens=8192, share="prefix")
    if not _same_as_alone(policy, star, behind):
        return "none"
    forks = [_all_of(path) for path in (ids, ids[:20] + back[:4], ids[:20] + back[:2] + ids[:2], back)]
    if policy.device.type == "cuda":
        policy.causal_lm.set_attn_implementation(FLEX_ATTENTION)
        try:
            fits = _same_as_alone(policy, forks, as_tree(forks), backward=True)
        except (RuntimeError, ImportError) as error:
            warnings.warn(
                f"no compiled attention over trees, a written-out mask instead: {error}", stacklevel=2
            )
            fits = False
        if fits:
            policy.attention = FLEX_ATTENTION
            return "tree"
        policy.causal_lm.set_attn_implementation(policy.attention)
    return "tree" if _same_as_alone(policy, forks, as_tree(forks)) else "prefix"


def _all_of(ids: tuple[int, ...]) -> Row:
    return Row(token_ids=ids, positions=tuple(range(1, len(ids))))


def _same_as_alone(
    policy: PolicyModel, rows: Sequence[Row], micro: MicroBatch, *, backward: bool = False
) -> bool:
    """Whether the micro batch gives the hidden states that each row has in a pass of its own."""
    body = policy.causal_lm.get_decoder()
    micro = micro.to(policy.device)
    with torch.no_grad():
        alone = [
            body(input_ids=torch.tensor([row.token_ids[:-1]], device=policy.device), use_cache=False)
            for row in rows
        ]
    expected = torch.cat([output.last_hidden_state[0] for output in alone])[micro.slots]
    with torch.set_grad_enabled(backward):
        hidden = policy(micro)
    if backward:
        hidden.sum().backward()
        for parameter in policy.trained.values():
            parameter.grad = None
    return torch.allclose(hidden, expected, atol=1e-4, rtol=1e-3)
