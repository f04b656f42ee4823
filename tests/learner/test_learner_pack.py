import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.learner.pack import MIN_PREFIX, MicroBatch, Padding, Row, as_tree, pack, teacher_positions
from agentrl.types import TeacherView


def computed(micros: list[MicroBatch]) -> int:
    return sum(micro.num_ids for micro in micros)


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


@given(rows=rows_strategy)
@settings(max_examples=100, deadline=None)
def test_sharing_never_computes_more_than_one_padded_batch(rows: list[Row]) -> None:
    padded = len(rows) * max(len(row.token_ids) for row in rows)

    for share in ("prefix", "tree"):
        assert computed(pack(rows, max_tokens=10_000, share=share)) <= padded


@given(rows=rows_strategy)
@settings(max_examples=100, deadline=None)
def test_rests_are_a_multiple_of_what_is_asked_for_where_the_model_knows_the_positions(
    rows: list[Row],
) -> None:
    num = sum(len(row.positions) for row in rows)

    micros = pack(rows, max_tokens=96, share="prefix", padding=Padding(multiple_of=16, max_len=52))

    for micro in micros:
        assert micro.num_ids <= 96
        for bucket in micro.buckets:
            whole = len(micro.prefix) + bucket.rest.shape[1]
            assert whole <= 52
            assert bucket.rest.shape[1] % 16 == 0 or whole == 52
    assert sorted(torch.cat([micro.slots for micro in micros]).tolist()) == list(range(num))


def test_a_row_longer_than_a_micro_batch_is_padded_in_one_of_its_own() -> None:
    rows = [Row(token_ids=tuple(range(k, k + 41)), positions=(40,)) for k in (0, 100)]

    micros = pack(rows, max_tokens=20, padding=Padding(multiple_of=16))

    assert [[bucket.rest.shape for bucket in micro.buckets] for micro in micros] == [[(1, 48)], [(1, 48)]]


def test_a_preamble_common_to_sixteen_turns_is_computed_once() -> None:
    preamble = tuple(range(100))
    rows = [Row(token_ids=(*preamble, 200 + i, 300, 301), positions=(101, 102)) for i in range(16)]

    [micro] = pack(rows, max_tokens=8192)

    assert micro.prefix.tolist() == list(preamble)
    [bucket] = micro.buckets
    assert bucket.rest.shape == (16, 2)  # the last id predicts nothing
    assert computed(pack(rows, max_tokens=8192, share="none")) == 16 * 102


def test_two_kinds_of_preamble_give_two_prefixes() -> None:
    rows = [
        Row(token_ids=(*range(k, k + 400), *range(k + i, k + 50)), positions=(430,))
        for k in (0, 1000)
        for i in range(4)
    ]

    assert sorted(micro.prefix[0].item() for micro in pack(rows, max_tokens=8192)) == [0, 1000]


def test_hidden_states_within_the_prefix_are_read_off_the_prefix() -> None:
    rows = [Row(token_ids=(*range(40), 70 + i, 80), positions=(20 + i, 41)) for i in range(4)]

    [micro] = pack(rows, max_tokens=8192)

    assert len(micro.prefix) == 40
    assert micro.prefix_gather.tolist() == [19, 20, 21, 22]
    assert micro.slots.tolist() == [0, 2, 4, 6, 1, 3, 5, 7]


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
    rows = [Row(token_ids=(1, 2, 3, 4), positions=(3,)), Row(token_ids=(1, 5, 6), positions=(2,))]

    [micro] = pack(rows, max_tokens=100, share="prefix")

    [bucket] = micro.buckets
    assert torch.equal(bucket.rest, torch.tensor([[1, 5, 0], [1, 2, 3]]))


def test_a_micro_batch_on_another_device_is_the_same_micro_batch() -> None:
    rows = [Row(token_ids=(*range(20), 70 + i, 80), positions=(5, 21)) for i in range(4)]
    for micro in [*pack(rows, max_tokens=100), as_tree(rows)]:
        there = micro.to(torch.device("cpu"))
        assert torch.equal(there.prefix, micro.prefix)
        assert torch.equal(there.prefix_gather, micro.prefix_gather)
        assert torch.equal(there.slots, micro.slots)
        for bucket, own in zip(there.buckets, micro.buckets, strict=True):
            assert torch.equal(bucket.rest, own.rest)
            assert (bucket.ends is None) == (own.ends is None)


def test_rests_of_very_different_length_stand_in_buckets_of_their_own() -> None:
    short = [Row(token_ids=(*range(100), 200 + i, 0), positions=(101,)) for i in range(8)]
    long = [Row(token_ids=(*range(100), *range(300 + i, 500)), positions=(250,)) for i in range(8)]

    [micro] = pack(short + long, max_tokens=8192)

    assert [len(bucket.rest) for bucket in micro.buckets] == [8, 8]
