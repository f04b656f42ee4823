"""Conversations that go on from a prompt in which lessons stand."""

from pathlib import Path

from server_house import BASH, decode
from shown_house import (
    ERROR,
    LESSON,
    begin,
    corrected,
    goes_on,
    history,
    probed,
    session,
    showing,
    shown,
    stand,
)

from agentrl.store.learning_log import LearningLog
from agentrl.text.turns import without_spans
from agentrl.types import LessonState, TurnKind


async def test_a_conversation_keeps_the_lesson_it_began_with_and_later_ones_begin_without_what_was_learned(
    tmp_path: Path,
) -> None:
    async with showing(tmp_path) as house:
        lesson = await corrected(house, tmp_path, session(tmp_path, "first"))
        await stand(house, 1)
        name = session(tmp_path, "next")
        first = await begin(house, name)
        probed(tmp_path, lesson)
        await stand(house, 0)
        second = await goes_on(house, first, f"/s/{name}")
        later = await begin(house, session(tmp_path, "later"))

        before = await house.turn(first.headers["X-Turn-Id"])
        after = await house.turn(second.headers["X-Turn-Id"])
        assert shown(second) == shown(first) == lesson
        assert after.prompt_built_by == "extended"
        known = before.prompt_ids + before.completion.token_ids
        assert after.prompt_ids[: len(known)] == known
        assert (after.block_spans, after.shown_lessons) == (before.block_spans, (lesson,))
        assert shown(later) is None
        assert LESSON not in decode((await house.turn(later.headers["X-Turn-Id"])).prompt_ids)


async def test_a_conversation_keeps_its_lesson_over_a_restart_and_when_none_are_shown_any_more(
    tmp_path: Path,
) -> None:
    async with showing(tmp_path) as house:
        lesson = await corrected(house, tmp_path, session(tmp_path, "first"))
        await stand(house, 1)
        name = session(tmp_path, "next")
        first = await begin(house, name)
    async with showing(tmp_path, learn__show_lessons=False) as house:
        second = await goes_on(house, first, f"/s/{name}")
        turn = await house.turn(second.headers["X-Turn-Id"])

        assert (turn.prompt_built_by, turn.shown_lessons) == ("extended", (lesson,))


async def test_a_prompt_written_anew_holds_what_is_still_approved(tmp_path: Path) -> None:
    async with showing(tmp_path) as house:
        lesson = await corrected(house, tmp_path, session(tmp_path, "first"))
        await stand(house, 1)
        name = session(tmp_path, "next")
        first = await begin(house, name)
        said = [{"role": "system", "content": "You are another agent."}, *history(first)[1:]]
        options = {"path": f"/s/{name}", "tools": [BASH], "headers": {"X-Task-Key": "t"}}
        second = await house.ask(*said, **options)
        with LearningLog(tmp_path) as log:
            log.decide([lesson], LessonState.RETIRED)
        await stand(house, 0)
        said[0] = {"role": "system", "content": "You are a third agent."}
        third = await house.ask(*said, **options)

        anew = await house.turn(second.headers["X-Turn-Id"])
        assert anew.prompt_built_by == "rendered: the system prompt or the tools changed"
        assert anew.shown_lessons == (lesson,)
        assert decode(anew.prompt_ids).count(ERROR) == 1
        assert (await house.turn(third.headers["X-Turn-Id"])).shown_lessons == ()


async def test_an_evaluation_that_goes_on_from_a_shown_conversation_reads_it_without_the_lesson(
    tmp_path: Path,
) -> None:
    async with showing(tmp_path) as house:
        await corrected(house, tmp_path, session(tmp_path, "first"))
        await stand(house, 1)
        name = session(tmp_path, "next")
        first = await begin(house, name)
        answer = await goes_on(house, first, f"/s/{name}/eval")

        before = await house.turn(first.headers["X-Turn-Id"])
        turn = await house.turn(answer.headers["X-Turn-Id"])
        known = without_spans(before.prompt_ids, before.block_spans) + before.completion.token_ids
        assert turn.prompt_ids[: len(known)] == known
        assert turn.prompt_built_by == "rendered: without the lessons of the answered prompt"
        assert (turn.block_spans, turn.shown_lessons) == ((), ())


async def test_a_request_that_names_a_version_goes_on_from_a_shown_conversation_without_the_lesson(
    tmp_path: Path,
) -> None:
    async with showing(tmp_path) as house:
        await corrected(house, tmp_path, session(tmp_path, "first"))
        await stand(house, 1)
        name = session(tmp_path, "next")
        first = await begin(house, name)
        answer = await house.ask(
            *history(first), path=f"/s/{name}", tools=[BASH], headers={"X-Task-Key": "t"}, model="nano@0"
        )

        before = await house.turn(first.headers["X-Turn-Id"])
        turn = await house.turn(answer.headers["X-Turn-Id"])
        known = without_spans(before.prompt_ids, before.block_spans) + before.completion.token_ids
        assert turn.prompt_ids[: len(known)] == known
        assert (turn.parent, turn.block_spans, turn.shown_lessons) == (before.id, (), ())


async def test_a_side_request_that_goes_on_from_a_shown_conversation_reads_its_prompt_on_and_says_so(
    tmp_path: Path,
) -> None:
    async with showing(tmp_path) as house:
        lesson = await corrected(house, tmp_path, session(tmp_path, "first"))
        await stand(house, 1)
        name = session(tmp_path, "next")
        first = await begin(house, name)
        headers = {"X-Task-Key": "t", "X-Turn-Type": "side"}
        answer = await house.ask(*history(first), path=f"/s/{name}", tools=[BASH], headers=headers)

        before = await house.turn(first.headers["X-Turn-Id"])
        turn = await house.turn(answer.headers["X-Turn-Id"])
        known = before.prompt_ids + before.completion.token_ids
        assert turn.prompt_ids[: len(known)] == known
        assert (turn.kind, turn.prompt_built_by) == (TurnKind.SIDE, "extended")
        assert (turn.block_spans, turn.shown_lessons) == (before.block_spans, (lesson,))


async def test_a_conversation_that_has_grown_goes_on_without_its_lesson_rather_than_without_room(
    tmp_path: Path,
) -> None:
    async with showing(tmp_path) as house:
        await corrected(house, tmp_path, session(tmp_path, "first"))
        await stand(house, 1)
        name = session(tmp_path, "next")
        first = await begin(house, name)
        turn = await house.turn((await goes_on(house, first, f"/s/{name}")).headers["X-Turn-Id"])
    [(start, end)] = turn.block_spans
    length = end - start
    for room, built_by in (
        (2 * length, "extended"),
        (2 * length - 1, "rendered: no room for the lessons of the answered prompt"),
        (1, "rendered: no room for the lessons of the answered prompt"),
    ):
        max_len = len(turn.prompt_ids) - length + room
        async with showing(tmp_path, engine_options={"max_len": max_len}) as house:
            answer = await goes_on(house, first, f"/s/{name}")
            again = await house.turn(answer.raise_for_status().headers["X-Turn-Id"])
            assert again.prompt_built_by == built_by
            bare = without_spans(turn.prompt_ids, turn.block_spans)
            assert again.prompt_ids == (turn.prompt_ids if built_by == "extended" else bare)
            assert bool(again.shown_lessons) is (built_by == "extended")
