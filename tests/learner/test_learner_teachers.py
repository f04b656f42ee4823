"""Every kind of teacher: whose weights score, when they follow, and that no gradient reaches them unless joint."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learner_models import (
    NO_CONTEXT,
    VOCAB,
    as_sampled,
    assert_same,
    cached,
    make,
    sample,
    trained,
    transformers_logprobs,
    weights,
    write_model,
    write_tokenizer,
)
from learner_run import Run, write_base

from agentrl.config import LearnConfig
from agentrl.errors import ConfigError
from agentrl.learner import checkpoint
from agentrl.learner.external_teacher import ExternalWeights, score_samples
from agentrl.learner.process import _keep_teacher
from agentrl.learner.scored import view_of
from agentrl.learner.trainer import Trainer
from agentrl.recipes.recipe import load_recipe, preset_names
from agentrl.store.learning_log import LearningLog
from agentrl.text.vocabulary import check_vocabulary
from agentrl.types import TrainingSample

# I10, I33: when the self-teacher follows


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_fixed_and_never_copied_and_averaged_at_rate_0_train_the_same_bits(
    base: Path, lora_rank: int
) -> None:
    fixed = trained(make(base, lora_rank=lora_rank, sync="fixed"))

    for sync in ({"name": "ema", "rate": 0.0}, {"name": "copy_every", "steps": 10**9}):
        trainer = make(base, lora_rank=lora_rank, sync=sync)
        start = weights(trainer)
        assert_same(trained(trainer), fixed)
        assert trainer._teacher is not None
        assert_same(trainer._teacher.tensors or {}, start)


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_live_and_copied_every_step_and_averaged_at_rate_1_train_the_same_bits(
    base: Path, lora_rank: int
) -> None:
    live = trained(make(base, lora_rank=lora_rank, sync="live", route="has_context"))

    for sync in ({"name": "ema", "rate": 1.0}, {"name": "copy_every", "steps": 1}):
        assert_same(trained(make(base, lora_rank=lora_rank, sync=sync)), live)
    fixed = trained(make(base, lora_rank=lora_rank, sync="fixed"))
    assert not all(torch.equal(fixed[name], live[name]) for name in live)


def test_factors_are_averaged_each_for_itself_under_a_name_of_their_own(base: Path) -> None:
    trainer = make(base, lora_rank=2, sync={"name": "ema_factors", "rate": 0.25})
    start = weights(trainer)

    result = trainer.step([sample(0), sample(1)])

    assert trainer._teacher is not None
    assert trainer._teacher.tensors is not None
    for name, tensor in trainer._teacher.tensors.items():
        torch.testing.assert_close(tensor, 0.75 * start[name] + 0.25 * trainer.policy.trained[name])
    assert "ema_error" not in result.metrics


def test_averaging_factors_needs_an_adapter(base: Path) -> None:
    with pytest.raises(ConfigError, match=r"sync 'ema_factors' .* learn\.lora_rank is 0.*sync = 'ema'"):
        make(base, sync="ema_factors")


def test_the_average_of_an_adapter_is_that_of_its_product_and_says_what_it_lost(base: Path) -> None:
    trainer = make(base, lora_rank=2, sync={"name": "ema", "rate": 0.25})
    names = [name for name in trainer.policy.trained if ".lora_A." in name]
    other_of = {name: name.replace(".lora_A.", ".lora_B.") for name in names}
    exact = {name: torch.zeros(()) for name in names}  # B starts at 0

    for step in range(4):
        result = trainer.step([sample(10 * step + index) for index in range(3)])
        new = weights(trainer)
        exact = {name: 0.75 * exact[name] + 0.25 * new[other_of[name]] @ new[name] for name in names}

    assert trainer._teacher is not None
    found = trainer._teacher.tensors
    assert found is not None
    for name in names:
        off = (found[other_of[name]] @ found[name] - exact[name]).norm() / exact[name].norm()
        assert float(off) < 0.02, name
    assert 0 < result.metrics["ema_error"] < 0.1
    assert "ema_error" not in make(base, sync="ema").step([sample(0)]).metrics


# a version of the run


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_a_fixed_teacher_may_be_another_version_of_the_run(
    base: Path, tmp_path: Path, lora_rank: int
) -> None:
    first = make(base, lora_rank=lora_rank)
    trained(first)
    (tmp_path / "000007").mkdir()
    checkpoint.save(first, tmp_path / "000007")
    rows = [view_of(sample(0))]
    expected = first.mean_logprobs(rows)

    second = make(base, lora_rank=lora_rank, versions=tmp_path, sync={"name": "fixed", "version": 7})
    assert second._teacher is not None
    before = second._teacher.logprobs(rows, max_tokens=100)
    trained(second)

    assert torch.equal(second._teacher.logprobs(rows, max_tokens=100)[0], before[0])
    assert float(before[0].mean()) == expected[0] != make(base).mean_logprobs(rows)[0]


def test_a_version_that_is_not_there_or_trained_otherwise_is_refused(base: Path, tmp_path: Path) -> None:
    sync = {"name": "fixed", "version": 7}
    with pytest.raises(ConfigError, match="there is no run whose it could be"):
        make(base, sync=sync)
    with pytest.raises(ConfigError, match=r"version 7.*000007 cannot be read.*`agentrl versions --json`"):
        make(base, versions=tmp_path, sync=sync)
    (tmp_path / "000007").mkdir()
    checkpoint.save(make(base, lora_rank=2), tmp_path / "000007")
    for rank in (0, 4):
        with pytest.raises(ConfigError, match=r"trained other tensors than this run .* learn\.lora_rank"):
            make(base, lora_rank=rank, versions=tmp_path, sync=sync)


def test_the_version_that_teaches_is_pinned_and_freed_when_another_does(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", write_base(tmp_path / "base"))
    for _ in range(2):
        run.hinted(4)
        with run.learner() as learner:
            learner.loop.start()
            learner.work()

    with LearningLog(run.path) as log:
        for version, pins in ((1, {1: ["teacher"]}), (2, {2: ["teacher"]}), (0, {})):
            recipe = load_recipe("hint_opsd", {"sync": {"name": "fixed", "version": version}})
            _keep_teacher(log, "default", recipe)
            assert log.pins("default") == pins
        with pytest.raises(ConfigError, match="sync 'fixed' names version 9 as the teacher"):
            _keep_teacher(log, "default", recipe.replaced({"sync.version": 9}))


# isolation, I32


def streams(
    trainer: Trainer, made: Sequence[TrainingSample], slots: Sequence[int]
) -> dict[str, torch.Tensor]:
    scored = trainer._score_teacher(made, trainer.recipe)
    assert scored is not None
    return scored.at(torch.tensor(slots))


@pytest.mark.parametrize("lora_rank", [0, 2])
@pytest.mark.parametrize("sync", ["fixed", "live", "copy_every", "ema", "external"])
def test_no_gradient_reaches_a_teacher(base: Path, other: Path, sync: str, lora_rank: int) -> None:
    axes = {"teacher": {"name": "external", "path": str(other)}} if sync == "external" else {"sync": sync}
    trainer = make(base, lora_rank=lora_rank, route="has_context", **axes)
    trainer.step([sample(0)])

    found = streams(trainer, [sample(0), sample(1)], range(12))

    assert not any(tensor.requires_grad for tensor in found.values())
    assert trainer._teacher is not None
    assert all(not t.requires_grad for t in (trainer._teacher.tensors or {}).values())
    if sync == "external":
        own = list(trainer._teacher.model.parameters())
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in own)


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_the_gradient_of_a_joint_teacher_reaches_the_weights_that_are_trained(
    base: Path, lora_rank: int
) -> None:
    trainer = make(base, recipe="pi_distill", lora_rank=lora_rank)
    made = [sample(0), sample(1), sample(2)]
    slots = [*range(11, 5, -1), *range(12, 18)]  # of two samples, one of them backwards

    found = streams(trainer, made, slots)
    found["teacher_hidden"].sum().backward()

    live = make(base, lora_rank=lora_rank, sync="live", route="has_context")
    torch.testing.assert_close(
        found["teacher_hidden"].detach(), streams(live, made, slots)["teacher_hidden"], atol=1e-5, rtol=0
    )
    for name, parameter in trainer.policy.trained.items():
        # an adapter's A gets none while its B is 0
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()) == ("lora_A" not in name), name
    assert found["teacher_head"].requires_grad == (lora_rank == 0)


def test_a_joint_teacher_keeps_no_graph_where_gradients_are_off(base: Path) -> None:
    with torch.no_grad():
        assert not streams(make(base, recipe="pi_distill"), [sample(0)], range(6))[
            "teacher_hidden"
        ].requires_grad


def test_a_joint_teacher_keeps_no_graph_while_the_whole_batch_is_looked_at(base: Path) -> None:
    """One pass of policy and teacher a micro batch with gradients on, and as many with gradients off."""
    shifted = {"name": "entropy_shift", "base": "raw"}
    trainer = make(base, recipe="pi_distill", advantage=shifted, batch__micro_tokens=1)
    made = [
        replace(item, source="teacher", advantages=(0.0,) * 20 + (advantage,) * 6)
        for item, advantage in zip(as_sampled(trainer, [sample(0), sample(1)]), (1.0, -1.0), strict=True)
    ]
    passes = []
    body = trainer.policy.causal_lm.get_decoder()
    body.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))

    trainer.step(made)

    assert (passes.count(True), passes.count(False)) == (4, 4)


def test_a_joint_teacher_is_scored_anew_after_every_step(base: Path) -> None:
    trainer = make(base, recipe="pi_distill")
    before = streams(trainer, [sample(0)], range(6))["teacher_hidden"]
    made = [
        replace(item, source="teacher", advantages=(0.0,) * 20 + (advantage,) * 6)
        for item, advantage in zip(as_sampled(trainer, [sample(0), sample(1)]), (1.0, -1.0), strict=True)
    ]

    assert trainer.step(made).dropped == ()

    assert not torch.equal(streams(trainer, [sample(0)], range(6))["teacher_hidden"], before)


def test_dropout_is_off_in_policy_and_teacher(tmp_path: Path) -> None:
    noisy = write_tokenizer(write_model(tmp_path / "noisy", attention_dropout=0.5))
    trainer = make(noisy, teacher={"name": "external", "path": str(noisy)})
    rows = [view_of(sample(0))]
    assert trainer._teacher is not None

    first, second = (trainer._teacher.logprobs(rows, max_tokens=100)[0] for _ in range(2))

    assert torch.equal(first, second)
    assert float(first.mean()) == trainer.mean_logprobs(rows)[0]
    trainer.step([sample(0)])
    modules = [*trainer._teacher.model.modules(), *trainer.policy.lm.modules()]
    assert not any(
        module.training for module in modules if module not in (trainer._teacher.model, trainer.policy)
    )


# another model


def test_an_external_teacher_says_what_transformers_says_of_the_same_ids(base: Path, other: Path) -> None:
    trainer = make(base, teacher={"name": "external", "path": str(other)})
    made = [sample(0), sample(1, hint=False)]
    found = streams(trainer, made, range(12))

    ours = (found["teacher_hidden"] @ found["teacher_head"].T).log_softmax(-1)

    at = 0
    for item in made:
        ids = torch.tensor(item.token_ids[20:])
        theirs = transformers_logprobs(other, view_of(item))
        torch.testing.assert_close(
            ours[at : at + 6].gather(1, ids[:, None]).squeeze(1), theirs, atol=1e-4, rtol=0
        )
        at += 6


def test_the_policy_learns_what_an_external_teacher_does(base: Path, other: Path) -> None:
    trainer = make(base, teacher={"name": "external", "path": str(other)}, transform="none", **NO_CONTEXT)
    made = [sample(index, hint=False) for index in range(4)]
    first = trainer.step(made).metrics["loss"]

    for _ in range(30):
        last = trainer.step(made).metrics["loss"]

    assert last < 0.3 * first


def test_an_external_teacher_must_be_named(base: Path) -> None:
    with pytest.raises(ConfigError, match=r"as its teacher.*learn\.overrides\.teacher\.path"):
        make(base, teacher="external")


def test_a_teacher_of_another_vocabulary_is_refused_with_both_names_and_the_remedy(
    base: Path, tmp_path: Path
) -> None:
    swapped = write_tokenizer(write_model(tmp_path / "swapped"), w3=4, w4=3)

    with pytest.raises(ConfigError) as refused:
        make(base, teacher={"name": "external", "path": str(swapped)})

    text = str(refused.value)
    assert str(swapped) in text
    assert str(base) in text
    assert "2 tokens differ, the first is 'w3', id 4 there and 3 here" in text
    assert "teacher = 'self'" in text


def test_a_vocabulary_is_compared_by_ids_and_not_by_how_it_is_written(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "spaced")
    written = tmp_path / "spaced" / "tokenizer.json"
    written.write_text(json.dumps(json.loads(written.read_text()), indent=7))

    check_vocabulary(tmp_path / "spaced", base)
    written.unlink()
    with pytest.raises(ConfigError, match=r"spaced/tokenizer\.json is not there"):
        check_vocabulary(tmp_path / "spaced", base)


def test_padding_of_the_output_matrix_is_no_vocabulary(base: Path, tmp_path: Path) -> None:
    padded = write_tokenizer(write_model(tmp_path / "padded", vocab_size=VOCAB + 16))
    teacher = ExternalWeights(padded, policy_path=base, vocab_size=VOCAB, device="cpu", precision="fp32")
    assert teacher.head().shape[0] == VOCAB

    with pytest.raises(ConfigError, match=r"64 rows in its output matrix, the policy .* has 80"):
        ExternalWeights(base, policy_path=padded, vocab_size=VOCAB + 16, device="cpu", precision="fp32")


def test_no_sample_is_longer_than_the_teacher_can_read(base: Path, tmp_path: Path) -> None:
    short = write_tokenizer(write_model(tmp_path / "short", max_position_embeddings=100))

    assert make(base).max_len == 512
    assert make(base, teacher={"name": "external", "path": str(short)}).max_len == 100


def test_an_external_teacher_stays_as_it_is_when_the_learner_goes_back(base: Path, other: Path) -> None:
    trainer = make(base, teacher={"name": "external", "path": str(other)})
    start, teacher = weights(trainer), trainer._teacher
    trained(trainer)

    trainer.reset()

    assert_same(weights(trainer), start)
    assert trainer._teacher is teacher


# adapters under every method


def works(preset: str) -> bool:
    """Whether it needs nothing that is not built."""
    try:
        load_recipe(preset)
    except ConfigError:
        return False
    return True


FEWER = {"d3s": 3, "spine": 3, "adaspec": 2, "redi": 2}
"""Of the four samples those that have one of the share of tokens that the method trains, or are preferred, as in the
first stage of redi."""


@pytest.mark.parametrize("name", [name for name in preset_names() if works(name)])
def test_every_preset_trains_an_adapter_and_no_bit_of_its_base(
    base: Path, other: Path, tmp_path: Path, name: str
) -> None:
    hinted = [sample(index) for index in range(4)]
    scores = tmp_path / "scores.db"
    recipe = load_recipe(name)
    if recipe.teacher.name == "external":
        recipe = recipe.replaced({"teacher.path": str(other)})
    if recipe.teacher.name == "cached":
        score_samples(
            scores, hinted, policy="default", teacher_path=other, policy_path=base, precision="fp32"
        )
        recipe = recipe.replaced({"teacher": cached(scores, other)})
    if recipe.references:
        recipe = recipe.replaced(dict.fromkeys(recipe.references, str(base)))
    if name == "gtpo":  # a random model is nearly uniform over its 64 ids, ln 64 = 4.16
        recipe = recipe.replaced({"advantage.max_entropy": 5.0})
    trainer = Trainer(base, recipe, LearnConfig(precision="fp32", lora_rank=2))
    made = [
        replace(
            item,
            group="g",
            reward=float(index % 2),
            advantages=(0.0,) * 20 + (index % 2 * 2.0 - 1.0,) * 6,
            pair=f"pair {index // 2}",
            preferred=index % 2 == 1,
        )
        for index, item in enumerate(as_sampled(trainer, hinted))
    ]
    before = weights(trainer)
    whole = trainer.policy.causal_lm.state_dict()
    frozen = {key: tensor.clone() for key, tensor in whole.items() if "lora_" not in key}

    result = trainer.step(made)

    assert len(result.trained) == FEWER.get(name, 4)
    assert len(result.trained) + len(result.dropped) == 4
    assert all("lora_" in key for key in trainer.policy.trained)
    assert any(not torch.equal(before[key], tensor) for key, tensor in weights(trainer).items())
    assert all(torch.equal(whole[key], tensor) for key, tensor in frozen.items())
