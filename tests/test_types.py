import pytest

from agentrl.types import Completion, FinishReason, TrainingSample, VersionSpan


def completion(**changes: object) -> Completion:
    fields: dict[str, object] = {
        "token_ids": (5, 6),
        "logprobs": (-0.5, -0.25),
        "raw_logprobs": None,
        "num_allowed": None,
        "finish_reason": FinishReason.STOP,
        "version_spans": (VersionSpan(version=3, start=0, end=2),),
    }
    return Completion(**(fields | changes))  # type: ignore[arg-type]


def test_a_stream_of_the_wrong_length_is_an_error_with_both_lengths() -> None:
    with pytest.raises(ValueError, match="logprobs has 3 entries for 2 sampled ids"):
        completion(logprobs=(-0.5, -0.25, 0.0))
    with pytest.raises(ValueError, match="raw_logprobs has 1 entries for 2 sampled ids"):
        completion(raw_logprobs=(-0.5,))


def test_version_spans_must_tile_the_completion() -> None:
    with pytest.raises(ValueError, match="version spans cover 1 of 2"):
        completion(version_spans=(VersionSpan(version=3, start=0, end=1),))
    assert completion().version == 3


def test_a_sample_refuses_streams_that_are_not_aligned_with_its_ids() -> None:
    with pytest.raises(ValueError, match="kd has 1 entries for 2 ids"):
        TrainingSample(
            turn_ids=("t",),
            token_ids=(1, 2),
            loss_mask=(False, True),
            behavior_logprobs=None,
            num_allowed=None,
            teacher=None,
            advantages=None,
            weights={"kd": (1.0,)},
        )
