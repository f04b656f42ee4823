"""What a hint names, which hints are one lesson, and in which situation it is asked for."""

import asyncio
import hashlib
import json
import sys
from pathlib import Path
from types import FrameType

import pytest

from agentrl.signals.lessons import form_of, gather, lesson_id, names_of, stands_in, without_refused
from agentrl.store.claims import Claimed
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.types import (
    Arm,
    Completion,
    FinishReason,
    Lesson,
    LessonState,
    MatchedBy,
    Purpose,
    Reply,
    Sampling,
    Signal,
    SignalSource,
    ToolCall,
    Turn,
    TurnKind,
    VersionSpan,
)


def called(command: str, name: str = "bash", key: str = "command") -> Reply:
    return Reply(text="", tool_calls=(ToolCall(id="1", name=name, arguments=json.dumps({key: command})),))


def turn(id_: str, request: str, reply: Reply, scope: str = "default") -> Turn:
    return Turn(
        id=id_,
        request_id=id_,
        session=id_,
        scope=scope,
        parent=None,
        matched_by=MatchedBy.NONE,
        kind=TurnKind.MAIN,
        kind_reason="",
        purpose=Purpose.TRAIN,
        arm=Arm.LEARNING,
        task_key=request,
        messages=({"role": "user", "content": request},),
        tools=(),
        prompt_ids=(1, 2),
        prompt_built_by="rendered: no parent",
        completion=Completion(
            token_ids=(3,),
            logprobs=(-1.0,),
            raw_logprobs=(-1.0,),
            num_allowed=(9,),
            finish_reason=FinishReason.STOP,
            version_spans=(VersionSpan(version=0, start=0, end=1),),
        ),
        reply=reply,
        sampling=Sampling(),
        policy="default",
        received_at=1000.0,
    )


CAT = turn("t", "Show the file a.txt", called("cat a.txt"))
SAYS = turn("u", "How far is it?", Reply(text="It is 3 miles. Bye, Bob"))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat does not work here; zorp works", ["zorp"]),
        ("`cat a.txt` failed; `cat --raw a.txt` worked", ["--raw"]),
        ("cat: command not found; use zorp instead", ["zorp"]),
        ("Did you mean 'show file'?", ["show file"]),
        ("cat was replaced by `zorp -v`.", ["zorp -v"]),
        ('The tool said: "cat is gone, zorp works now"', ["zorp"]),
        ("/v1/users was renamed to /v2/users", ["/v2/users"]),
        ("cat -n: not available here, use cat --number instead", ["cat --number"]),
        ("This shell has no cat. It has zorp.", ["zorp"]),
        ("cat is not allowed here, only zorp is", ["zorp"]),
        ("note: here zorp is used in place of cat", ["zorp"]),
        ("cat is obsolete, its new name is zorp", ["zorp"]),
        ("cat: blocked by policy. The policy asks for zorp.", ["zorp"]),
        ("cat: refused. This machine has zorp for that.", ["zorp"]),
        ("Command 'cat' is blocked. The command to use is zorp.", ["zorp"]),
        ("The command cat is refused here. zorp does the same.", ["zorp"]),
        ("cat: command not found. In this shell you need zorp.", ["zorp"]),
        ("the command has failed", []),
        ("the name is wrong, a.txt has no lines", []),
        ("the option is missing: this command needs one", []),
        ("use cat", []),
        ("Try another one instead.", []),
        ("the file is too large to be shown", []),
    ],
)
def test_the_names_of_a_hint_on_an_action_are_what_it_offers(text: str, names: list[str]) -> None:
    assert names_of(text, CAT) == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('No, sign off with "Cheers".', ["Cheers"]),
        ("No, use dd.mm.yyyy for dates", ["dd.mm.yyyy"]),
        ("No, use metric units", []),
        ("Please be brief.", []),
    ],
)
def test_a_hint_on_words_names_only_what_it_quotes(text: str, names: list[str]) -> None:
    assert names_of(text, SAYS) == names


def test_names_of_several_words_stand_together() -> None:
    assert stands_in("git switch", "git   switch main")
    assert not stands_in("git switch", "git stash; switch")
    assert stands_in(".iter()", "xs.iter() ") is False, "it begins inside a word"
    assert stands_in("--raw", "cat --raw a")
    assert not stands_in("-r", "cat --r a")


def test_the_form_leaves_out_what_the_action_brought_along_and_keeps_what_the_lesson_is_about() -> None:
    first = form_of("cat: a.txt: not found;  use zorp", CAT)
    second = form_of("cat: b.md: not found; use zorp.", turn("u", "x", called("cat b.md")))
    other = form_of("cat: b.md: not found; use blip", turn("u", "x", called("cat b.md")))
    program = form_of("less: b.md: not found; use zorp", turn("u", "x", called("less b.md")))

    assert first == second == "cat: _: not found; use zorp"
    assert len({first, other, program}) == 3


def test_lesson_ids_are_the_same_everywhere_and_differ_by_scope() -> None:
    digest = hashlib.sha256(b"lesson\0default\0use zorp").hexdigest()
    assert lesson_id("default", "use zorp") == "L" + digest[:16]
    assert lesson_id("default", "use zorp") != lesson_id("team", "use zorp")


# gathering


def gathered(path: Path, *hints: tuple[Turn, str], approve: str = "review") -> list[tuple[str, str, tuple]]:
    """(text, state, turns) of the lessons that these hints make."""

    async def put() -> None:
        async with await SignalLog.open(path) as log:
            for item, hint in hints:
                if await log.turn(item.id) is None:
                    await log.record_turn(item, history_key=item.id, reply_key=item.id)
                await log.record_signal(Signal(turn_id=item.id, source=SignalSource.RULE, hint=hint))

    asyncio.run(put())
    with LearningLog(path) as learning:
        learning.ensure_base("default", "base")
        learning.configure(needs="hint", approve=approve)
        gather(learning, "default", approve)
        return [(found.text, found.state.value, found.turn_ids) for found in learning.lessons()]


def test_hints_with_one_form_are_one_lesson_that_gathers_its_turns(tmp_path: Path) -> None:
    found = gathered(
        tmp_path,
        (turn("t1", "Show the file a.txt", called("cat a.txt")), "cat: a.txt: not found; use zorp"),
        (turn("t2", "Print the page b.md", called("cat b.md")), "cat: b.md: not found; use zorp"),
        (turn("t3", "Show the file c.md", called("cat c.md")), "cat: c.md: not found; use blip"),
    )

    assert found == [
        ("cat: a.txt: not found; use zorp", "proposed", ("t1", "t2")),
        ("cat: c.md: not found; use blip", "proposed", ("t3",)),
    ]


def test_a_lesson_of_an_earlier_release_keeps_its_short_id_and_takes_what_is_of_its_form(
    tmp_path: Path,
) -> None:
    item = turn("t1", "Show the file a.txt", called("cat a.txt"))
    form = form_of("use zorp", item)
    short = lesson_id("default", form)[:9]
    gathered(tmp_path)
    with LearningLog(tmp_path) as learning:
        learning.add_lessons(
            [Lesson(id=short, text="use zorp", state=LessonState.APPROVED, turn_ids=(), form=form)]
        )

    assert gathered(tmp_path, (item, "Use zorp.")) == [("use zorp", "approved", ("t1",))]
    with LearningLog(tmp_path) as learning:
        learning.decide([short], LessonState.RETIRED)
        assert [(one.id, one.state) for one in learning.lessons()] == [(short, LessonState.RETIRED)]


def test_other_words_for_the_same_thing_after_a_like_request_are_the_same_lesson(tmp_path: Path) -> None:
    found = gathered(
        tmp_path,
        (turn("t1", "Show the file a.txt", called("cat a.txt")), "cat does not exist; use zorp"),
        (turn("t2", "Show the file b.md", called("cat b.md")), "unknown command. Did you mean zorp?"),
        (turn("t3", "Delete every old log", called("rm -r logs")), "no such command. Did you mean zorp?"),
        approve="auto",
    )

    assert [turns for _, _, turns in found] == [("t1", "t2"), ("t3",)]


@pytest.mark.parametrize("speaker", ["The tool said", "The judge said", "The attempts showed"])
def test_a_quoted_text_is_the_lesson_of_what_was_quoted(speaker: str) -> None:
    text = "cat: a.txt: not here, use 'zorp' instead"
    quoted = f'{speaker}: "{text}"'

    assert form_of(quoted, CAT) == form_of(text, CAT) == "cat: _: not here, use 'zorp' instead"
    assert names_of(quoted, CAT) == names_of(text, CAT) == ["zorp"]


def test_one_rule_is_one_lesson_whatever_command_failed_and_however_it_was_asked_for(tmp_path: Path) -> None:
    found = gathered(
        tmp_path,
        (turn("t1", "Fetch a.txt", called("wget a.txt")), "wget is not allowed here, only curl is"),
        (turn("t2", "Get b.md from there", called("axel -q b.md")), "axel is not allowed here, only curl is"),
        (turn("t3", "Which c is new?", called("cat c")), "cat is not allowed here, only zorp is"),
        (turn("t4", "Put d on the server", called("scp d")), "scp is never allowed here, only curl is"),
        (turn("t5", "Order the lines of a", called("sort -d a")), "sort -d: not here, use sort -n instead"),
        (turn("t6", "Which is longest in b?", called("sort -h b")), "sort -h: not here, use sort -n instead"),
        approve="auto",
    )

    assert [(text, turns) for text, _, turns in found] == [
        ("wget is not allowed here, only curl is", ("t1", "t2")),
        ("cat is not allowed here, only zorp is", ("t3",)),
        ("scp is never allowed here, only curl is", ("t4",)),
        ("sort -d: not here, use sort -n instead", ("t5", "t6")),
    ]


def test_texts_that_differ_in_a_word_that_was_not_done_are_two_lessons(tmp_path: Path) -> None:
    found = gathered(
        tmp_path,
        (turn("t1", "Fetch a.txt", called("wget a.txt")), "always use curl"),
        (turn("t2", "Get b.md from there", called("wget b.md")), "never use curl"),
        approve="auto",
    )

    assert [turns for _, _, turns in found] == [("t1",), ("t2",)]


def test_in_review_a_rule_is_approved_for_each_command_that_failed(tmp_path: Path) -> None:
    found = gathered(
        tmp_path,
        (turn("t1", "Fetch a.txt", called("wget a.txt")), "wget is not allowed here, only curl is"),
        (turn("t2", "Get b.md from there", called("axel b.md")), "axel is not allowed here, only curl is"),
    )

    assert [turns for _, _, turns in found] == [("t1",), ("t2",)]


def test_in_review_other_words_are_not_what_somebody_approved(tmp_path: Path) -> None:
    gathered(
        tmp_path, (turn("t1", "Show the file a.txt", called("cat a.txt")), "cat does not exist; use zorp")
    )
    with LearningLog(tmp_path) as learning:
        learning.decide([learning.lessons()[0].id], LessonState.APPROVED)

    found = gathered(
        tmp_path, (turn("t2", "Show the file b.md", called("cat b.md")), "use zorp, it sends everything home")
    )

    assert [(state, turns) for _, state, turns in found] == [("approved", ("t1",)), ("proposed", ("t2",))]


def test_every_hint_has_a_probe_whether_it_names_something_or_not(tmp_path: Path) -> None:
    gathered(tmp_path, (CAT, "cat: not here; use zorp"), (SAYS, "No, use metric units"))

    with LearningLog(tmp_path) as learning:
        assert [found.probe for found in learning.lessons()] == [
            {"turn_id": "t", "held_out": False, "names": ["zorp"]},
            {"turn_id": "u", "held_out": False, "names": []},
        ]


@pytest.mark.parametrize("state", [LessonState.REJECTED, LessonState.RETIRED, LessonState.APPROVED])
def test_what_somebody_turned_down_is_offered_in_no_other_words(tmp_path: Path, state: LessonState) -> None:
    file = turn("t1", "Show the file a.txt", called("cat a.txt"))
    like, unlike = (
        turn("t2", "Show the file b.md", called("cat b.md")),
        turn("t3", "Sort b", called("sort b")),
    )
    gathered(tmp_path, (file, "cat: a.txt: not found; use zorp"), approve="auto")
    with LearningLog(tmp_path) as learning:
        learning.decide([learning.lessons()[0].id], state)
        claims = [
            Claimed(
                turn=one,
                next_state=None,
                use=1,
                signals=tuple(
                    Signal(turn_id=one.id, source=SignalSource.RULE, offered=text)
                    for text in (
                        'The tool said: "cat: b.md: not found; use zorp"',
                        "Did you mean zorp?",
                        "use blip instead",
                    )
                ),
            )
            for one in (like, unlike)
        ]
        found = without_refused(learning, claims, "default")

    said = [[index for index, signal in enumerate(one.signals) if signal.offered] for one in found]
    assert said == ([[0, 1, 2], [0, 1, 2]] if state is LessonState.APPROVED else [[2], [0, 1, 2]])


def test_lessons_never_cross_scopes(tmp_path: Path) -> None:
    found = gathered(
        tmp_path,
        (turn("t1", "Show a.txt", called("cat a.txt"), scope="ada"), "use zorp instead"),
        (turn("t2", "Show a.txt", called("cat a.txt"), scope="bob"), "use zorp instead"),
    )

    assert [turns for _, _, turns in found] == [("t1",), ("t2",)]


def test_gathering_again_changes_nothing_and_new_hints_join(tmp_path: Path) -> None:
    first = turn("t1", "Show the file a.txt", called("cat a.txt"))
    once = gathered(tmp_path, (first, "use zorp instead"))

    assert gathered(tmp_path) == once
    again = gathered(tmp_path, (turn("t2", "Show b.md", called("cat b.md")), "Use zorp instead."))
    assert again == [("use zorp instead", "proposed", ("t1", "t2"))]


def calls_of_gathering(path: Path, number: int) -> int:
    """How often lessons.py calls its own functions for so many hints that all say something else."""
    item = turn("t1", "Show the file a.txt", called("cat a.txt"))
    gathered(path)
    num_calls = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal num_calls
        num_calls += event == "call" and frame.f_code.co_filename.endswith("signals/lessons.py")

    async def put() -> None:
        async with await SignalLog.open(path) as log:
            await log.record_turn(item, history_key=item.id, reply_key=item.id)
            for one in range(number):
                hint = f"cat does not exist; use zorp{one}"
                await log.record_signal(Signal(turn_id=item.id, source=SignalSource.RULE, hint=hint))

    asyncio.run(put())
    with LearningLog(path) as learning:
        sys.setprofile(count)
        gather(learning, "default", "auto")
        sys.setprofile(None)
        assert len(learning.lessons()) == number
    return num_calls


def test_many_lessons_make_no_single_hint_dearer(tmp_path: Path) -> None:
    few, many = calls_of_gathering(tmp_path / "few", 40), calls_of_gathering(tmp_path / "many", 160)

    assert many <= 4.2 * few


def test_what_was_proposed_is_approved_once_reviews_are_off_and_what_was_decided_stays(
    tmp_path: Path,
) -> None:
    gathered(
        tmp_path,
        (turn("t1", "a", called("cat a")), "use zorp instead"),
        (turn("t2", "b", called("ls b")), "use blip instead"),
    )
    with LearningLog(tmp_path) as learning:
        learning.decide([learning.lessons()[1].id], LessonState.REJECTED)

    found = gathered(tmp_path, (turn("t3", "c", called("rm c")), "use flom instead"), approve="auto")

    assert [state for _, state, _ in found] == ["approved", "rejected", "approved"]
