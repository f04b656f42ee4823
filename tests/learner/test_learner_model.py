from pathlib import Path

import pytest
import torch
from learner_models import VOCAB, write_model
from transformers import GraniteConfig, GraniteForCausalLM

from agentrl.errors import ConfigError, ModelError
from agentrl.learner.model import PolicyModel, load_policy, set_precision
from agentrl.learner.pack import Padding, Row, pack
from agentrl.learner.teacher_weights import BaseWeights, FollowingWeights, Weights, make_teacher
from agentrl.recipes import axes


def load(path: Path, *, lora_rank: int = 0, precision: str = "fp32") -> PolicyModel:
    return load_policy(path, device="cpu", precision=precision, lora_rank=lora_rank, seed=0)


def some_rows(num: int = 6, shared: int = 40) -> list[Row]:
    generator = torch.Generator().manual_seed(1)
    preamble = tuple(torch.randint(0, VOCAB, (shared,), generator=generator).tolist())
    rows = []
    for index in range(num):
        own = tuple(torch.randint(0, VOCAB, (5 + 3 * index,), generator=generator).tolist())
        rows.append(Row(token_ids=preamble + own, positions=tuple(range(shared + 1, shared + len(own)))))
    return rows


def hidden_of(policy: PolicyModel, rows: list[Row], *, share: bool, max_tokens: int = 8192) -> torch.Tensor:
    total = sum(len(row.positions) for row in rows)
    return Weights(policy, None).hidden(
        pack(rows, max_tokens=max_tokens, share="tree" if share else "none"), total
    )


def nudge(policy: PolicyModel, amount: float = 0.1) -> None:
    with torch.no_grad():
        for parameter in policy.trained.values():
            parameter.add_(amount * torch.ones_like(parameter))


def test_hidden_states_times_head_are_the_logits_of_the_model(model_path: Path) -> None:
    policy, rows = load(model_path), some_rows(3)

    ours = hidden_of(policy, rows, share=True) @ policy.head().T

    with torch.no_grad():
        theirs = [
            policy.causal_lm(torch.tensor([row.token_ids])).logits[0, [p - 1 for p in row.positions]]
            for row in rows
        ]
    torch.testing.assert_close(ours, torch.cat(theirs), atol=1e-4, rtol=0)


def test_rows_are_padded_where_products_are_compiled_which_changes_no_hidden_state(model_path: Path) -> None:
    policy, rows = load(model_path, precision="bf16"), some_rows()
    [micro] = Weights(policy, None).pack(rows, max_tokens=8192)
    assert micro.buckets
    assert {bucket.rest.shape[1] % 16 for bucket in micro.buckets if bucket.depths is None} <= {0}
    set_precision(policy, "fp32")
    assert policy.padding == Padding(multiple_of=1, max_len=512)

    total = sum(len(row.positions) for row in rows)
    padded = pack(rows, max_tokens=8192, share="prefix", padding=Padding(multiple_of=16, max_len=512))
    assert sum(micro.num_ids for micro in padded) > 40 + sum(len(row.token_ids) - 41 for row in rows)
    torch.testing.assert_close(
        Weights(policy, None).hidden(padded, total), hidden_of(policy, rows, share=False), atol=1e-5, rtol=0
    )


def test_sharing_a_prefix_changes_neither_hidden_states_nor_gradients(model_path: Path) -> None:
    policy, rows = load(model_path), some_rows()
    assert policy.shares_prefix == "tree"
    results = []
    for share in (True, False):
        micros = pack(rows, max_tokens=8192, share="tree" if share else "none")
        assert any(len(micro.prefix) for micro in micros) == share
        loss = sum(policy(micro).sin().sum() for micro in micros)
        loss.backward()
        results.append({name: parameter.grad for name, parameter in policy.trained.items()})
        for parameter in policy.trained.values():
            parameter.grad = None
    for name, gradient in results[0].items():
        scale = float(results[1][name].abs().max()) + 1e-6
        assert float((gradient - results[1][name]).abs().max()) < 1e-4 * scale, name
    torch.testing.assert_close(
        hidden_of(policy, rows, share=True), hidden_of(policy, rows, share=False), atol=1e-5, rtol=0
    )


def test_small_micro_batches_give_the_hidden_states_of_large_ones(model_path: Path) -> None:
    policy, rows = load(model_path), some_rows()

    torch.testing.assert_close(
        hidden_of(policy, rows, share=True, max_tokens=70),
        hidden_of(policy, rows, share=True),
        atol=1e-5,
        rtol=0,
    )


def test_bf16_stays_close_to_fp32(model_path: Path) -> None:
    policy, rows = load(model_path), some_rows()
    exact = hidden_of(policy, rows, share=True)
    set_precision(policy, "bf16")

    rough = hidden_of(policy, rows, share=True)

    assert rough.dtype == torch.float32
    difference = ((rough - exact) @ policy.head().detach().T).abs()
    assert 0 < float(difference.mean()) < 0.1
    assert all(parameter.dtype == torch.float32 for parameter in policy.trained.values())


def test_auto_settles_on_one_of_the_two_number_types(model_path: Path) -> None:
    policy = load(model_path, precision="auto")

    assert policy.precision in ("fp32", "bf16")
    assert all(parameter.grad is None for parameter in policy.trained.values())


def test_a_model_that_scales_its_logits_is_refused(tmp_path: Path) -> None:
    config = GraniteConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        logits_scaling=8.0,
        initializer_range=0.2,
    )
    GraniteForCausalLM(config).save_pretrained(tmp_path)

    with pytest.raises(ModelError, match="not the product"):
        load(tmp_path)


def test_an_untied_head_is_trained_too(tmp_path: Path) -> None:
    policy = load(write_model(tmp_path, tie_word_embeddings=False))

    assert "lm_head.weight" in policy.trained
    assert policy.head() is policy.trained["lm_head.weight"]


def test_a_folder_without_a_model_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        load(tmp_path)


def test_an_absent_device_is_an_error_that_names_the_setting(model_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"learn\.device = 'cuda:77'"):
        load_policy(model_path, device="cuda:77", precision="fp32", lora_rank=0, seed=0)


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_version_0_keeps_scoring_as_at_the_start(model_path: Path, lora_rank: int) -> None:
    policy, rows = load(model_path, lora_rank=lora_rank), some_rows(2)
    base = BaseWeights(policy)
    total = sum(len(row.positions) for row in rows)
    micros = pack(rows, max_tokens=8192)
    before = hidden_of(policy, rows, share=True)

    nudge(policy)

    assert torch.equal(base.hidden(micros, total), before)
    assert not torch.equal(hidden_of(policy, rows, share=True), before)


def test_the_adapter_starts_as_the_base_and_the_same_seed_gives_the_same_adapter(model_path: Path) -> None:
    plain, first, second = load(model_path), load(model_path, lora_rank=2), load(model_path, lora_rank=2)
    rows = some_rows(2)

    torch.testing.assert_close(
        hidden_of(first, rows, share=True), hidden_of(plain, rows, share=True), atol=1e-6, rtol=0
    )
    assert first.trained.keys() == second.trained.keys()
    assert all("lora_" in name for name in first.trained)
    assert all(torch.equal(first.trained[name], second.trained[name]) for name in first.trained)


def tensors_of(weights: Weights) -> dict[str, torch.Tensor]:
    assert weights.tensors is not None
    return weights.tensors


def test_a_moving_average_of_rate_1_is_a_copy_and_of_rate_0_stays(model_path: Path) -> None:
    policy = load(model_path)
    start = {name: parameter.detach().clone() for name, parameter in policy.trained.items()}
    copied = FollowingWeights(policy, axes.Ema(rate=1.0))
    stayed = FollowingWeights(policy, axes.Ema(rate=0.0))

    nudge(policy)
    copied.follow(1)
    stayed.follow(1)

    for name, parameter in policy.trained.items():
        assert torch.equal(tensors_of(copied)[name], parameter)
        assert torch.equal(tensors_of(stayed)[name], start[name])


def test_a_moving_average_nears_a_constant_as_one_minus_rate_to_the_n(model_path: Path) -> None:
    policy = load(model_path)
    teacher = FollowingWeights(policy, axes.Ema(rate=0.25))
    nudge(policy, 1.0)

    for step in range(1, 4):
        teacher.follow(step)

    for name, parameter in policy.trained.items():
        gap = parameter - tensors_of(teacher)[name]
        torch.testing.assert_close(gap, torch.full_like(gap, 0.75**3), atol=1e-5, rtol=0)


def test_a_copy_is_renewed_after_every_kth_step(model_path: Path) -> None:
    policy = load(model_path)
    teacher = FollowingWeights(policy, axes.CopyEvery(steps=2))
    name = next(iter(policy.trained))

    nudge(policy)
    teacher.follow(1)
    assert not torch.equal(tensors_of(teacher)[name], policy.trained[name])
    teacher.follow(2)
    assert torch.equal(tensors_of(teacher)[name], policy.trained[name])


@pytest.mark.parametrize("lora_rank", [0, 2])
@pytest.mark.parametrize("sync", [axes.Fixed(), axes.Live(), axes.CopyEvery(), axes.Ema()])
def test_with_the_same_weights_and_no_block_teacher_and_policy_agree_everywhere(
    model_path: Path, sync: axes.Sync, lora_rank: int
) -> None:
    policy = load(model_path, lora_rank=lora_rank)
    rows = [
        Row(token_ids=row.token_ids, positions=tuple(range(1, len(row.token_ids)))) for row in some_rows()
    ]
    total = sum(len(row.positions) for row in rows)
    teacher = make_teacher(policy, sync, BaseWeights(policy))

    # other micro batches for the teacher than for the policy, as when its rows are longer
    theirs = teacher.hidden(pack(rows, max_tokens=100, share="none"), total) @ teacher.head().T
    ours = hidden_of(policy, rows, share=True) @ policy.head().detach().T

    assert float((theirs.log_softmax(-1) - ours.log_softmax(-1)).abs().max()) < 1e-4


def test_the_teachers_pass_leaves_no_gradient(model_path: Path) -> None:
    policy, rows = load(model_path), some_rows(2)
    teacher = make_teacher(policy, axes.Live(), None)

    hidden = teacher.hidden(pack(rows, max_tokens=8192), sum(len(row.positions) for row in rows))

    assert not hidden.requires_grad
    assert not teacher.head().requires_grad
