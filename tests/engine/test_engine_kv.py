from __future__ import annotations

import torch

from agentrl.engine.kv import ENTRIES_PER_KEY, Conversations, KVShape, Rows, common_prefix, few_sizes

SHAPE = KVShape(num_layers=2, num_heads=2, head_dim=4, dtype=torch.float32, device=torch.device("cpu"))


def saved(length: int, value: float = 1.0) -> torch.Tensor:
    return torch.full((2, 2, 2, length, 4), value)


def test_rows_keep_their_contents_when_they_grow() -> None:
    rows = Rows(SHAPE)
    rows.reserve(1, 10)
    rows.load(0, saved(10), 10)

    rows.reserve(3, 300)

    assert (rows.num_rows, rows.length) == (4, 320)
    assert torch.equal(rows.save(0, 10), saved(10))
    assert float(rows.storage.sum()) == 2 * 2 * 2 * 10 * 4


def test_what_is_written_flat_is_read_by_row() -> None:
    rows = Rows(SHAPE)
    rows.reserve(2, 10)
    row, head, position = 1, 1, 7

    rows.flat_keys[1][(row * 2 + head) * rows.length + position] = 5.0

    assert torch.equal(rows.keys[1][row * 2 + head, position], torch.full((4,), 5.0))
    assert torch.equal(rows.save(row, 10)[1, 0, head, position], torch.full((4,), 5.0))


def test_rows_swap_and_move_and_are_erased() -> None:
    rows = Rows(SHAPE)
    rows.reserve(2, 10)
    rows.load(0, saved(10, 1.0), 10)
    rows.load(1, saved(10, 2.0), 10)

    rows.swap(0, 1, 10)
    assert torch.equal(rows.save(0, 10), saved(10, 2.0))
    assert torch.equal(rows.save(1, 10), saved(10, 1.0))

    rows.move(0, 1, 10)
    assert torch.equal(rows.save(1, 10), saved(10, 2.0))

    rows.erase(1)
    assert not rows.save(1, 10).any()


def test_sizes_are_few_and_waste_at_most_a_quarter() -> None:
    assert [few_sizes(number) for number in (0, 1, 8, 9, 16, 17, 32, 33, 257)] == [
        0,
        1,
        8,
        10,
        16,
        20,
        32,
        40,
        320,
    ]
    assert len({few_sizes(number) for number in range(1, 4097)}) == 44
    assert all(number <= few_sizes(number) < 1.25 * number for number in range(1, 4097))


def test_common_prefix_is_exact_at_every_length() -> None:
    base = list(range(20))
    for length in range(20):
        other = [*base[:length], -1, *base[length + 1 :]]
        assert common_prefix(base, other, 100) == length
        assert common_prefix(tuple(other), base, 100) == length
    assert common_prefix(base, base, 100) == 20
    assert common_prefix(base, base, 7) == 7
    assert common_prefix([], base, 100) == 0


def test_a_conversation_is_found_by_its_own_key_only() -> None:
    kept = Conversations(100)
    kept.store("a", 0, (1, 2, 3), saved(3))

    assert [(entry.version, length) for entry, length in kept.match("a", [1, 2, 9, 9])] == [(0, 2)]
    assert kept.match("b", [1, 2, 3, 4]) == []
    assert kept.match("", [1, 2, 3, 4]) == []


def test_the_last_prompt_id_is_never_reused() -> None:
    kept = Conversations(100)
    kept.store("a", 0, (1, 2, 3), saved(3))

    assert kept.match("a", [1, 2, 3])[0][1] == 2
    assert kept.match("a", [1]) == []


def test_an_empty_key_keeps_nothing() -> None:
    kept = Conversations(100)
    kept.store("", 0, (1, 2, 3), saved(3))

    assert len(kept) == 0


def test_a_turn_replaces_the_one_it_extends_and_branches_stay() -> None:
    kept = Conversations(100)
    kept.store("a", 0, (1, 2), saved(2))
    kept.store("a", 0, (1, 2, 3), saved(3))
    kept.store("a", 0, (1, 9), saved(2))

    assert kept.num_tokens == 5
    assert [entry.token_ids for entry, _ in kept.match("a", [1, 2, 3, 4])] == [(1, 2, 3), (1, 9)]


def test_branches_of_one_key_are_bounded() -> None:
    kept = Conversations(1000)
    for i in range(3 * ENTRIES_PER_KEY):
        kept.store("a", 0, (1, 100 + i), saved(2))

    assert len(kept) == ENTRIES_PER_KEY
    assert kept.num_tokens == 2 * ENTRIES_PER_KEY


def test_the_least_recently_used_goes_first_and_the_bound_holds() -> None:
    kept = Conversations(10)
    kept.store("a", 0, (1, 2, 3, 4), saved(4))
    kept.store("b", 0, (1, 2, 3, 4), saved(4))
    kept.touch(kept.match("a", [1, 2, 3, 4, 5])[0][0])

    kept.store("c", 0, (1, 2, 3, 4), saved(4))

    assert kept.num_tokens == 8
    assert kept.match("b", [1, 2, 3, 4, 5]) == []
    assert kept.match("a", [1, 2, 3, 4, 5])


def test_a_turn_longer_than_the_bound_is_not_kept() -> None:
    kept = Conversations(3)
    kept.store("a", 0, (1, 2, 3, 4), saved(4))

    assert (len(kept), kept.num_tokens) == (0, 0)


def test_a_version_that_goes_leaves_ids_but_no_keys_and_values() -> None:
    kept = Conversations(10)
    kept.store("a", 0, (1, 2, 3), saved(3))
    kept.store("a", 1, (1, 2), saved(2))

    kept.forget_version(0)

    found = kept.match("a", [1, 2, 3, 4])
    assert [(entry.version, entry.saved is None, length) for entry, length in found] == [
        (0, True, 3),
        (1, False, 2),
    ]
    assert (len(kept), kept.num_tokens, kept.num_ghost_tokens) == (1, 2, 3)


def test_ghosts_are_bounded_too() -> None:
    kept = Conversations(10)
    for i in range(50):
        kept.store(f"k{i}", i, (1, 2, 3), saved(3))
        kept.forget_version(i)

    assert kept.num_ghost_tokens <= 10
    assert len(kept.entries) == len(kept.by_key) == 3
