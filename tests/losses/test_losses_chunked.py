"""Aggregates, and the chunked pass: the same numbers in less memory."""

import math

import pytest
import torch
from torch import Tensor

from agentrl.losses.chunked import MAX_ENTRIES, chunk_rows, per_position
from agentrl.losses.masking import AGGREGATES, masked_sum, seq_mean, sequence_sum, token_mean
from agentrl.losses.targets import TARGETS

HEAD = torch.randn(11, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def logprobs(hidden: Tensor, ids: Tensor, absent: Tensor | None) -> dict[str, Tensor]:
    assert absent is None
    rows = torch.log_softmax(hidden @ HEAD.T, dim=-1)
    return {"logprob": rows.gather(1, ids[:, None]).squeeze(1), "entropy": -(rows.exp() * rows).sum(-1)}


def streams(rows: int) -> tuple[Tensor, Tensor, None]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    return hidden.requires_grad_(), torch.randint(11, (rows,), generator=generator), None


def test_chunks_change_neither_values_nor_gradients() -> None:
    whole, ids, _ = streams(10)
    out = per_position(logprobs, (whole, ids, None), chunk_size=10)
    (exact,) = torch.autograd.grad(out["logprob"].sum() + out["entropy"].square().sum(), whole)

    for size in (1, 3, 4, 1000):
        parts = per_position(logprobs, (whole, ids, None), chunk_size=size)
        torch.testing.assert_close(parts["logprob"], out["logprob"])
        (grad,) = torch.autograd.grad(parts["logprob"].sum() + parts["entropy"].square().sum(), whole)
        torch.testing.assert_close(grad, exact)


def test_gradients_through_chunks_agree_with_finite_differences() -> None:
    hidden, ids, _ = streams(5)

    def value(x: Tensor) -> Tensor:
        return per_position(logprobs, (x, ids, None), chunk_size=2)["entropy"].square().sum()

    assert torch.autograd.gradcheck(value, (hidden,))


def test_what_waits_for_the_backward_pass_does_not_grow_with_the_vocabulary() -> None:
    """Bytes saved between the passes: without chunks at least one fp32 row of the vocabulary for each position."""

    def saved_bytes(vocab: int, *, chunked: bool) -> int:
        head = torch.randn(vocab, 8, requires_grad=True)
        hidden = torch.randn(64, 8, requires_grad=True)
        seen: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        def function(rows: Tensor) -> dict[str, Tensor]:
            return {"x": torch.log_softmax(rows @ head.T, dim=-1).exp().square().sum(-1)}

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            kept = per_position(function, (hidden,), chunk_size=8) if chunked else function(hidden)
        assert kept["x"].shape == (64,)
        return sum(seen.values()) - head.nbytes * (head.untyped_storage().data_ptr() in seen)

    assert saved_bytes(5000, chunked=False) >= 64 * 5000 * 4
    assert saved_bytes(5000, chunked=True) <= 10_000
    assert saved_bytes(5000, chunked=True) == saved_bytes(500, chunked=True)


def test_no_rows_give_empty_values_with_a_gradient_path() -> None:
    hidden, ids, _ = streams(0)
    out = per_position(logprobs, (hidden, ids, None), chunk_size=4)
    out["logprob"].sum().backward()

    assert out["logprob"].shape == (0,)
    assert hidden.grad is not None


def test_without_gradient_nothing_is_kept() -> None:
    hidden, ids, _ = streams(3)
    with torch.no_grad():
        assert not per_position(logprobs, (hidden, ids, None), chunk_size=2)["logprob"].requires_grad


def test_streams_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lengths \[2, 3\]"):
        per_position(logprobs, (torch.zeros(3, 4), torch.zeros(2), None), chunk_size=2)
    with pytest.raises(ValueError, match="chunk_size is 0"):
        per_position(logprobs, streams(3), chunk_size=0)


def test_a_chunk_of_a_large_vocabulary_stays_within_its_bound() -> None:
    assert chunk_rows(1024) == 9216
    assert chunk_rows(151_936) * 151_936 <= MAX_ENTRIES
    assert chunk_rows(10**9) == 1


VALUES = torch.tensor([1.0, 2.0, 4.0, math.inf, 8.0])
WEIGHTS = torch.tensor([1.0, 1.0, 0.5, 0.0, 1.0])
MASK = torch.tensor([True, True, True, False, True])
SEQUENCE = torch.tensor([0, 0, 1, 1, 2])


def test_positions_outside_the_mask_add_nothing_even_where_their_loss_is_infinite() -> None:
    """I31."""
    assert token_mean(VALUES, WEIGHTS, MASK, SEQUENCE, 3, tokens=4, sequences=3).item() == 13 / 4
    assert seq_mean(VALUES, WEIGHTS, MASK, SEQUENCE, 3, tokens=4, sequences=3).item() == pytest.approx(
        (1.5 + 2 + 8) / 3
    )


def test_a_token_of_weight_zero_does_not_make_its_sequence_shorter() -> None:
    values, weights = torch.tensor([3.0, 5.0]), torch.tensor([2.0, 0.0])
    inside = torch.tensor([True, True])
    assert seq_mean(values, weights, inside, torch.tensor([0, 0]), 1, tokens=2, sequences=1).item() == 3.0


@pytest.mark.parametrize("name", sorted(AGGREGATES))
def test_an_empty_mask_gives_zero_with_a_gradient_path(name: str) -> None:
    values = torch.tensor([1.0, math.inf], requires_grad=True)
    total = AGGREGATES[name](
        values, torch.zeros(2), torch.zeros(2).bool(), torch.zeros(2).long(), 1, tokens=0, sequences=0,
        **({"budget": 9} if name == "sum_const" else {}),
    )  # fmt: skip
    total.backward()

    assert total.item() == 0.0
    assert values.grad.tolist() == [0.0, 0.0]


def test_sums_within_sequences() -> None:
    assert sequence_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2]), 4).tolist() == [2, 0, 5, 0]


def test_a_mask_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask has shape \(1,\) for values of \(2,\)"):
        masked_sum(torch.zeros(2), torch.ones(1, dtype=torch.bool))


def test_targets_are_fp32_distributions_without_gradient() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.bfloat16, requires_grad=True)
    sharp = TARGETS["temper"](logits, logits, None, temperature=0.5)
    plain = TARGETS["q"](logits, logits, None)

    assert plain.dtype == sharp.dtype == torch.float32
    assert not plain.requires_grad
    assert not sharp.requires_grad
    torch.testing.assert_close(sharp, torch.log_softmax(2 * plain, dim=-1))
    torch.testing.assert_close(TARGETS["temper"](logits, logits, None, temperature=1.0), plain)


def test_extrapolation_makes_larger_what_the_context_changed() -> None:
    """Two ids: version 0 gives (0.99, 0.01), the teacher (0.75, 0.25). q^1.25 / p0^0.25 is (0.6997, 0.5590): 0.4441."""
    reference = torch.tensor([[0.99, 0.01]]).log()
    teacher = torch.tensor([[0.75, 0.25]]).log()

    target = TARGETS["extrap"](teacher, teacher, reference, coef=1.25)

    torch.testing.assert_close(target.exp(), torch.tensor([[0.5559, 0.4441]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        TARGETS["extrap"](teacher, teacher, reference, coef=1.0), TARGETS["q"](teacher, teacher, None)
    )
    torch.testing.assert_close(TARGETS["extrap"](reference, reference, reference, coef=1.25), reference)
    with pytest.raises(ValueError, match="ref_hidden"):
        TARGETS["extrap"](teacher, teacher, None, coef=1.25)
