"""Conversations are stored once, however often a client resends them, and come back as they were."""

import asyncio
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import conversation, make_completion, make_turn, record, rows

from agentrl.store.records import MAX_DEPTH, PromptCache
from agentrl.store.signal_log import SignalLog
from agentrl.types import (
    NextState,
)


async def test_a_conversation_is_stored_once_however_often_it_is_resent(tmp_path: Path) -> None:
    turns = conversation(20)
    async with await SignalLog.open(tmp_path) as log:
        await record(log, *turns)

        assert [await log.turn(turn.id) for turn in turns] == turns
    # 1 + 19 * 2 messages; without sharing it would be 400.
    assert rows(tmp_path, "SELECT count(*) FROM messages") == [(39,)]
    sizes = rows(tmp_path, "SELECT length(prompt_ids) FROM turns ORDER BY seq")
    assert sizes[0][0] > 100
    assert max(size for (size,) in sizes[1:]) <= 5


async def test_forks_share_what_came_before_the_fork(tmp_path: Path) -> None:
    start = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    left = make_turn("left", messages=(*start, {"role": "user", "content": "c"}))
    right = make_turn("right", messages=(*start, {"role": "user", "content": "d"}))
    async with await SignalLog.open(tmp_path) as log:
        await record(log, left, right)

        assert (await log.counts())["messages"] == 4
        assert await log.turn("left") == left
        assert await log.turn("right") == right


async def test_the_same_words_after_other_words_are_another_message_with_the_same_content(
    tmp_path: Path,
) -> None:
    same = {"role": "user", "content": "yes"}
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn("t1", messages=(same, same)))

    assert rows(tmp_path, "SELECT count(*), count(DISTINCT content) FROM messages") == [(2, 1)]


async def test_a_tool_result_is_stored_once_as_next_state_and_as_message(tmp_path: Path) -> None:
    result = {"role": "tool", "content": "a long result " * 100}
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn("t1"))
        await log.record_next_state(NextState(turn_id="t1", messages=(result,)))
        before = rows(tmp_path, "SELECT count(*) FROM contents")
        await record(log, make_turn("t2", messages=(*make_turn("t1").messages, result)))

    assert rows(tmp_path, "SELECT count(*) FROM contents") == before


async def test_two_scopes_that_say_the_same_share_no_row(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(
            log, make_turn("t1", scope="a"), make_turn("t2", scope="b", messages=make_turn("t1").messages)
        )

    assert rows(tmp_path, "SELECT count(*) FROM messages") == [(2,)]
    left, right = rows(tmp_path, "SELECT tip, tools, sampling FROM turns")
    assert all(one != other for one, other in zip(left, right, strict=True))


async def test_a_prompt_is_never_stored_against_a_turn_of_another_scope(tmp_path: Path) -> None:
    first, second = conversation(2)
    async with await SignalLog.open(tmp_path) as log:
        await record(log, first, replace(second, scope="other"))

        assert await log.turn(second.id) == replace(second, scope="other")
    assert rows(tmp_path, "SELECT prompt_base FROM turns") == [(None,), (None,)]


async def test_a_prompt_that_does_not_extend_its_parent_is_stored_whole(tmp_path: Path) -> None:
    first = make_turn("t1")
    compacted = make_turn("t2", parent="t1", prompt_ids=(1, 2, 3, 7, 9))
    async with await SignalLog.open(tmp_path) as log:
        await record(log, first, compacted)

        assert await log.turn("t2") == compacted
    assert rows(tmp_path, "SELECT prompt_base FROM turns") == [(None,), (None,)]


async def test_reading_a_turn_follows_a_bounded_number_of_rows(tmp_path: Path) -> None:
    turns = conversation(MAX_DEPTH + 10)
    async with await SignalLog.open(tmp_path) as log:
        await record(log, *turns)

        assert await log.turn(turns[-1].id) == turns[-1]
    depths = [depth for (depth,) in rows(tmp_path, "SELECT prompt_depth FROM turns ORDER BY seq")]
    assert depths == [*range(MAX_DEPTH), *range(10)]


async def test_a_log_opened_anew_goes_on_with_its_conversations(tmp_path: Path) -> None:
    turns = conversation(6)
    for turn in turns:
        async with await SignalLog.open(tmp_path) as log:
            await record(log, turn)
            assert await log.turn(turn.id) == turn

    assert rows(tmp_path, "SELECT max(prompt_depth) FROM turns") == [(5,)]


def test_the_prompt_cache_keeps_the_newest_within_its_bound() -> None:
    cache = PromptCache(max_bytes=10)
    cache.put("a", b"12345")
    cache.put("b", b"12345")
    cache.put("a", b"1234")
    cache.put("c", b"123")

    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (b"1234", None, b"123")


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_tree_of_turns_comes_back(tmp_path_factory, data) -> None:
    """Prompts that extend, almost extend, or have nothing to do with their parents."""
    turns: list = []
    for index in range(data.draw(st.integers(1, 8))):
        parent = data.draw(st.sampled_from([None, *turns]))
        ids = st.lists(st.integers(0, 300), max_size=5).map(tuple)
        start = () if parent is None else (*parent.prompt_ids, *parent.completion.token_ids)
        if start and data.draw(st.booleans()):
            start = start[:-1]
        turns.append(
            make_turn(
                f"t{index}",
                parent=None if parent is None else parent.id,
                prompt_ids=(*start, *data.draw(ids)),
                completion=make_completion(data.draw(ids)),
            )
        )

    async def check() -> None:
        async with await SignalLog.open(tmp_path_factory.mktemp("tree")) as log:
            await record(log, *turns)
            assert [await log.turn(turn.id) for turn in turns] == turns

    asyncio.run(check())
