"""The objectives that TRL has as well: its own functions on the same inputs give the same loss and gradients.

TRL's losses are methods of trainers, and a trainer cannot be made without a model, a data set and a run directory.
Where a loss is a method, it is called unbound on a stand-in that holds the attributes it reads; the one call that would
run a model gets the log-probs (or logits) of the test's hidden states. The arithmetic is TRL's.
"""

import os
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from agentrl.losses.objective import Denominators, LossBatch, objective
from agentrl.recipes.recipe import Recipe

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # else importing its experimental trainers warns

from trl.experimental.gkd.gkd_trainer import GKDTrainer
from trl.experimental.sdft.sdft_trainer import SDFTTrainer
from trl.experimental.sdpo.sdpo_trainer import DistillationLogits, SDPOTrainer
from trl.trainer.distillation_trainer import _chunked_divergence_loss
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

torch.set_num_threads(1)
SEQUENCES, LENGTH, VOCAB, WIDTH = 3, 7, 41, 8
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 0, 0, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0, 0]])
"""Answers of 7, 3 and 2 trained tokens; in the second a tool's output stands between."""
KD = {"context": "hindsight_hint", "teacher": "self", "mix": "kd", "limits": {"max_logprob_gap": 50.0}}
RL = {"advantage": "raw", "mix": "rl", "limits": {"max_logprob_gap": 50.0}}


class Inputs:
    """Hidden states of policy, teacher and reference with their heads, on SEQUENCES answers of LENGTH ids. fp32."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.hidden = normal(SEQUENCES, LENGTH, WIDTH).requires_grad_()
        self.head = normal(VOCAB, WIDTH).requires_grad_()
        self.teacher_hidden = normal(SEQUENCES, LENGTH, WIDTH)
        self.teacher_head = self.head.detach() + 0.1 * normal(VOCAB, WIDTH)
        self.ref_hidden = normal(SEQUENCES, LENGTH, WIDTH)
        self.ids = torch.randint(VOCAB, (SEQUENCES, LENGTH), generator=generator)
        # Ratios between about 0.3 and 3: within, below and above the clip for either sign.
        noise = 0.6 * normal(SEQUENCES, LENGTH)
        self.sampler = selective_log_softmax(self.logits().detach(), self.ids) + noise
        self.advantages = torch.tensor([1.25, -0.75, -0.5])

    def logits(self) -> Tensor:
        return self.hidden @ self.head.T

    def teacher_logits(self) -> Tensor:
        return self.teacher_hidden @ self.teacher_head.T

    def ref_logprobs(self) -> Tensor:
        return selective_log_softmax(self.ref_hidden @ self.teacher_head.T, self.ids)

    def batch(self) -> LossBatch:
        rows = MASK.bool()
        return LossBatch(
            hidden=self.hidden[rows],
            head=self.head,
            token_ids=self.ids[rows],
            sequence=torch.arange(SEQUENCES)[:, None].expand(-1, LENGTH)[rows],
            teacher_hidden=self.teacher_hidden[rows],
            teacher_head=self.teacher_head,
            ref_hidden=self.ref_hidden[rows],
            ref_head=self.teacher_head,
            behavior_logprobs=self.sampler[rows],
            advantages=self.advantages[:, None].expand(-1, LENGTH)[rows],
        )


def agree(settings: dict[str, Any], inputs: Inputs, theirs: Callable[[], Tensor]) -> None:
    """Loss and gradients (hidden states and head) of the recipe and of TRL within 1e-5 of their largest number."""
    tokens = int(MASK.sum())
    whole = Denominators(
        kd_tokens=tokens,
        kd_sequences=SEQUENCES,
        rl_tokens=tokens,
        rl_sequences=SEQUENCES,
        tokens=tokens,
        sequences=SEQUENCES,
        episodes=SEQUENCES,
    )
    recipe = Recipe.model_validate({"name": "parity"} | settings)
    leaves = (inputs.hidden, inputs.head)
    ours = objective(recipe, inputs.batch(), whole, chunk_size=5).loss
    expected = theirs()
    assert expected.abs().item() > 1e-3
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)
    for own, other in zip(
        torch.autograd.grad(ours, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        assert other.abs().max().item() > 1e-3
        assert (own - other).abs().max().item() <= 1e-5 * other.abs().max().item()


def divergence(beta: float) -> dict[str, Any]:
    """TRL takes β = 0 for the forward and β = 1 for the reverse KL, as `jsd` here: the formula itself is 0 there."""
    return {"divergence": {"name": "jsd", "beta": beta}}


BETAS = pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])


@BETAS
def test_generalised_jsd_is_that_of_gkd(beta: float) -> None:
    inputs = Inputs()

    def theirs() -> Tensor:
        labels = inputs.ids.where(MASK.bool(), -100)
        return GKDTrainer.generalized_jsd_loss(inputs.logits(), inputs.teacher_logits(), labels, beta=beta)

    agree(KD | divergence(beta), inputs, theirs)


@BETAS
def test_generalised_jsd_from_hidden_states_is_that_of_the_distillation_trainer(beta: float) -> None:
    inputs = Inputs()

    def theirs() -> Tensor:
        loss, _, count = _chunked_divergence_loss(
            inputs.hidden, inputs.teacher_hidden, inputs.head, inputs.teacher_head, MASK, beta
        )
        assert count.item() == 12
        return loss

    agree(KD | divergence(beta), inputs, theirs)


def test_forward_and_reverse_kl_are_gkds_two_ends() -> None:
    for name, beta in (("fkl", 0.0), ("rkl", 1.0)):
        inputs = Inputs(1)

        def theirs(inputs: Inputs = inputs, beta: float = beta) -> Tensor:
            labels = inputs.ids.where(MASK.bool(), -100)
            return GKDTrainer.generalized_jsd_loss(
                inputs.logits(), inputs.teacher_logits(), labels, beta=beta
            )

        agree(KD | {"divergence": name}, inputs, theirs)


ONE_PROCESS = SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x)


def grpo(inputs: Inputs, loss_type: str, low: float, high: float, **changes: Any) -> Tensor:
    """GRPOTrainer._compute_loss: one micro batch, one accumulation step."""

    def logprobs_and_entropies(*_: Any, **__: Any) -> tuple[Tensor, Tensor, None]:
        logits = inputs.logits()
        return selective_log_softmax(logits, inputs.ids), entropy_from_logits(logits).detach(), None

    beta = changes.pop("beta", 0.0)
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=logprobs_and_entropies,
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=beta,
        loss_type=loss_type,
        epsilon_low=low,
        epsilon_high=high,
        args=SimpleNamespace(
            delta=changes.pop("delta", None), use_bias_correction_kl=False, steps_per_generation=1
        ),
        use_vllm=False,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        accelerator=ONE_PROCESS,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
    )
    assert not changes
    prompt = torch.zeros(SEQUENCES, 0, dtype=torch.long)
    given = {
        "prompt_ids": prompt,
        "prompt_mask": prompt,
        "completion_ids": inputs.ids,
        "completion_mask": torch.ones_like(MASK),
        "tool_mask": MASK,
        "advantages": inputs.advantages,
        "old_per_token_logps": inputs.sampler,
        "ref_per_token_logps": inputs.ref_logprobs(),
        "num_items_in_batch": MASK.sum(),
    }
    loss: Tensor = GRPOTrainer._compute_loss(trainer, None, given)
    return loss


def ppo(low: float, high: float, **more: float) -> dict[str, Any]:
    return {"offpolicy": {"name": "ppo", "denominator": "sampler", "eps_low": low, "eps_high": high} | more}


def test_the_ratios_of_the_fixture_pass_the_clip_on_both_sides() -> None:
    """Otherwise the tests below would compare unclipped losses alone."""
    inputs = Inputs()
    ratio = (selective_log_softmax(inputs.logits(), inputs.ids) - inputs.sampler).exp()[MASK.bool()]
    positive = inputs.advantages[:, None].expand_as(inputs.ids)[MASK.bool()] > 0

    assert ((ratio > 1.28) & positive).any()
    assert ((ratio < 0.8) & ~positive).any()
    assert ((ratio > 0.8) & (ratio < 1.2)).any()


def test_grpo_takes_the_mean_of_sequences() -> None:
    inputs = Inputs()
    agree(RL | ppo(0.2, 0.2) | {"aggregate": "seq_mean"}, inputs, lambda: grpo(inputs, "grpo", 0.2, 0.2))


def test_dapo_takes_the_mean_of_tokens_and_clips_higher() -> None:
    inputs = Inputs()
    agree(RL | ppo(0.2, 0.28) | {"aggregate": "token_mean"}, inputs, lambda: grpo(inputs, "dapo", 0.2, 0.28))


def test_a_negative_advantage_has_a_bound_on_its_ratio() -> None:
    """TRL's delta clips the ratio itself; above 1 + ε that is the dual clip."""
    inputs = Inputs()
    ratio = (selective_log_softmax(inputs.logits(), inputs.ids) - inputs.sampler).exp()
    assert ((ratio > 1.4) & (inputs.advantages[:, None] < 0) & MASK.bool()).any()
    settings = RL | ppo(0.2, 0.28, dual_clip=1.4) | {"aggregate": "token_mean"}
    agree(settings, inputs, lambda: grpo(inputs, "dapo", 0.2, 0.28, delta=1.4))


@pytest.mark.parametrize(("loss_type", "aggregate"), [("grpo", "seq_mean"), ("dapo", "token_mean")])
def test_the_penalty_towards_the_reference_is_grpos(loss_type: str, aggregate: str) -> None:
    inputs = Inputs()
    penalty = {"regularisers": [{"name": "kl_ref", "coef": 0.3, "estimator": "k3"}], "aggregate": aggregate}
    agree(RL | ppo(0.2, 0.2) | penalty, inputs, lambda: grpo(inputs, loss_type, 0.2, 0.2, beta=0.3))


class SelfDistillation:
    """What the losses of TRL's two self-distillation trainers read of their trainer."""

    def __init__(self, trainer: type, inputs: Inputs, **args: Any) -> None:
        self.inputs = inputs
        self.trainer = trainer
        self.args = SimpleNamespace(
            **{"distillation_topk": None, "distillation_add_tail": False, "distillation_is_clip": None} | args
        )
        self.accelerator = ONE_PROCESS
        self.model = SimpleNamespace(training=True)
        self.current_gradient_accumulation_steps = 1
        self.use_teacher_server = False
        self.teacher_model = None
        self.importance_sampling_level, self.loss_type = "token", "grpo"
        self.epsilon_low, self.epsilon_high = 0.2, 0.28
        self._metrics: dict[str, Any] = {"train": defaultdict(list)}

    def loss(self) -> Tensor:
        given = {
            "completion_ids": self.inputs.ids,
            "completion_mask": MASK,
            "old_per_token_logps": self.inputs.sampler,
            "advantages": self.inputs.advantages,
        }
        loss: Tensor = self.trainer.compute_loss(self, self.model, given)
        return loss

    def _compute_teacher_student_logits(self, *_: Any) -> DistillationLogits:
        return DistillationLogits(
            completion_ids=self.inputs.ids,
            completion_mask=MASK,
            loss_mask=MASK,
            student_logits=self.inputs.logits(),
            teacher_logits=self.inputs.teacher_logits(),
        )

    def _compute_self_distillation_loss(self, *given: Any) -> Tensor:
        loss: Tensor = self.trainer._compute_self_distillation_loss(self, *given)
        return loss

    def _compute_policy_loss(self, *given: Any) -> Tensor:
        loss: Tensor = self.trainer._compute_policy_loss(self, *given)
        return loss

    def _log_self_distillation_metric(self, mode: str, value: float) -> None:
        self._metrics[mode]["distillation"].append(value)


TRAINERS = pytest.mark.parametrize("trainer", [SDFTTrainer, SDPOTrainer])
SEQ_MEAN = {"aggregate": "seq_mean"}


@TRAINERS
@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9, 1.0])
def test_self_distillation_over_the_vocabulary_is_trls(trainer: type, alpha: float) -> None:
    inputs = Inputs()
    theirs = SelfDistillation(
        trainer, inputs, distillation_weight=1.0, distillation_mode="full_logits", distillation_alpha=alpha
    )
    agree(KD | divergence(alpha) | SEQ_MEAN, inputs, theirs.loss)


@TRAINERS
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("tail", ["bucket", "renorm"])
def test_self_distillation_over_the_likeliest_ids_is_trls(trainer: type, alpha: float, tail: str) -> None:
    inputs = Inputs()
    theirs = SelfDistillation(
        trainer,
        inputs,
        distillation_weight=1.0,
        distillation_mode="topk_logits",
        distillation_topk=6,
        distillation_add_tail=tail == "bucket",
        distillation_alpha=alpha,
    )
    estimator = {"estimator": {"name": "topk", "k": 6, "support": "student", "tail": tail}}
    agree(KD | divergence(alpha) | estimator | SEQ_MEAN, inputs, theirs.loss)


@TRAINERS
def test_self_distillation_on_sampled_ids_has_the_gradient_and_value_of_trls(trainer: type) -> None:
    """sg(ℓ)·log π: a policy gradient with advantage −ℓ."""
    inputs = Inputs()
    theirs = SelfDistillation(
        trainer, inputs, distillation_weight=1.0, distillation_mode="sampled_token", distillation_alpha=1.0
    )
    settings = KD | {"divergence": "rkl", "estimator": "pg", "offpolicy": "none"} | SEQ_MEAN
    settings |= {"limits": {"max_version_lag": 0, "max_logprob_gap": 50.0}}
    agree(settings, inputs, theirs.loss)


def test_the_capped_weight_of_older_tokens_is_sdpos() -> None:
    inputs = Inputs()
    ratio = (selective_log_softmax(inputs.logits(), inputs.ids) - inputs.sampler).exp()
    assert (ratio[MASK.bool()] > 1.5).any()
    theirs = SelfDistillation(
        SDPOTrainer,
        inputs,
        distillation_weight=1.0,
        distillation_mode="topk_logits",
        distillation_topk=6,
        distillation_add_tail=True,
        distillation_alpha=0.5,
        distillation_is_clip=1.5,
    )
    settings = {
        "estimator": {"name": "topk", "k": 6, "support": "student", "tail": "bucket"},
        "offpolicy": {"name": "is_clip", "denominator": "sampler", "cap": 1.5},
    }
    agree(KD | divergence(0.5) | settings | SEQ_MEAN, inputs, theirs.loss)


def test_a_sum_of_reward_and_distillation_is_sdpos() -> None:
    """(1 − w)·GRPO + w·distillation, here w = 0.4."""
    inputs = Inputs()
    theirs = SelfDistillation(
        SDPOTrainer, inputs, distillation_weight=0.4, distillation_mode="full_logits", distillation_alpha=0.5
    )
    mixed = {"advantage": "raw", "mix": {"name": "sum", "kd": 0.4, "rl": 0.6}}
    agree(KD | divergence(0.5) | mixed | ppo(0.2, 0.28) | SEQ_MEAN, inputs, theirs.loss)
