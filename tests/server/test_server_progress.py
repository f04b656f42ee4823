"""What `agentrl progress` counts: conversations of both arms as they ended, and lessons as versions hold them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentrl.config import Config
from agentrl.recipes.recipe import load_recipe
from agentrl.signals.standing import standing
from agentrl.store.outcomes import Outcome, outcomes
from agentrl.store.signal_log import SignalLog
from agentrl.types import (
    Arm,
    Completion,
    End,
    FinishReason,
    Lesson,
    LessonState,
    MatchedBy,
    NextState,
    Purpose,
    Reply,
    Sampling,
    Signal,
    SignalSource,
    Turn,
    TurnKind,
    VersionSpan,
)
from server.doctor import broken_finding
from server.progress import of_arms, of_lessons, sentences

CONTROL, LEARNING = Arm.CONTROL, Arm.LEARNING


def said(session: str, number: int, arm: Arm, at: float, purpose: Purpose = Purpose.TRAIN) -> Turn:
    return Turn(
        id=f"{session}-{number}",
        request_id=f"{session}-{number}",
        session=session,
        scope="default",
        parent=None,
        matched_by=MatchedBy.NONE,
        kind=TurnKind.MAIN,
        kind_reason="",
        purpose=purpose,
        arm=arm,
        task_key="task",
        messages=({"role": "user", "content": "do"},),
        tools=(),
        prompt_ids=(1,),
        prompt_built_by="rendered: no parent",
        completion=Completion(
            token_ids=(2,),
            logprobs=(-1.0,),
            raw_logprobs=(-1.0,),
            num_allowed=(9,),
            finish_reason=FinishReason.STOP,
            version_spans=(VersionSpan(version=0, start=0, end=1),),
        ),
        reply=Reply(text="done"),
        sampling=Sampling(),
        policy="default",
        received_at=at,
    )


Told = tuple[SignalSource, float]


def put(
    path: Path,
    session: str,
    arm: Arm,
    at: float,
    rewards: Sequence[Told | None],
    *,
    is_open: bool = False,
    is_judged: bool = True,
    purpose: Purpose = Purpose.TRAIN,
) -> None:
    """A conversation of one turn a reward; None leaves a turn without one."""

    async def write() -> None:
        async with await SignalLog.open(path) as log:
            for number, told in enumerate(rewards):
                turn = said(session, number, arm, at + number, purpose)
                await log.record_turn(turn, history_key=turn.id, reply_key=turn.id)
                if not (is_open and number == len(rewards) - 1):
                    await log.record_next_state(NextState(turn_id=turn.id, end=End.CLOSED))
                if told is not None:
                    await log.record_signal(Signal(turn_id=turn.id, source=told[0], reward=told[1]))
                if is_judged:
                    await log.mark_judged(turn.id, "judged")

    asyncio.run(write())


def ended(path: Path, now: float = 1000.0) -> list[tuple[Arm, bool, float | None]]:
    return [(one.arm, one.ended, one.value) for one in outcomes(path, "default", now=now, idle_s=900.0)]


ENV, USER, RULE = SignalSource.ENVIRONMENT, SignalSource.USER, SignalSource.RULE


def test_an_environments_word_decides_and_else_the_mean_of_the_judged_turns(tmp_path: Path) -> None:
    put(tmp_path, "a", LEARNING, 10.0, [(RULE, -1.0), (ENV, 1.0)])
    put(tmp_path, "b", CONTROL, 20.0, [(RULE, 1.0), (ENV, 0.0)])
    put(tmp_path, "c", LEARNING, 30.0, [(RULE, -1.0), (USER, 1.0), None, (RULE, 0.0)])
    put(tmp_path, "d", CONTROL, 40.0, [None])
    put(tmp_path, "e", LEARNING, 50.0, [(RULE, 1.0)], purpose=Purpose.EVAL)

    assert ended(tmp_path) == [
        (LEARNING, True, 1.0),
        (CONTROL, True, 0.0),
        (LEARNING, True, 0.5),
        (CONTROL, True, None),
    ]


def test_a_conversation_has_ended_when_it_is_closed_and_judged_or_silent(tmp_path: Path) -> None:
    put(tmp_path, "open", LEARNING, 10.0, [(RULE, 1.0)], is_open=True)
    put(tmp_path, "unjudged", LEARNING, 20.0, [None], is_judged=False)
    put(tmp_path, "rewarded", LEARNING, 30.0, [(ENV, 1.0)], is_open=True)

    assert [one for _, one, _ in ended(tmp_path, now=100.0)] == [False, False, True]
    assert [one for _, one, _ in ended(tmp_path, now=10.0 + 901)] == [True, False, True]


def conversation(arm: Arm, value: float | None, *, is_ended: bool = True) -> Outcome:
    return Outcome(arm=arm, began_at=0.0, ended=is_ended, value=value)


def config(share: float) -> Config:
    return Config.model_validate({"learn": {"control_share": share}})


def test_the_arms_are_compared_up_to_the_first_conversation_that_goes_on() -> None:
    stream = [conversation(LEARNING, 1.0), conversation(CONTROL, 0.0)] * 100
    open_one = conversation(CONTROL, None, is_ended=False)
    found = of_arms([*stream, conversation(LEARNING, None), open_one, *stream], config(0.5))

    assert (found["num_conversations"], found["num_waiting"], found["num_unjudged"]) == (402, 201, 1)
    assert found["arms"] == {"learning": {"num": 100, "mean": 1.0}, "control": {"num": 100, "mean": 0.0}}
    assert found["verdict"] == "better"
    assert 0.5 < found["low"] < found["effect"] <= found["high"] <= 1.0
    assert [row["conversations"] for row in found["over_time"]] == [25, 50, 75, 100, 125, 150, 175, 200]


def test_worse_and_undecided_are_said_as_plainly() -> None:
    worse = [conversation(LEARNING, 0.0), conversation(CONTROL, 1.0)] * 100
    few = [conversation(LEARNING, 1.0), conversation(CONTROL, 0.0)]

    assert of_arms(worse, config(0.5))["verdict"] == "worse"
    open_one = conversation(CONTROL, None, is_ended=False)
    for none in ([], [open_one], [conversation(LEARNING, None)]):
        told = of_arms(none, config(0.5))
        assert (told["effect"], told["verdict"].split(":")[0]) == (None, "nothing to compare yet")
    assert of_arms(few, config(0.5))["verdict"] == "undecided"


def test_what_the_interval_is_of_stands_beside_rates_that_differ_from_it_at_small_numbers() -> None:
    stream = [conversation(LEARNING, 1.0), conversation(LEARNING, 0.0), conversation(CONTROL, 0.0)] * 2
    found = of_arms(stream, config(0.2))
    lines = sentences({"lessons": None, "learning": found})

    assert (
        lines[2]
        == "  learning 0.50 of 4 conversations, control 0.00 of 2 conversations: a difference of +0.50"
    )
    assert "however often you look, it misses it in 5% of runs at most" in lines[3]
    assert abs(found["effect"] - 0.5) > 0.05, "which is why it is said"


def test_without_control_conversations_there_is_nothing_to_compare_with() -> None:
    found = of_arms([conversation(LEARNING, 1.0)] * 9, config(0.0))

    assert found["effect"] is None
    assert "learn.control_share is 0" in found["verdict"]


def test_a_share_that_does_not_explain_the_arms_is_refused() -> None:
    stream = [conversation(LEARNING, 1.0), conversation(CONTROL, 0.0)] * 200

    assert "was changed during the run" in of_arms(stream, config(0.1))["verdict"]


def lesson(id_: str, held: tuple[int, ...], broken: tuple[int, ...], **changes: object) -> Lesson:
    values: dict[str, object] = {
        "id": id_,
        "text": f"text of {id_}",
        "state": LessonState.APPROVED,
        "turn_ids": (),
        "probe": {"turn_id": "t"},
        "held_by": held,
        "broken_by": broken,
    }
    return Lesson(**(values | changes))


@pytest.mark.parametrize(
    ("held", "broken", "without_effect", "stands"),
    [
        ((), (), (), ("not yet", None)),
        ((2, 4), (), (), ("holds", None)),
        ((2, 4), (3,), (), ("holds", None)),
        ((2, 4), (3, 6, 7), (), ("broken", 6)),
        ((), (), (2, 4), ("no effect", None)),
        ((), (3, 6, 7), (2, 4), ("broken", 6)),
        ((2,), (), (4,), ("no effect", None)),
        ((4,), (), (2,), ("holds", None)),
    ],
)
def test_a_lesson_is_broken_by_the_first_version_that_failed_after_the_last_that_passed(
    held: tuple[int, ...], broken: tuple[int, ...], without_effect: tuple[int, ...], stands: tuple
) -> None:
    assert standing(lesson("L1", held, broken, without_effect=without_effect)) == stands


def test_progress_says_on_how_many_situations_that_were_never_trained_on_lessons_hold() -> None:
    lessons = [
        lesson("L1", (1,), (), is_apart=True),
        lesson("L2", (1,), ()),
        lesson("L3", (1,), (), is_apart=True),
        lesson("L4", (1,), (2,), is_apart=True),
        lesson("L5", (), (), is_apart=True),
        lesson("L6", (), (), is_apart=True, without_effect=(1,)),
    ]

    found = of_lessons(lessons, ())

    assert (found["num_held"], found["num_held_apart"], found["num_with_probe"]) == (3, 2, 5)
    [said, *_] = sentences({"lessons": found, "learning": None})
    assert said == (
        "holds 3 of 6 lessons (2 of them at turns that are never trained); 1 broken by version 2, 1 not "
        "asked yet, 1 without effect"
    )
    [none, *_] = sentences({"lessons": of_lessons(lessons[4:5], ("L5",)), "learning": None})
    assert none == "holds 0 of 1 lesson; 1 not yet"
    [empty, *_] = sentences({"lessons": of_lessons((), ()), "learning": None})
    assert empty == "lessons: none approved"


def test_progress_says_which_share_of_the_hints_passed_and_what_refused_the_others() -> None:
    def said(accepted: int, refused: dict[str, int], num_refused: int, unread: int = 0) -> list[str]:
        counts = {
            "num_accepted": accepted,
            "num_refused": num_refused,
            "refused": refused,
            "num_unread": unread,
        }
        total = accepted + num_refused
        hints = counts | {"acceptance_rate": accepted / total if total else None}
        return sentences({"hints": hints, "lessons": None, "learning": None})[1:-1]

    assert said(253, {"injection": 17, "length": 1}, 17) == [
        "hints: 253 of 270 turns with one passed its gates (94%); refused 17 by injection, 1 by length"
    ]
    assert said(2, {}, 0) == ["hints: 2 of 2 turns with one passed its gates (100%)"]
    assert said(0, {}, 0) == []
    [words] = said(0, {}, 0, unread=40)
    assert words.startswith(
        "words: 40 replies were followed by words of a user that were read as neither correction"
    )


def test_a_rule_rests_where_the_learner_lets_it_rest() -> None:
    """Version 5 lost it by far, and 7 did as version 0 does: it is taught again."""
    taught = lesson("R1", (3,), (5,), without_effect=(7,), origin="import")
    resting = lesson("R2", (3, 6), (5,), without_effect=(7,), origin="import")

    assert of_lessons([taught], ("R1",))["num_resting"] == 0
    assert of_lessons([taught, resting], ("R1", "R2"))["num_resting"] == 1


def test_a_rule_that_no_request_was_found_for_yet_is_none_with_a_probe() -> None:
    lessons = [
        lesson("R1", (1,), (2,), origin="import"),
        lesson("R2", (), (), origin="import", probe=None),
        lesson("L1", (), (), probe=None),
        lesson("L2", (), ()),
    ]

    found = of_lessons(lessons, ("R1",))

    assert (found["num_with_probe"], found["num_without_probe"], len(found["not_asked"])) == (2, 1, 2)
    assert broken_finding(found, [], load_recipe("sdpo")).startswith("1 of 2 lessons are broken")


def test_progress_says_how_many_lessons_hold_and_which_are_broken_by_which_version() -> None:
    lessons = [
        lesson("L1", (1,), ()),
        lesson("L2", (1,), (58,)),
        lesson("L3", (), ()),
        lesson("L4", (), (), probe=None),
        lesson("L5", (1,), (), state=LessonState.RETIRED),
        lesson("L6", (), (), state=LessonState.PROPOSED),
        lesson("L7", (), (), without_effect=(1,)),
        lesson("L8", (57,), (58,)),
        lesson("L9", (), ()),
        lesson("R1", (), (), origin="import", probe=None),
        lesson("R2", (1,), (), origin="import"),
        lesson("H1", (), ()),
    ]
    asked = ("L1", "L2", "L3", "L7", "L8", "R2")

    lines = sentences({"lessons": of_lessons(lessons, asked, held_back=("H1",)), "learning": None})

    assert lines == [
        "holds 2 of 10 lessons (none of them at turns that are never trained); 2 broken by version 58, 1 not yet, "
        "2 not asked yet, 1 held back, 1 without effect, 1 that nothing can ask for",
        "  broken by 58 or one since 1, which held it: L2 text of L2",
        "  broken by 58: L8 text of L8",
        "  not yet: L3 text of L3",
        "  not asked yet: a version is asked for a few lessons, those asked least first, and for rules every few "
        "versions once there are requests to ask them by",
        "  held back: the guards set all of its turns aside; `agentrl doctor` says why",
        "  without effect: where they are asked for, version 0 does without them what it does once it has read them",
        "  that nothing can ask for: they came with no request",
        "  1 are rules that rest: taught again once a version breaks them",
        "  1 wait for your word: `agentrl lessons list --state proposed`",
        "learning: no conversation yet",
    ]
