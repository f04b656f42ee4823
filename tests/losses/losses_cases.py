"""Fixture F of the algebra, and small batches whose hidden states are their own logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from agentrl.losses.objective import Denominators, LossBatch, LossOutput, count_tokens, objective
from agentrl.recipes.recipe import Recipe, preset_names, read_recipe
from agentrl.types import TrainingSample

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


PPO = {"name": "ppo", "denominator": "sampler", "eps_low": 0.2, "eps_high": 0.28}


ON_POLICY = {"limits": {"max_version_lag": 0, "max_logprob_gap": 9.0}}


SELF_KD = {"context": "hindsight_hint", "teacher": "self", "mix": "kd", "limits": {"max_logprob_gap": 9.0}}


RECIPES: dict[str, dict[str, Any]] = {
    "fkl_full": SELF_KD,
    "rkl_seq_mean": SELF_KD | {"divergence": "rkl", "aggregate": "seq_mean"},
    "jsd_topk": SELF_KD | {"divergence": "jsd", "estimator": {"name": "topk", "k": 2}},
    "gap": SELF_KD | {"token_weight": "gap"},
    "top_frac": SELF_KD | {"token_weight": "top_frac", "target": {"name": "temper", "temperature": 0.5}},
    "pg_ppo": SELF_KD | {"divergence": "rkl", "estimator": "pg", "offpolicy": PPO},
    "k2": SELF_KD | {"divergence": "rkl", "estimator": "k2"} | ON_POLICY,
    "iw_k3": SELF_KD | {"divergence": "rkl", "estimator": "iw_k3"},
    "rl_raw": {"advantage": "raw", "mix": "rl", "offpolicy": PPO, "limits": {"max_logprob_gap": 9.0}},
    "rl_tis": {"advantage": "raw", "mix": "rl", "offpolicy": {"name": "tis", "denominator": "sampler"}},
    "sum": SELF_KD | {"advantage": "raw", "mix": {"name": "sum", "kd": 0.3}, "offpolicy": PPO},
    "adv_add": SELF_KD
    | {"advantage": "raw", "mix": "adv_add", "estimator": "pg", "divergence": "rkl", "offpolicy": PPO},
    "regularised": SELF_KD
    | {"regularisers": [{"name": "kl_ref", "coef": 0.1}, {"name": "entropy", "coef": 0.01}]},
    "kl_ref_k3": SELF_KD | {"regularisers": [{"name": "kl_ref", "coef": 0.1, "estimator": "k3"}]},
}


def recipe(name: str, **changes: Any) -> Recipe:
    if name in preset_names():
        return read_recipe(name).replaced({key.replace("__", "."): value for key, value in changes.items()})
    made = Recipe.model_validate({"name": name} | RECIPES[name])
    return made.replaced({key.replace("__", "."): value for key, value in changes.items()})


def full_batch(**streams: Any) -> LossBatch:
    """Nine positions of three sequences with all streams: routes, a forced id, a reference."""
    generator = torch.Generator().manual_seed(5)
    given: dict[str, Any] = {
        "kd_weights": torch.tensor([1, 1, 1, 1, 0, 1, 0, 0, 0]).double(),
        "rl_weights": torch.tensor([0, 0, 0, 1, 1, 1, 0.5, 0.5, 0.5]).double(),
        "num_allowed": torch.tensor([6, 6, 1, 6, 2, 6, 1, 6, 6]),
        "ref_hidden": torch.randn(9, 6, generator=generator, dtype=torch.float64),
        "ref_head": torch.eye(6, dtype=torch.float64),
    }
    return random_batch(0, **given | streams)


def samples_of(batch: LossBatch) -> list[TrainingSample]:
    """The samples that a batch comes from, one id of prompt before each; one group, of which the first was right."""
    samples = []
    for label in batch.sequence.unique().tolist():
        rows = (batch.sequence == label).nonzero().squeeze(-1)

        def stream(tensor: Tensor | None, first: float, rows: Tensor = rows) -> tuple[Any, ...] | None:
            return None if tensor is None else (first, *tensor[rows].tolist())

        weights = {"kd": stream(batch.kd_weights, 1.0), "rl": stream(batch.rl_weights, 1.0)}
        samples.append(
            TrainingSample(
                turn_ids=(str(label),),
                token_ids=(0, *batch.token_ids[rows].tolist()),
                loss_mask=(False, *(True for _ in rows)),
                behavior_logprobs=None,
                num_allowed=stream(batch.num_allowed, 0),
                teacher=None,
                advantages=None,
                weights={name: value for name, value in weights.items() if value is not None},
                group="task",
                reward=float(label == 0),
            )
        )
    return samples


def select(batch: LossBatch, rows: Tensor) -> LossBatch:
    """The micro batch of some rows. Heads are shared."""
    streams = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        streams[field.name] = value[rows] if isinstance(value, Tensor) and "head" not in field.name else value
    return LossBatch(**streams)


def run(made: Recipe, batch: LossBatch, of: Denominators | None = None, **options: Any) -> LossOutput:
    return objective(made, batch, of or count_tokens(made, samples_of(batch)), **options)


def hidden_gradient(output: LossOutput, hidden: Tensor) -> Tensor:
    (grad,) = torch.autograd.grad(output.loss, hidden)
    return grad
