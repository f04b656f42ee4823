"""Distillation presets through the trainer and real models: I30, also where a token's place in its sequence counts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from learner_models import VOCAB, write_model
from tokenizers import Tokenizer, models

from agentrl.config import LearnConfig
from agentrl.learner.pack import Row
from agentrl.learner.trainer import Trainer
from agentrl.recipes.recipe import load_recipe
from agentrl.types import TrainingSample

PROMPT = tuple(range(20, 44))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A policy, and another model with its vocabulary."""
    home = tmp_path_factory.mktemp("kd")
    policy = write_model(home / "policy")
    teacher = write_model(home / "teacher", seed=5, hidden_size=48)
    for folder in (policy, teacher):
        vocab = {f"w{number}": number for number in range(VOCAB)}
        Tokenizer(models.WordLevel(vocab=vocab, unk_token="w0")).save(str(folder / "tokenizer.json"))
    return policy, teacher


def trainer_of(folders: tuple[Path, Path], name: str, micro_tokens: int, **overrides: Any) -> Trainer:
    settings = {"optim.lr": 1e-2, "batch.micro_tokens": micro_tokens, "limits.max_logprob_gap": 9.0}
    recipe = load_recipe(name, settings | {key.replace("__", "."): value for key, value in overrides.items()})
    if recipe.teacher.name == "external":
        recipe = recipe.replaced({"teacher.path": str(folders[1])})
    return Trainer(folders[0], recipe, LearnConfig(precision="fp32"))


def samples_for(trainer: Trainer) -> list[TrainingSample]:
    """Six answers to one prompt, of two to seven ids, that fork after one or two of them."""
    samples = []
    for index in range(6):
        generator = torch.Generator().manual_seed(index)
        answer = [7, 8 + index % 2, *torch.randint(0, 50, (index,), generator=generator).tolist()]
        ids = (*PROMPT, *answer)
        rows = [Row(token_ids=ids, positions=(position,)) for position in range(len(PROMPT), len(ids))]
        off = (0.1 * torch.randn(len(answer), generator=generator)).tolist()
        old = [logprob + shift for logprob, shift in zip(trainer.mean_logprobs(rows), off, strict=True)]
        before = len(PROMPT)
        samples.append(
            TrainingSample(
                turn_ids=(f"t{index}",),
                token_ids=ids,
                loss_mask=(False,) * before + (True,) * len(answer),
                behavior_logprobs=(0.0,) * before + tuple(old),
                num_allowed=(0,) * before + (VOCAB,) * len(answer),
                teacher=None,
                advantages=None,
            )
        )
    return samples


def gradients(trainer: Trainer) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in trainer.policy.trained.values()])


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("minillm", {}),
        ("iw_opd", {}),
        ("vopd", {"estimator.k": 5}),
        ("opd_plus", {"estimator.gamma": 0.5}),
        ("exopd", {}),
        ("tip", {}),
        ("tsd_kd", {}),
        ("taid", {}),
        ("pld", {}),
        ("curio_sft", {}),
        ("gkd", {"token_weight": "position"}),
        ("gkd", {"token_weight": {"name": "skip_first", "n": 2}}),
        ("gkd", {"token_weight": {"name": "neg_teacher_entropy", "beta": 2.0}}),
        ("gkd", {"divergence": "ce", "teacher": "none"}),
    ],
)
def test_a_batch_gives_the_same_gradient_in_many_passes_as_in_one(
    folders: tuple[Path, Path], name: str, overrides: dict[str, Any]
) -> None:
    """I30: in one pass the six answers share a prompt and their first ids, alone each has its own."""
    one, many = (trainer_of(folders, name, tokens, **overrides) for tokens in (10_000, 1))
    samples = samples_for(one)

    first, second = one.step(samples), many.step(samples)

    assert len(first.trained) == len(second.trained) == 6
    scale = float(gradients(one).abs().max())
    assert scale > 1e-4
    assert float((gradients(one) - gradients(many)).abs().max()) <= 2e-6 * max(1.0, scale)
    assert first.metrics["loss"] == pytest.approx(second.metrics["loss"], rel=1e-4, abs=1e-6)


def test_distillation_steps_bring_the_policy_nearer_to_the_other_model(folders: tuple[Path, Path]) -> None:
    """Ten steps on the same answers; each preset by its own loss."""
    for name in ("gkd", "taid", "tip", "pld"):
        trainer = trainer_of(folders, name, 10_000, schedules={})
        samples = samples_for(trainer)
        losses = [trainer.step(samples).metrics["loss"] for _ in range(10)]
        assert losses[-1] < 0.9 * losses[0], name


def test_imitation_without_a_teacher_raises_the_log_probs_of_the_samples(folders: tuple[Path, Path]) -> None:
    """The divergence `ce`: nothing scores beside the policy."""
    trainer = trainer_of(folders, "gkd", 10_000, divergence="ce", teacher="none")
    samples = samples_for(trainer)
    first = trainer.step(samples).metrics["loss"]
    for _ in range(9):
        last = trainer.step(samples).metrics["loss"]

    assert trainer._teacher is None
    assert last < 0.7 * first
