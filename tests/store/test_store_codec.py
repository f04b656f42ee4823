import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.store import codec

UINT32 = st.integers(0, 2**32 - 1)


@given(st.lists(st.one_of(st.integers(0, 255), st.integers(0, 2**17), UINT32), max_size=700))
def test_ids_come_back_as_they_went(ids: list[int]) -> None:
    assert codec.unpack_ids(codec.pack_ids(ids)) == tuple(ids)


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=50))
def test_float32_logprobs_come_back_bit_for_bit(values: list[float]) -> None:
    assert codec.unpack_floats(codec.pack_floats(values)) == tuple(values)


def test_a_logprob_of_minus_infinity_survives() -> None:
    assert codec.unpack_floats(codec.pack_floats([-math.inf])) == (-math.inf,)


def test_a_double_is_rounded_to_float32() -> None:
    assert codec.unpack_floats(codec.pack_floats([-0.1])) == (-0.10000000149011612,)


@given(st.text(st.characters(exclude_categories=())))
def test_texts_come_back_even_with_lone_surrogates(text: str) -> None:
    assert codec.unpack_text(codec.pack_text(text)) == text


def test_small_ids_take_one_byte_and_a_constant_stream_almost_nothing() -> None:
    assert len(codec.pack_ids([1, 255])) == 3
    assert len(codec.pack_ids([151_936] * 200)) == 9
    assert codec.pack_ids([]) == b""


def test_2000_ids_of_a_large_vocabulary_take_less_than_20_bits_each() -> None:
    ids = [(index * 2654435761) % 151_936 for index in range(2000)]

    assert len(codec.pack_ids(ids)) * 8 / 2000 < 20


@pytest.mark.parametrize("wrong", [[-1], [2**32]])
def test_an_id_that_is_no_uint32_is_refused(wrong: list[int]) -> None:
    with pytest.raises(ValueError, match="outside"):
        codec.pack_ids(wrong)


SPLIT = codec.pack_ids(range(70_000, 70_300))


def test_ids_of_a_large_vocabulary_keep_their_low_planes_as_they_are() -> None:
    assert SPLIT[0] == 3 | codec.SPLIT
    assert bytes(number & 255 for number in range(70_000, 70_300)) in SPLIT
    assert codec.unpack_ids(SPLIT) == tuple(range(70_000, 70_300))


@pytest.mark.parametrize(
    "damaged",
    [b"\x00abc", b"\x03abcd", b"\x0babc", b"\xff\x00", b"\x1cabc", SPLIT[:-1], SPLIT + b"x", SPLIT[:9]],
)
def test_a_damaged_id_blob_raises_instead_of_giving_other_ids(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="id blob"):
        codec.unpack_ids(damaged)


def test_a_damaged_text_blob_raises() -> None:
    blob = bytearray(codec.pack_text("the same words again and again " * 20))
    blob[10] ^= 1

    with pytest.raises(ValueError, match="text blob"):
        codec.unpack_text(bytes(blob))


def test_json_keeps_the_order_of_keys_because_templates_render_it() -> None:
    value = {"b": 1, "a": {"z": "é", "y": None}}

    assert codec.to_json(value) == '{"b":1,"a":{"z":"é","y":null}}'
    assert list(json.loads(codec.to_json(value))) == ["b", "a"]


ROW = (1, 1.0, "1", b"1", None)


@pytest.mark.parametrize(
    "changed",
    [
        (1, 1.0, "1", "1", None),
        (1, 1.0, b"1", b"1", None),
        (1.0, 1.0, "1", b"1", None),
        (1, 1.0, "1", b"1", 0),
        (1, 1.0, "1", b"1", ""),
        (1, 1.0, "1", b"2", None),
        (1.0, 1, "1", b"1", None),
        (1, 1.0, "1", b"1"),
    ],
)
def test_a_digest_changes_with_every_value_type_and_order(changed: tuple[object, ...]) -> None:
    assert codec.digest(ROW) == codec.digest(list(ROW))
    assert codec.digest(changed) != codec.digest(ROW)


def test_a_digest_knows_where_one_blob_ends_and_the_next_begins() -> None:
    assert codec.digest([b"ab", b"c"]) != codec.digest([b"a", b"bc"])


def test_a_column_text_has_no_lone_surrogate_and_keeps_all_else() -> None:
    assert codec.storable("a\ud800b") == "a\ufffdb"
    assert codec.storable("größe 😀") == "größe 😀"
