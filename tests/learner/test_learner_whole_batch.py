"""Options that look at the whole batch, through the trainer and a real model: I30, law 11."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learner_models import VOCAB, write_model, write_tokenizer
from transformers import AutoModelForCausalLM

from agentrl.config import LearnConfig
from agentrl.errors import ConfigError
from agentrl.learner import checkpoint
from agentrl.learner.pack import Row
from agentrl.learner.trainer import Trainer
from agentrl.recipes import credit
from agentrl.recipes.recipe import load_recipe
from agentrl.types import TrainingSample

PRESETS = (
    "gtpo", "bapo", "clip_cov", "kl_cov", "dcpo", "dph_rl", "disco", "drpo", "laser", "kimi_pg", "r2vpo", "d3s",
    "spine", "rapo", "remix", "prl", "fg_expo", "safe", "mdpo", "apo", "c3po", "r3", "chi2_reg", "dapo",
)  # fmt: skip
LOUD = {
    "bapo": {"offpolicy.step": 0.02, "offpolicy.share": 0.6},
    "clip_cov": {"offpolicy.frac": 0.2, "offpolicy.between": [0.0, 9.0]},
    "kl_cov": {"offpolicy.frac": 0.2},
    "gtpo": {"advantage.max_entropy": 4.1},
    "disco": {"offpolicy.delta": 0.0, "offpolicy.beta": 5.0},
    "laser": {"regularisers.0.token": 63, "schedules": {}, "regularisers.0.share": 0.3},
}
"""Settings under which an option acts on so small a batch."""


def make(path: Path, name: str, micro_tokens: int, **overrides: object) -> Trainer:
    settings = {"optim.lr": 1e-2, "batch.micro_tokens": micro_tokens, "limits.max_logprob_gap": 9.0}
    recipe = load_recipe(name, settings | LOUD.get(name, {}) | overrides)
    return Trainer(path, recipe, LearnConfig(precision="fp32"))


def samples_for(trainer: Trainer, sources: Sequence[str] = ("sampled",) * 8) -> list[TrainingSample]:
    """Two groups of four answers to two prompts, all of unequal length; each sampled a little off the policy."""
    rewards = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    advantages = [
        value
        for group in (rewards[:4], rewards[4:])
        for value in credit.advantages(trainer.recipe.advantage, group)
    ]
    samples = []
    for index, (advantage, source) in enumerate(zip(advantages, sources, strict=True)):
        generator = torch.Generator().manual_seed(index)
        prompt = torch.randint(0, 50, (12,), generator=torch.Generator().manual_seed(100 + index // 4))
        answer = torch.randint(0, 50, (3 + index % 5,), generator=generator)
        answer[0] = 7  # something to share
        ids = tuple(torch.cat([prompt, answer]).tolist())
        start, length = len(prompt), len(ids)
        rows = [Row(token_ids=ids, positions=(p,)) for p in range(start, length)]
        off = 0.2 * torch.randn(length - start, generator=generator)
        old = [
            logprob + shift for logprob, shift in zip(trainer.mean_logprobs(rows), off.tolist(), strict=True)
        ]
        samples.append(
            TrainingSample(
                turn_ids=(f"t{index}",),
                token_ids=ids,
                loss_mask=(False,) * start + (True,) * (length - start),
                behavior_logprobs=(0.0,) * start + tuple(old),
                num_allowed=(0,) * start + (VOCAB,) * (length - start),
                teacher=None,
                advantages=(0.0,) * start + (advantage or 0.0,) * (length - start),
                group=f"g{index // 4}",
                reward=rewards[index],
                source=source,
            )
        )
    return samples


def gradients(trainer: Trainer) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in trainer.policy.trained.values()])


@pytest.mark.parametrize("name", PRESETS)
def test_a_batch_gives_the_same_gradient_in_many_passes_as_in_one(model_path: Path, name: str) -> None:
    """I30 within 1e-6 in fp32, relative to the largest entry; and the step's numbers are the same."""
    sources = ("sampled",) * 7 + (("rehearsal",) if name == "dph_rl" else ("sampled",))
    huge, tiny = make(model_path, name, 10_000), make(model_path, name, 1)
    samples = samples_for(huge, sources)

    one, many = huge.step(samples), tiny.step(samples)

    assert one.dropped == many.dropped
    assert not one.dropped or name in ("d3s", "spine")  # whose top tokens stand in some sequences only
    scale = gradients(huge).abs().max()
    assert scale > 1e-6
    assert (gradients(huge) - gradients(tiny)).abs().max() <= 1e-6 * max(1.0, float(scale))
    for key, value in one.metrics.items():
        if key.startswith(
            (
                "loss",
                "num_tokens",
                "num_clipped",
                "shared/",
                "policy_entropy",
                "ratio_",
                "reward_",
                "grad_norm",
            )
        ):
            assert many.metrics[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key


@pytest.mark.parametrize("name", ["laser", "disco", "r3", "apo"])
def test_the_turns_of_an_episode_may_stand_in_several_passes(model_path: Path, name: str) -> None:
    """I30 where an episode has two turns: one answer of its group, and not the two that they were alone."""
    huge, tiny, apart = (make(model_path, name, size) for size in (10_000, 1, 10_000))
    alone = samples_for(huge)
    episode = {0: ("first", 1), 2: ("first", 0), 5: ("second", 0), 7: ("second", 1)}  # of equal reward each
    samples = [
        replace(sample, episode=episode[i][0], turn_index=episode[i][1]) if i in episode else sample
        for i, sample in enumerate(alone)
    ]

    assert huge.step(samples).dropped == tiny.step(samples).dropped == apart.step(alone).dropped == ()
    scale = gradients(huge).abs().max()
    assert (gradients(huge) - gradients(tiny)).abs().max() <= 1e-6 * max(1.0, float(scale))
    assert (gradients(huge) - gradients(apart)).abs().max() > 1e-4 * scale


def test_sequences_of_which_the_whole_batch_leaves_nothing_are_dropped(model_path: Path) -> None:
    """Law 3. GTPO leaves out sequences above a mean entropy: some of them here, and then all."""
    trainer = make(model_path, "gtpo", 10_000, regularisers=[])
    samples = samples_for(trainer)
    entropies = []
    for item in samples:
        with torch.no_grad():
            logprobs = (
                trainer.policy.causal_lm(torch.tensor([item.token_ids])).logits[0].log_softmax(-1)[11:-1]
            )
        entropies.append(float(-(logprobs.exp() * logprobs).sum(-1).mean()))
    bound = sum(sorted(entropies)[3:5]) / 2
    wild = {item.turn_ids for item, entropy in zip(samples, entropies, strict=True) if entropy > bound}

    trainer = make(model_path, "gtpo", 10_000, regularisers=[], **{"advantage.max_entropy": bound})
    result = trainer.step(samples)

    assert len(wild) == 4
    assert {item.turn_ids for item in result.dropped} == wild
    assert {item.reason for item in result.dropped} == {"no weight"}
    assert len(result.trained) == 4
    trainer = make(model_path, "gtpo", 10_000, regularisers=[], **{"advantage.max_entropy": 1e-9})
    before = {name: value.detach().clone() for name, value in trainer.policy.trained.items()}
    result = trainer.step(samples)
    assert (result.trained, len(result.dropped), trainer.num_steps) == ((), 8, 0)
    assert all(torch.equal(value, before[name]) for name, value in trainer.policy.trained.items())

    held = [{"name": "kl_ref", "coef": 0.1}]  # a penalty trains every id
    trainer = make(model_path, "gtpo", 10_000, regularisers=held, **{"advantage.max_entropy": bound})
    assert trainer.step(samples).dropped == ()


def test_an_option_that_saw_a_micro_batch_alone_would_be_found_out(model_path: Path) -> None:
    """The broken variant: the entropy's top fifth of each half of the batch is not that of the batch."""
    whole, halves = make(model_path, "spine", 10_000), make(model_path, "spine", 10_000)
    samples = samples_for(whole)
    whole.step(samples)
    halves.step(samples[:4])
    first = gradients(halves)
    halves = make(model_path, "spine", 10_000)
    halves.step(samples[4:])
    tokens = [sum(sum(sample.loss_mask) for sample in part) for part in (samples[:4], samples[4:])]
    joined = (first * tokens[0] + gradients(halves) * tokens[1]) / sum(tokens)

    assert (gradients(whole) - joined).abs().max() > 1e-4


def test_a_random_draw_is_the_same_when_the_step_is_replayed(model_path: Path) -> None:
    """Law 11."""
    weights = []
    for _ in range(2):
        trainer = make(model_path, "clip_cov", 10_000)
        trainer.step(samples_for(trainer))
        weights.append([parameter.detach().clone() for parameter in trainer.policy.trained.values()])
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def test_a_schedule_that_follows_the_steps_survives_a_restart(model_path: Path, tmp_path: Path) -> None:
    """R2VPO's multiplier, SAFE's controller and FG-ExPO's mean reward read metrics that real steps have."""
    for name in ("r2vpo", "safe", "fg_expo"):
        trainer = make(model_path, name, 10_000)
        samples = samples_for(trainer)
        for _ in range(2):
            metrics = trainer.step(samples).metrics
        saved = tmp_path / name
        saved.mkdir()
        checkpoint.save(trainer, saved)
        state = json.loads((saved / "learner_state" / "state.json").read_text())["counters"]["schedules"]
        assert state["step"] == 2

        other = make(model_path, name, 10_000)
        checkpoint.load(other, saved)
        assert other._schedules.state_dict() == trainer._schedules.state_dict() == state
        assert other._schedules.current() == trainer._schedules.current() != trainer.recipe
        assert metrics["reward_mean"] == pytest.approx(3 / 8)
        first, second = trainer.step(samples).metrics, other.step(samples).metrics
        assert first["loss"] == second["loss"]


def test_a_soup_stands_where_version_0_stood(model_path: Path, tmp_path: Path) -> None:
    """SALSA: the KL to the average of two models; their average with itself is version 0, where the KL is 0."""
    other = write_model(tmp_path / "other", seed=3)
    trainer = make(model_path, "salsa", 10_000, **{"regularisers.0.soup": str(other)})
    samples = samples_for(trainer)
    one, two = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (model_path, other))
    mean = AutoModelForCausalLM.from_pretrained(model_path)
    mean.load_state_dict({name: (tensor + two[name]) / 2 for name, tensor in one.items()})
    total = 0.0
    for sample in samples:
        start = sample.loss_mask.index(True)
        with torch.no_grad():
            ids = torch.tensor([sample.token_ids])
            p, q = (
                model(ids).logits[0, start - 1 : -1].log_softmax(-1)
                for model in (trainer.policy.causal_lm, mean)
            )
        total += float((p.exp() * (p - q)).sum())

    metrics = trainer.step(samples).metrics
    assert metrics["loss/kl_ref"] == pytest.approx(total / metrics["num_tokens"], rel=1e-4)
    assert metrics["loss/kl_ref"] > 0.01
    adapter = Trainer(model_path, trainer.recipe, LearnConfig(precision="fp32", lora_rank=2))
    assert adapter.step(samples).metrics["loss/kl_ref"] == pytest.approx(metrics["loss/kl_ref"], rel=1e-4)
    itself = make(model_path, "salsa", 10_000, **{"regularisers.0.soup": str(model_path)})
    assert itself.step(samples).metrics["loss/kl_ref"] == pytest.approx(0.0, abs=1e-6)


def test_a_named_reference_stands_where_version_0_stood(base: Path, tmp_path: Path) -> None:
    """AdaSPEC: KL(q‖π) on the fifth of the tokens on which it lies furthest behind KL(q‖another draft)."""
    teacher = write_tokenizer(write_model(tmp_path / "teacher", seed=3))
    draft = write_model(tmp_path / "draft", seed=4)
    settings = {
        "rollout": "stream",
        "teacher.path": str(teacher),
        "token_weight.frac": 0.2,
        "token_weight.reference": str(draft),
    }
    trainer = make(base, "adaspec", 10_000, **settings)
    samples = samples_for(trainer)
    behind, losses = [], []
    policy, q, other = (AutoModelForCausalLM.from_pretrained(path) for path in (base, teacher, draft))
    for sample in samples:
        start, ids = sample.loss_mask.index(True), torch.tensor([sample.token_ids])
        with torch.no_grad():
            p, goal, reference = (
                model(ids).logits[0, start - 1 : -1].log_softmax(-1) for model in (policy, q, other)
            )
        own, theirs = ((goal.exp() * (goal - x)).sum(-1) for x in (p, reference))
        behind += (own - theirs).tolist()
        losses += own.tolist()
    chosen = sorted(range(len(losses)), key=lambda i: -behind[i])[: math.ceil(0.2 * len(losses))]
    expected = sum(losses[i] for i in chosen) / len(chosen)

    assert trainer.step(samples).metrics["loss"] == pytest.approx(expected, rel=1e-4)
    adapter = Trainer(base, trainer.recipe, LearnConfig(precision="fp32", lora_rank=2))
    assert adapter.step(samples).metrics["loss"] == pytest.approx(expected, rel=1e-4)
    from_version_0 = make(base, "adaspec", 10_000, **settings | {"token_weight.reference": None})
    assert from_version_0.step(samples).metrics["loss"] != pytest.approx(expected, rel=1e-2)


def test_a_soup_without_a_second_model_is_refused_with_the_remedy(model_path: Path, tmp_path: Path) -> None:
    """Law 9."""
    with pytest.raises(
        ConfigError, match=r"nobody says which: --set learn\.overrides\.regularisers\.0\.soup"
    ):
        make(model_path, "salsa", 10_000)
    with pytest.raises(ConfigError, match=r"has no tensor .* set regularisers\.0\.soup"):
        make(model_path, "salsa", 10_000, **{"regularisers.0.soup": str(tmp_path)})
    small = write_model(tmp_path / "small", hidden_size=16)
    with pytest.raises(ConfigError, match=r"has no tensor .* of shape"):
        make(model_path, "salsa", 10_000, **{"regularisers.0.soup": str(small)})


def test_a_sample_that_is_only_rehearsed_takes_no_reward(model_path: Path) -> None:
    """The rehearsed answer's tokens are in no other count; without the regulariser's share it changes nothing."""
    trainer = make(model_path, "dph_rl", 10_000)
    samples = samples_for(trainer, ("sampled",) * 7 + ("rehearsal",))
    metrics = trainer.step(samples).metrics
    own = sum(sum(sample.loss_mask) for sample in samples[:7])
    assert (metrics["num_tokens"], metrics["num_rehearsed"]) == (own, sum(samples[7].loss_mask))

    silent = make(model_path, "dph_rl", 10_000, **{"regularisers.0.coef": 0.0})
    without = make(model_path, "grpo", 10_000)
    silent.step(samples)
    without.step(samples[:7])
    torch.testing.assert_close(gradients(silent), gradients(without), atol=1e-6, rtol=0)
