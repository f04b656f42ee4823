"""DPO and f-DPO as TRL has them: its own loss on the same inputs gives the same value and gradients.

`DPOTrainer._compute_loss` is called unbound on a stand-in that holds the attributes it reads, as in
`test_losses_trl_parity`; the call that would run a model gets the log-probs of the test's hidden states.
"""

import os
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from agentrl.losses.objective import LossBatch, count_tokens, objective
from agentrl.losses.whole import whole_batch
from agentrl.recipes.recipe import Recipe
from agentrl.types import TrainingSample

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.utils import selective_log_softmax

torch.set_num_threads(1)
LENGTH, VOCAB, WIDTH = 6, 41, 8
MASK = torch.tensor(
    [[1, 1, 1, 1, 1, 1], [1, 0, 0, 1, 1, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]], dtype=torch.bool
)
"""Two preferred answers of 6 and 3 trained ids, then the two that they were preferred to."""
PAIRS = (("a", True), ("b", True), ("a", False), ("b", False))
ALONE = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)


class Inputs:
    """Hidden states of policy and reference with their heads, fp32; log-ratios of whole answers up to a few nats."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.hidden = normal(4, LENGTH, WIDTH).requires_grad_()
        self.head = (0.5 * normal(VOCAB, WIDTH)).requires_grad_()
        self.ref_hidden = self.hidden.detach() + 0.3 * normal(4, LENGTH, WIDTH)
        self.ids = torch.randint(VOCAB, (4, LENGTH), generator=generator)

    def logits(self) -> Tensor:
        return self.hidden @ self.head.T

    def ref_logprobs(self) -> Tensor:
        """[4] of whole answers."""
        logits = self.ref_hidden @ self.head.detach().T
        return (selective_log_softmax(logits, self.ids) * MASK).sum(1)

    def samples(self) -> list[TrainingSample]:
        return [
            TrainingSample(
                turn_ids=(),
                token_ids=(0, *self.ids[row].tolist()),
                loss_mask=(False, *MASK[row].tolist()),
                behavior_logprobs=None,
                num_allowed=None,
                teacher=None,
                advantages=None,
                pair=pair,
                preferred=preferred,
            )
            for row, (pair, preferred) in enumerate(PAIRS)
        ]

    def ours(self, recipe: Recipe) -> Tensor:
        batch = LossBatch(
            hidden=self.hidden[MASK],
            head=self.head,
            token_ids=self.ids[MASK],
            sequence=torch.arange(4)[:, None].expand(-1, LENGTH)[MASK],
            ref_hidden=self.ref_hidden[MASK],
            ref_head=self.head.detach(),
        )
        samples = self.samples()
        denominators = count_tokens(recipe, samples)
        plain = replace(batch, hidden=batch.hidden.detach(), head=self.head.detach())
        whole = whole_batch(recipe, [(plain, torch.arange(len(batch.token_ids)))], samples, denominators)
        batch = replace(batch, shared=whole.shared, **whole.streams())
        return objective(recipe, batch, whole.denominators, chunk_size=5).loss

    def theirs(self, divergence: str, beta: float, alpha: float) -> Tensor:
        def model(**_: Any) -> SimpleNamespace:
            logits = self.logits()
            zeros = torch.zeros_like(MASK, dtype=torch.float32)
            return SimpleNamespace(
                log_probs=torch.where(MASK, selective_log_softmax(logits, self.ids), zeros),
                entropy=zeros,
                mean_logits=zeros,
                is_top1=torch.zeros_like(MASK),
            )

        trainer = SimpleNamespace(
            model=SimpleNamespace(training=True),
            accelerator=ALONE,
            aux_loss_enabled=False,
            ld_alpha=None,
            precompute_ref_logps=True,
            f_divergence_type=divergence,
            f_alpha_divergence_coef=alpha,
            loss_types=["sigmoid"],
            loss_weights=[1.0],
            beta=beta,
            use_weighting=False,
            _metrics={"train": defaultdict(list)},
            _total_train_tokens=0,
            _tp_size=1,
        )
        prompt = torch.zeros(4, 1, dtype=torch.long)
        chosen, rejected = self.ref_logprobs().chunk(2)
        given = {
            "input_ids": torch.cat([prompt, self.ids], dim=1),
            "attention_mask": torch.ones(4, LENGTH + 1, dtype=torch.long),
            "completion_mask": torch.cat([prompt, MASK.long()], dim=1),
            "ref_chosen_logps": chosen,
            "ref_rejected_logps": rejected,
        }
        loss: Tensor = DPOTrainer._compute_loss(trainer, model, given, False)
        return loss


@pytest.mark.parametrize("beta", [0.1, 0.5])
@pytest.mark.parametrize(
    ("mix", "divergence", "alpha"),
    [
        ({"name": "dpo"}, "reverse_kl", 1.0),
        ({"name": "f_dpo", "divergence": "rkl"}, "reverse_kl", 1.0),
        ({"name": "f_dpo", "divergence": "fkl"}, "forward_kl", 1.0),
        ({"name": "f_dpo", "divergence": "jsd"}, "js_divergence", 1.0),
        ({"name": "f_dpo", "divergence": "alpha", "alpha": 0.3}, "alpha_divergence", 0.7),
    ],
)
def test_dpo_and_its_divergences_are_trls(
    mix: dict[str, Any], divergence: str, alpha: float, beta: float
) -> None:
    """Within 1e-5 of their largest number. TRL's alpha counts from the other end: it is 1 − ours."""
    inputs = Inputs()
    recipe = Recipe.model_validate({"name": "parity", "mix": mix | {"beta": beta}})
    leaves = (inputs.hidden, inputs.head)
    ours, theirs = inputs.ours(recipe), inputs.theirs(divergence, beta, alpha)

    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    for own, other in zip(
        torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves), strict=True
    ):
        assert other.abs().max().item() > 1e-4
        assert (own - other).abs().max().item() <= 1e-5 * other.abs().max().item()


def test_the_margins_of_the_inputs_tell_the_divergences_apart() -> None:
    """Otherwise the test above would compare one loss five times."""
    inputs = Inputs()
    found = [
        inputs.theirs(name, 0.5, 0.7).item()
        for name in ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")
    ]
    assert min(abs(one - other) for i, one in enumerate(found) for other in found[:i]) > 1e-3
