import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.learner.pack import MIN_PREFIX, MicroBatch, Row, pack, teacher_positions
from agentrl.types import TeacherView


def computed(micros: list[MicroBatch]) -> int:
    return sum(len(micro.prefix) + sum(bucket.rest.numel() for bucket in micro.buckets) for micro in micros)


def predicted(micros: list[MicroBatch]) -> dict[int, tuple[int, ...]]:
    """Slot -> the ids that the hidden state in it has seen."""
    found = {}
    for micro in micros:
        seen = []
        for bucket in micro.buckets:
            width = bucket.rest.shape[1]
            for place in bucket.gather.tolist():
                rest = bucket.rest[place // width].tolist()
                seen.append((*micro.prefix.tolist(), *rest[: place % width + 1]))
        found |= dict(zip(micro.slots.tolist(), seen, strict=True))
    return found


rows_strategy = st.lists(
    st.builds(
        lambda shared, own, trained: Row(
            token_ids=tuple(range(1, 1 + shared)) + tuple(own),
            positions=tuple(sorted({1 + t % (shared + len(own) - 1) for t in trained})),
        ),
        st.integers(1, 40),
        st.lists(st.integers(50, 53), min_size=1, max_size=12),
        st.lists(st.integers(0, 100), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=8,
)


@given(rows=rows_strategy, max_tokens=st.integers(1, 200), share=st.booleans())
@settings(max_examples=200, deadline=None)
def test_every_trained_id_is_predicted_once_from_exactly_the_ids_before_it(
    rows: list[Row], max_tokens: int, share: bool
) -> None:
    found = predicted(pack(rows, max_tokens=max_tokens, share=share))

    assert found == dict(enumerate(row.token_ids[:p] for row in rows for p in row.positions))


@given(rows=rows_strategy, max_tokens=st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_a_micro_batch_keeps_to_the_limit_unless_one_row_alone_passes_it(
    rows: list[Row], max_tokens: int
) -> None:
    for micro in pack(rows, max_tokens=max_tokens):
        num_rows = sum(len(bucket.rest) for bucket in micro.buckets)
        assert num_rows == 1 or computed([micro]) <= max_tokens


@given(rows=rows_strategy)
@settings(max_examples=100, deadline=None)
def test_sharing_never_computes_more_than_one_padded_batch(rows: list[Row]) -> None:
    padded = len(rows) * max(len(row.token_ids) for row in rows)

    assert computed(pack(rows, max_tokens=10_000)) <= padded


def test_a_preamble_common_to_sixteen_turns_is_computed_once() -> None:
    preamble = tuple(range(100))
    rows = [Row(token_ids=(*preamble, 200 + i, 300, 301), positions=(101, 102)) for i in range(16)]

    [micro] = pack(rows, max_tokens=8192)

    assert micro.prefix.tolist() == list(preamble)
    [bucket] = micro.buckets
    assert bucket.rest.shape == (16, 3)
    assert computed(pack(rows, max_tokens=8192, share=False)) == 16 * 103


def test_two_kinds_of_preamble_give_two_prefixes() -> None:
    rows = [
        Row(token_ids=(*range(k, k + 200), 500 + i), positions=(200,)) for k in (0, 1000) for i in range(4)
    ]

    assert sorted(micro.prefix[0].item() for micro in pack(rows, max_tokens=8192)) == [0, 1000]


def test_a_prefix_ends_before_the_first_hidden_state_that_is_needed() -> None:
    rows = [
        Row(token_ids=tuple(range(40)), positions=(20,)),
        Row(token_ids=tuple(range(40)), positions=(30,)),
    ]

    [micro] = pack(rows, max_tokens=8192)

    assert len(micro.prefix) == 19


def test_a_short_common_prefix_is_not_split_off() -> None:
    rows = [Row(token_ids=(*range(MIN_PREFIX - 1), 70 + i, 80), positions=(MIN_PREFIX,)) for i in range(4)]

    [micro] = pack(rows, max_tokens=8192)

    assert len(micro.prefix) == 0


def test_the_first_id_of_a_sequence_cannot_be_trained() -> None:
    with pytest.raises(AssertionError, match="predicted by nothing"):
        pack([Row(token_ids=(1, 2), positions=(0, 1))], max_tokens=100)


def test_positions_of_the_teacher_skip_the_inserted_blocks() -> None:
    view = TeacherView(token_ids=(9, 1, 2, 8, 8, 3, 4, 7), inserted_spans=((0, 1), (3, 5), (7, 8)))

    assert teacher_positions(view, (1, 2, 3, 4), (0, 1, 2, 3)) == (1, 2, 5, 6)


def test_a_view_that_does_not_hold_the_samples_ids_is_refused_with_the_place() -> None:
    view = TeacherView(token_ids=(9, 1, 2, 5), inserted_spans=((0, 1),))

    with pytest.raises(ValueError, match="id 5 where the sample has 3 \\(position 2\\)"):
        teacher_positions(view, (1, 2, 3), (2,))
    with pytest.raises(ValueError, match="holds 3 of the sample's 4 ids"):
        teacher_positions(view, (1, 2, 5, 6), (2,))


def test_padding_stands_on_the_right() -> None:
    rows = [Row(token_ids=(1, 2, 3), positions=(1,)), Row(token_ids=(1, 2), positions=(1,))]

    [micro] = pack(rows, max_tokens=100)

    [bucket] = micro.buckets
    assert torch.equal(bucket.rest, torch.tensor([[1, 2, 0], [1, 2, 3]]))


def test_rests_of_very_different_length_stand_in_buckets_of_their_own() -> None:
    short = [Row(token_ids=(*range(100), 200 + i), positions=(100,)) for i in range(8)]
    long = [Row(token_ids=(*range(100), *range(300 + i, 500)), positions=(150,)) for i in range(8)]

    [micro] = pack(short + long, max_tokens=8192)

    assert [len(bucket.rest) for bucket in micro.buckets] == [8, 8]
