"""The learner samples: what it records is what scoring finds, and the same seeds give the same ids."""

from pathlib import Path

import pytest
import torch
from learner_models import VOCAB, write_model

from agentrl.learner.generate import generate, in_force
from agentrl.learner.model import PolicyModel, load_policy
from agentrl.learner.pack import Row
from agentrl.learner.teacher_weights import BaseWeights, FollowingWeights, Weights
from agentrl.recipes import axes
from agentrl.types import Completion, FinishReason, Sampling

PROMPTS = [(1, 2, 3), (4,), (9, 8, 7, 6, 5, 4, 3), (1, 2, 3)]
SEEDS = [11, 12, 13, 14]
NOWHERE: frozenset[int] = frozenset()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("generate") / "base")


@pytest.fixture
def policy(folder: Path) -> PolicyModel:
    return load_policy(folder, device="cpu", precision="fp32", lora_rank=0, seed=0)


def sampled(
    weights: Weights,
    prompts: list[tuple[int, ...]] = PROMPTS,
    seeds: list[int] = SEEDS,
    *,
    stop_ids: frozenset[int] = NOWHERE,
    max_tokens: int = 4096,
    max_len: int = 512,
    **sampling: object,
) -> list[Completion]:
    asked = Sampling(**({"max_tokens": 12} | sampling))
    return generate(
        weights,
        prompts,
        seeds,
        sampling=asked,
        stop_ids=stop_ids,
        max_tokens=max_tokens,
        max_len=max_len,
        version=3,
    )


def forced(weights: Weights, prompt: tuple[int, ...], answer: Completion) -> torch.Tensor:
    """Raw log-probs of the sampled ids in one pass over prompt and answer, as the trainer scores them."""
    ids = prompt + answer.token_ids
    [found] = weights.logprobs(
        [Row(token_ids=ids, positions=tuple(range(len(prompt), len(ids))))], max_tokens=9
    )
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_what_is_recorded_is_what_scoring_the_same_ids_finds(policy: PolicyModel, temperature: float) -> None:
    """Rows of different lengths are padded; the padding may not be seen."""
    weights = Weights(policy, None)

    answers = sampled(weights, temperature=temperature)

    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert answer.raw_logprobs is not None
        assert len(answer.token_ids) == 12
        assert torch.tensor(answer.raw_logprobs) == pytest.approx(forced(weights, prompt, answer), abs=1e-4)


def test_both_kinds_of_log_probs_are_told_apart(policy: PolicyModel) -> None:
    plain = sampled(Weights(policy, None))
    cool = sampled(Weights(policy, None), temperature=0.5)

    for answer in plain:
        assert answer.logprobs == pytest.approx(answer.raw_logprobs, abs=1e-6)
        assert answer.num_allowed == (VOCAB,) * 12
    with torch.no_grad():
        ids = torch.tensor([PROMPTS[0]])
        logits = policy.causal_lm(input_ids=ids, use_cache=False).logits[0, -1].double()
    expected = (logits / 0.5).log_softmax(-1)[cool[0].token_ids[0]]
    assert cool[0].logprobs[0] == pytest.approx(float(expected), abs=1e-4)
    assert cool[0].raw_logprobs is not None
    assert cool[0].raw_logprobs[0] != pytest.approx(cool[0].logprobs[0], abs=1e-3)


def test_the_same_seeds_give_the_same_ids_whoever_else_is_in_the_batch(policy: PolicyModel) -> None:
    weights = Weights(policy, None)

    together = sampled(weights)
    again = sampled(weights)
    alone = [sampled(weights, [prompt], [seed])[0] for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    in_small_batches = sampled(weights, max_tokens=32)

    assert together == again
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in in_small_batches]
    assert together[0].token_ids != together[3].token_ids, "the same prompt, another seed"


def test_a_continuation_ends_with_its_stop_id_and_the_others_go_on(policy: PolicyModel) -> None:
    weights = Weights(policy, None)
    free = sampled(weights)
    stop = free[2].token_ids[4]

    answers = sampled(weights, stop_ids=frozenset({stop}))

    for without, answer in zip(free, answers, strict=True):
        ids = without.token_ids
        expected = ids[: ids.index(stop) + 1] if stop in ids else ids
        assert answer.token_ids == expected
        assert answer.finish_reason == (FinishReason.STOP if stop in ids else FinishReason.LENGTH)
        assert [(span.version, span.start, span.end) for span in answer.version_spans] == [
            (3, 0, len(expected))
        ]
    assert len({len(answer.token_ids) for answer in answers}) > 1


def test_a_continuation_ends_where_the_models_positions_end(policy: PolicyModel) -> None:
    free, bounded = (sampled(Weights(policy, None), max_len=most) for most in (512, 10))

    for prompt, without, answer in zip(PROMPTS, free, bounded, strict=True):
        assert answer.token_ids == without.token_ids[: 10 - len(prompt)]
        assert answer.finish_reason == FinishReason.LENGTH


def test_a_teacher_samples_with_its_own_tensors_and_the_policys_come_back(policy: PolicyModel) -> None:
    before = {name: tensor.detach().clone() for name, tensor in policy.trained.items()}
    teacher = FollowingWeights(policy, axes.Ema(rate=0.5))
    with torch.no_grad():
        for tensor in policy.trained.values():
            tensor.add_(0.05 * torch.ones_like(tensor))
    after = {name: tensor.detach().clone() for name, tensor in policy.trained.items()}

    answers = sampled(teacher)

    assert all(torch.equal(policy.trained[name], tensor) for name, tensor in after.items())
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert answer.raw_logprobs is not None
        assert torch.tensor(answer.raw_logprobs) == pytest.approx(forced(teacher, prompt, answer), abs=1e-4)
    own = sampled(Weights(policy, None))
    assert [answer.raw_logprobs for answer in own] != [answer.raw_logprobs for answer in answers]
    with torch.no_grad():
        for name, tensor in policy.trained.items():
            tensor.copy_(before[name])
    assert sampled(Weights(policy, None)) == answers, "the teacher was the policy of before"


def test_version_0_samples_with_the_adapter_off(folder: Path) -> None:
    adapted = load_policy(folder, device="cpu", precision="fp32", lora_rank=2, seed=0)
    base = BaseWeights(adapted)
    plain = load_policy(folder, device="cpu", precision="fp32", lora_rank=0, seed=0)
    with torch.no_grad():
        for tensor in adapted.trained.values():
            tensor.normal_(generator=torch.Generator().manual_seed(1))

    answers = sampled(base)

    assert [a.token_ids for a in answers] == [a.token_ids for a in sampled(Weights(plain, None))]
    assert [a.token_ids for a in answers] != [a.token_ids for a in sampled(Weights(adapted, None))]


def test_an_averaged_adapter_of_another_rank_samples_as_it_scores(folder: Path) -> None:
    adapted = load_policy(folder, device="cpu", precision="fp32", lora_rank=2, seed=0)
    teacher = FollowingWeights(adapted, axes.Ema(rate=0.5))
    with torch.no_grad():
        for tensor in adapted.trained.values():
            tensor.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.3)
    teacher.follow(1)
    shapes = {name: tensor.shape for name, tensor in adapted.trained.items()}

    answers = sampled(teacher)

    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert answer.raw_logprobs is not None
        assert torch.tensor(answer.raw_logprobs) == pytest.approx(forced(teacher, prompt, answer), abs=1e-4)
    assert {name: tensor.shape for name, tensor in adapted.trained.items()} == shapes
    assert teacher.tensors is not None
    assert any(teacher.tensors[name].shape != shape for name, shape in shapes.items())


def test_weights_come_back_whatever_ends_the_sampling(policy: PolicyModel) -> None:
    teacher = FollowingWeights(policy, axes.Ema(rate=0.5))
    name, tensor = next(iter(policy.trained.items()))
    kept = tensor.detach().clone()
    assert teacher.tensors is not None
    teacher.tensors[name].zero_()

    def broken() -> None:
        with in_force(teacher):
            assert not policy.trained[name].any()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        broken()
    assert torch.equal(policy.trained[name], kept)
