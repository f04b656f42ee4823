"""How many tokens the pointwise clip of a dense divergence cuts: `num_clipped_kd`."""

import pytest
import torch
from losses_cases import full_batch, recipe, run

TRAINED = [0, 1, 2, 3, 5]


@pytest.mark.parametrize("clip", [0.01, 0.05, 0.3, 1.0, 1e9])
def test_every_token_with_a_term_above_the_pointwise_clip_is_counted_once(clip: float) -> None:
    batch = full_batch()
    log_p, log_q = (torch.log_softmax(states, dim=-1) for states in (batch.hidden, batch.teacher_hidden))
    terms = (log_q.exp() * (log_q - log_p))[TRAINED]
    by_hand = sum(any(term > clip for term in position) for position in terms.tolist())

    output = run(recipe("opsd", **{"estimator.pointwise_clip": clip}), batch)

    assert output.metrics["num_clipped_kd"] == by_hand
    assert output.metrics["num_tokens"] == 5
    if clip in (0.01, 1e9):
        assert by_hand == {0.01: 5, 1e9: 0}[clip]


def test_chunks_count_the_same_and_without_a_clip_nothing_is_counted() -> None:
    made, batch = recipe("opsd", **{"estimator.pointwise_clip": 0.3}), full_batch()
    counts = [run(made, batch, chunk_size=size).metrics["num_clipped_kd"] for size in (1, 2, 100)]

    assert counts[0] == counts[1] == counts[2] > 0
    assert run(recipe("hint_opsd"), batch).metrics["num_clipped_kd"] == 0
