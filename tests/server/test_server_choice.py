"""What of a sampled choice may leave when, without a server around it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_house import BASH, MODEL, calls, says

from agentrl.engine.base import Sampled
from agentrl.text.renderer import load_renderer
from agentrl.text.reply import Delta
from agentrl.types import FinishReason, VersionSpan
from server.choice import CallGate, Choice, StopTrimmer
from server.events import Piece

RENDERER = load_renderer(MODEL)


def sampled(token_id: int, version: int = 0, raw: float | None = -0.5) -> Sampled:
    return Sampled(token_id=token_id, logprob=-0.25, raw_logprob=raw, num_allowed=3, version=version)


def texts(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@given(
    st.text(alphabet="abX\n", max_size=30),
    st.lists(st.integers(1, 4), max_size=30),
    st.lists(st.text(alphabet="abX", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_a_trimmed_stream_is_the_text_up_to_the_first_stop_string(
    text: str, sizes: list[int], stop: list[str]
) -> None:
    trimmer = StopTrimmer(stop)
    pieces, rest = [], text
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    out = "".join(texts(trimmer.feed(Delta(text=piece))) for piece in [*pieces, rest])

    assert out + texts(trimmer.rest()) == trimmer.cut(text)
    assert not any(one in trimmer.cut(text) for one in stop)


def test_the_stop_string_that_is_complete_first_ends_the_text() -> None:
    assert StopTrimmer(["X", "aXX"]).cut("aXX") == "a"
    assert StopTrimmer(["ab", "b"]).cut("ab") == ""


def test_text_that_only_began_like_a_stop_string_is_released_before_a_call() -> None:
    trimmer = StopTrimmer(["Observation:"])

    assert texts(trimmer.feed(Delta(text="See Obs"))) == "See "
    call = Delta(tool_index=0, tool_name="bash", arguments="{}")
    assert [delta.text or delta.tool_name for delta in trimmer.feed(call)] == ["Obs", "bash"]


def test_nothing_passes_the_gate_behind_a_call() -> None:
    gate = CallGate()
    call = Delta(tool_index=0, tool_name="bash", arguments="{}")

    assert gate.pass_on([Delta(text="a"), call, Delta(text="b")]) == [Delta(text="a")]
    assert gate.pass_on([Delta(text="c")]) == []
    assert gate.rest() == [call, Delta(text="b"), Delta(text="c")]


@pytest.mark.parametrize("reply", [says("Hello there."), calls("ls", "pwd", text="Both.")])
def test_pieces_and_reply_say_the_same(reply: list[int]) -> None:
    choice = Choice(0, "turn1", RENDERER, [BASH])
    passed: list[Piece] = [piece for token_id in reply for piece in choice.feed(sampled(token_id))]
    held, told, _ = choice.finish()

    assert "".join(piece.delta.text for piece in passed + held) == told.text
    opened = [piece for piece in held if piece.call_id]
    assert [piece.call_id for piece in opened] == [call.id for call in told.tool_calls]
    assert [call.id for call in told.tool_calls] == [f"callturn1x{i}" for i in range(len(opened))]
    assert all(piece.delta.tool_index is None for piece in passed)


def test_a_completion_is_what_was_sampled_id_by_id() -> None:
    choice = Choice(0, "turn1", RENDERER, [])
    for token_id, version in ((5, 1), (6, 1), (7, 2)):
        choice.feed(sampled(token_id, version))
    completion = choice.completion(FinishReason.STOP)

    assert completion.token_ids == (5, 6, 7)
    assert completion.logprobs == (-0.25, -0.25, -0.25)
    assert completion.raw_logprobs == (-0.5, -0.5, -0.5)
    assert completion.num_allowed == (3, 3, 3)
    assert completion.version_spans == (
        VersionSpan(version=1, start=0, end=2),
        VersionSpan(version=2, start=2, end=3),
    )


def test_a_stream_of_raw_logprobs_with_a_gap_is_no_stream() -> None:
    choice = Choice(0, "turn1", RENDERER, [])
    choice.feed(sampled(5))
    choice.feed(sampled(6, raw=None))

    assert choice.completion(FinishReason.STOP).raw_logprobs is None


def test_the_tokenizer_of_these_tests_is_in_the_repository() -> None:
    assert Path(MODEL).is_relative_to(Path(__file__).parent)
