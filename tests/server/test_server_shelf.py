"""What is read of lessons for those who show them: whose word counts when, what is kept, and who waits for it."""

import asyncio
import sys
from pathlib import Path
from types import FrameType

import pytest
from server_house import MODEL, serving
from shown_house import (
    begin,
    corrected,
    imported,
    probed,
    session,
    showing,
    shown,
    stand,
    told,
    wished,
)

from agentrl.config import load_config
from agentrl.signals.lessons import gather
from agentrl.store.learning_log import LearningLog
from agentrl.text.renderer import load_renderer
from agentrl.types import LessonState, Signal, SignalSource
from server.shelf import Shelf, look
from server.shown import ShownLessons


async def test_a_hint_counts_once_before_and_after_the_learner_has_gathered_it(tmp_path: Path) -> None:
    async with showing(tmp_path) as house:
        turn_id = await wished(house, session(tmp_path, "first", shows=False))
        with LearningLog(tmp_path, read_only=True) as reader, LearningLog(tmp_path) as log:
            before = look(reader, Shelf(), policy="default", approve="auto")
            gather(log, "default", "auto")
            after = look(reader, before, policy="default", approve="auto")
            log.add_lessons([imported("L1", "use show", 1.0)])
            later = look(reader, after, policy="default", approve="auto")

        assert later.given.pop("L1") == ()
        for shelf in (before, after, later):
            assert [[said.turn_id for said in given] for given in shelf.given.values()] == [[turn_id]]
        assert (len(before.waiting), after.waiting) == (1, {})


async def test_what_a_tool_printed_waits_until_it_was_gathered_and_a_users_word_does_not(
    tmp_path: Path,
) -> None:
    async with showing(tmp_path) as house:
        printed = await told(house, session(tmp_path, "tool", shows=False))
        said = await wished(house, session(tmp_path, "user", shows=False))
        with LearningLog(tmp_path, read_only=True) as reader, LearningLog(tmp_path) as log:
            before = look(reader, Shelf(), policy="default", approve="auto")
            gather(log, "default", "auto")
            after = look(reader, before, policy="default", approve="auto")

        assert [lesson.turn_ids for lesson in before.approved.values()] == [(said,)]
        assert {one.turn_id for given in before.given.values() for one in given} == {said}
        assert {one.turn_id for given in after.given.values() for one in given} == {printed, said}


async def calls_of_a_look(run_dir: Path, number: int) -> int:
    """How often signals/lessons.py calls its own functions for so many waiting words beside as many lessons."""
    num_calls = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal num_calls
        num_calls += event == "call" and frame.f_code.co_filename.endswith("signals/lessons.py")

    async with showing(run_dir, learn__show_lessons=False) as house:
        turn_id = (await begin(house, "one")).headers["X-Turn-Id"]
        for one in range(number):
            hint = f"cat does not exist; use zorp{one}"
            await house.runtime.log.record_signal(
                Signal(turn_id=turn_id, source=SignalSource.USER, hint=hint)
            )
        with LearningLog(run_dir) as log:
            log.add_lessons([imported(f"L{one}", f"matter{one}", one + 1.0) for one in range(number)])
            sys.setprofile(count)
            shelf = look(log, Shelf(), policy="default", approve="auto")
            sys.setprofile(None)
    assert (len(shelf.waiting), len(shelf.approved)) == (number, 2 * number)
    return num_calls


async def test_many_waiting_words_make_no_single_one_dearer(tmp_path: Path) -> None:
    few = await calls_of_a_look(tmp_path / "few", 40)
    many = await calls_of_a_look(tmp_path / "many", 160)

    assert many <= 4.2 * few


async def test_a_waiting_word_that_says_what_a_retired_lesson_said_is_not_shown(tmp_path: Path) -> None:
    async with showing(tmp_path) as house:
        await wished(house, session(tmp_path, "first", shows=False))
        with LearningLog(tmp_path, read_only=True) as reader, LearningLog(tmp_path) as log:
            gather(log, "default", "auto")
            log.decide([lesson.id for lesson in log.lessons()], LessonState.RETIRED)
            await wished(house, session(tmp_path, "second", shows=False))
            shelf = look(reader, Shelf(), policy="default", approve="auto")

        assert (len(shelf.waiting), shelf.approved, shelf.given) == (1, {}, {})


async def test_the_hints_of_a_lesson_are_kept_while_it_is_approved_and_read_again_when_it_is_once_more(
    tmp_path: Path,
) -> None:
    async with showing(tmp_path) as house:
        lesson = await corrected(house, tmp_path, session(tmp_path, "first"))
        with LearningLog(tmp_path, read_only=True) as reader, LearningLog(tmp_path) as log:
            shelf, kept = Shelf(), []
            for state in (LessonState.APPROVED, LessonState.RETIRED, LessonState.APPROVED):
                log.decide([lesson], state)
                shelf = look(reader, shelf, policy="default", approve="auto")
                kept.append([(name, len(given)) for name, given in shelf.gathered.items()])

        assert kept == [[(lesson, 1)], [], [(lesson, 1)]]


async def test_a_request_does_not_wait_for_a_look_that_is_under_way(tmp_path: Path) -> None:
    async with showing(tmp_path) as house:
        lesson = await corrected(house, tmp_path, session(tmp_path, "first"))
        await stand(house, 1)
        log = house.runtime.versions.learning_log()
        assert log is not None
        with log._open():  # whoever looks, in another thread, waits from here on
            probed(tmp_path, lesson)
            first = await begin(house, session(tmp_path, "next"))
        assert shown(first) == lesson
        await stand(house, 0)


async def test_files_that_cannot_be_read_hold_up_no_request_and_are_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config(None, [f"run_dir={tmp_path}", "learn.show_lessons=true"])
    async with serving(tmp_path, []):
        closed = LearningLog(tmp_path)
    closed.close()
    lessons = ShownLessons(config, log=lambda: closed, writer=load_renderer(MODEL), secret=b"s")
    await lessons.look()
    await lessons.look()

    assert await lessons.again(["L1"]) == []
    assert [one.message for one in caplog.records if one.name == "server.shown"] == [
        "which lessons there are cannot be read: the learning log is closed"
    ]


async def test_before_the_first_look_a_conversation_waits_for_it(tmp_path: Path) -> None:
    config = load_config(None, [f"run_dir={tmp_path}", "learn.show_lessons=true"])
    lessons = ShownLessons(config, log=lambda: None, writer=load_renderer(MODEL), secret=b"s")
    asked = asyncio.ensure_future(lessons.again(["L1"]))
    await asyncio.sleep(0)
    assert not asked.done()
    await lessons.look()

    assert await asked == []
