"""The chunked pass against the naive one: the same gradients, and none of its memory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from agentrl.losses.chunked import per_position
from agentrl.losses.objective import Denominators, LossBatch, objective
from agentrl.recipes.recipe import Recipe

torch.set_num_threads(1)
ROWS, VOCAB, WIDTH = 48, 997, 24
KD = {"context": "hindsight_hint", "teacher": "self", "mix": "kd", "limits": {"max_logprob_gap": 99.0}}
ON_POLICY = {"limits": {"max_version_lag": 0, "max_logprob_gap": 99.0}}


def kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def jensen_shannon(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    log_m = (beta * log_q.exp() + (1 - beta) * log_p.exp()).log()
    return beta * kl(log_q, log_m) + (1 - beta) * kl(log_p, log_m)


def top_with_tail(log_p: Tensor, log_q: Tensor, k: int) -> Tensor:
    """KL(π‖q) over the policy's k likeliest ids and one bin for the others."""
    ids = log_p.topk(k).indices
    p, q = log_p.exp().gather(-1, ids), log_q.exp().gather(-1, ids)
    p, q = (torch.cat([x, 1 - x.sum(-1, keepdim=True)], dim=-1) for x in (p, q))
    return (p * (p / q).log()).sum(-1)


Naive = Callable[[Tensor, Tensor, Tensor], Tensor]


def sampled(loss: Callable[[Tensor, Tensor], Tensor]) -> Naive:
    """A loss of log π(y) and log q(y)."""
    return lambda p, q, ids: loss(*(x.gather(-1, ids[:, None]).squeeze(-1) for x in (p, q)))


LOSSES: dict[str, tuple[dict[str, Any], Naive]] = {
    "fkl": ({"divergence": "fkl"}, lambda p, q, ids: kl(q, p)),
    "rkl": ({"divergence": "rkl"}, lambda p, q, ids: kl(p, q)),
    "jsd .1": ({"divergence": {"name": "jsd", "beta": 0.1}}, lambda p, q, ids: jensen_shannon(p, q, 0.1)),
    "jsd .5": ({"divergence": {"name": "jsd", "beta": 0.5}}, lambda p, q, ids: jensen_shannon(p, q, 0.5)),
    "chi2": ({"divergence": "chi2"}, lambda p, q, ids: ((q.exp() - p.exp()) ** 2 / p.exp()).sum(-1)),
    "hellinger": (
        {"divergence": {"name": "alpha", "alpha": 0.5}},
        lambda p, q, ids: 2 * ((p / 2).exp() - (q / 2).exp()).square().sum(-1),
    ),
    "topk": (
        {"divergence": "rkl", "estimator": {"name": "topk", "k": 20, "support": "student", "tail": "bucket"}},
        lambda p, q, ids: top_with_tail(p, q, 20),
    ),
    "pg": (
        {"divergence": "rkl", "estimator": "pg", "offpolicy": "none"} | ON_POLICY,
        sampled(lambda p, q: (p - q).detach() * p),
    ),
    "k2": ({"divergence": "rkl", "estimator": "k2"} | ON_POLICY, sampled(lambda p, q: (p - q) ** 2 / 2)),
    "iw_k3": (
        {"divergence": "rkl", "estimator": {"name": "iw_k3", "denominator": "trainer"}},
        sampled(lambda p, q: (p - p.detach()).exp() * ((q - p).exp() - 1 - (q - p))),
    ),
}


@pytest.mark.parametrize("head_is_trained", [True, False])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_are_those_of_all_logits_at_once(name: str, head_is_trained: bool) -> None:
    """fp32, weights of every position of their own, within 1e-5 of the largest entry."""
    settings, naive = LOSSES[name]
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    hidden = normal(ROWS, WIDTH).requires_grad_()
    head = (0.5 * normal(VOCAB, WIDTH)).requires_grad_(head_is_trained)
    teacher = hidden.detach() + 0.3 * normal(ROWS, WIDTH)
    ids = torch.randint(VOCAB, (ROWS,), generator=generator)
    weights = torch.rand(ROWS, generator=generator) + 0.5
    leaves = [hidden, head] if head_is_trained else [hidden]

    log_p = torch.log_softmax(hidden @ head.T, dim=-1)
    log_q = torch.log_softmax(teacher @ head.detach().T, dim=-1)
    expected = torch.autograd.grad((weights * naive(log_p, log_q, ids)).sum() / ROWS, leaves)

    batch = LossBatch(
        hidden=hidden,
        head=head,
        token_ids=ids,
        sequence=torch.arange(ROWS) * 4 // ROWS,
        teacher_hidden=teacher,
        teacher_head=head,
        kd_weights=weights,
    )
    whole = Denominators(
        kd_tokens=ROWS, kd_sequences=4, rl_tokens=0, rl_sequences=0, tokens=ROWS, sequences=4, episodes=4
    )
    recipe = Recipe.model_validate({"name": "chunked"} | KD | settings)
    own = torch.autograd.grad(objective(recipe, batch, whole, chunk_size=5).loss, leaves)

    for grad, other in zip(own, expected, strict=True):
        assert other.abs().max().item() > 1e-4
        assert (grad - other).abs().max().item() <= 1e-5 * other.abs().max().item()


def squares(head: Tensor, hidden: Tensor) -> dict[str, Tensor]:
    return {"x": (hidden @ head.T).square().sum(-1)}


def test_a_bound_head_gets_the_sum_of_the_chunks_gradients_each_time() -> None:
    """x = ‖hW^T‖², so ∂(Σx)/∂W = 2·W·h^T·h. A second backward pass through the same graph gives the same again."""
    hidden = torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]], dtype=torch.float64, requires_grad=True)
    head = torch.tensor([[1.0, 0.0], [2.0, -1.0]], dtype=torch.float64, requires_grad=True)
    total = per_position(partial(squares, head), (hidden,), chunk_size=1)["x"].sum()

    for _ in range(2):
        (grad,) = torch.autograd.grad(total, head, retain_graph=True)
        # h^T·h = [[10, 2], [2, 5]]
        assert grad.tolist() == [[20.0, 4.0], [36.0, -2.0]]


def test_a_head_that_the_loss_does_not_reach_gets_no_gradient() -> None:
    hidden = torch.ones(3, 2, requires_grad=True)
    head, unused = torch.ones(2, 2, requires_grad=True), torch.ones(5, 2, requires_grad=True)

    def function(head: Tensor, other: Tensor, rows: Tensor) -> dict[str, Tensor]:
        return {"x": squares(head, rows)["x"], "y": (rows.detach() @ other.T).sum(-1)}

    out = per_position(partial(function, head, unused), (hidden,), chunk_size=2)
    grads = torch.autograd.grad(out["x"].sum(), (hidden, head, unused), allow_unused=True)

    assert grads[1].tolist() == [[12.0, 12.0], [12.0, 12.0]]
    assert grads[2] is None or not grads[2].any()


MEASURE = """
import json, sys
import torch
from agentrl.losses.objective import Denominators, LossBatch, objective
from agentrl.recipes.recipe import Recipe

torch.set_num_threads(1)
settings, sizes = json.loads(sys.argv[1])
recipe = Recipe.model_validate(settings)

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

def extra(rows, vocab, width, chunk_size, trained):
    hidden = torch.randn(rows, width).requires_grad_()
    head = torch.randn(vocab, width).requires_grad_(trained)
    batch = LossBatch(
        hidden=hidden, head=head, token_ids=torch.randint(vocab, (rows,)), sequence=torch.zeros(rows).long(),
        teacher_hidden=torch.randn(rows, width), teacher_head=head.detach(),
    )
    whole = Denominators(
        kd_tokens=rows, kd_sequences=1, rl_tokens=0, rl_sequences=0, tokens=rows, sequences=1, episodes=1
    )
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the high-water mark starts anew
    before = status("VmRSS")
    objective(recipe, batch, whole, chunk_size=chunk_size).loss.backward()
    gradients = hidden.grad.nbytes + (head.grad.nbytes if trained else 0)
    return (status("VmHWM") - before - gradients) / 2**20

extra(8, 64, 4, 4, True)  # code is loaded
print(json.dumps([extra(*size) for size in sizes]))
"""


@pytest.mark.heavy
@pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="reads Linux' high-water mark of memory"
)
def test_beyond_gradients_memory_holds_some_arrays_of_one_chunk_and_one_share_of_the_head() -> None:
    """MiB that a process of its own gains, naive and chunked.

    2,048 positions of a vocabulary of 4,096: an array of both is 32 MiB, of a chunk of 16 rows 0.25 MiB.
    64 positions, a head of 8,192 × 512: its gradient is 16 MiB, an array of a chunk 0.5 MiB.
    """
    settings = {"name": "memory"} | KD | {"divergence": {"name": "jsd", "beta": 0.5}}
    sizes = [
        (2048, 4096, 16, 2048, False),
        (2048, 4096, 16, 16, False),
        (64, 8192, 512, 16, True),
    ]
    # Every larger array is mapped by itself, so that what is freed leaves the process and the figure is what lives.
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps([settings, sizes])],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    naive, chunked, with_head = json.loads(done.stdout)

    assert naive > 10 * 32
    assert chunked < 20
    assert with_head < 28
