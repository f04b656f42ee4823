"""Lessons and what their states mean for turns: review, rejection, retirement, and the account in between."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from store_samples import gated, hinted, lesson, make_turn, record

from agentrl.errors import StoreError
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.types import (
    Arm,
    LessonState,
    Purpose,
    Signal,
    SignalSource,
)

APPROVED, PROPOSED = LessonState.APPROVED, LessonState.PROPOSED
REJECTED, RETIRED = LessonState.REJECTED, LessonState.RETIRED


def link(learning: LearningLog, **lesson_of_hint: str) -> None:
    """Gives the hint that `new_hints` names by its text its lesson."""
    found = {item.hint: item for item in learning.new_hints()}
    links = {
        found[hint.replace("_", " ")].signal: (found[hint.replace("_", " ")].turn.id, name)
        for hint, name in lesson_of_hint.items()
    }
    learning.add_lessons([], links)


def review(learning: LearningLog, needs: str = "hint") -> None:
    learning.configure(needs=needs, approve="review")


def claim(learning: LearningLog, needs: str = "hint") -> list:
    return learning.claim(limit=10, needs=needs, max_age_s=1e9)


async def test_in_review_a_hint_without_approval_waits_and_is_not_claimed(log, learning) -> None:
    await hinted(log, "t1", "use zorp")
    review(learning)
    assert learning.fate("t1") == "pending:review", "its lesson has not even been made yet"

    learning.add_lessons([lesson()])
    link(learning, use_zorp="L1")

    assert learning.fate("t1") == "pending:review"
    assert claim(learning) == []
    account = learning.account()
    assert (account.accepted, account.pending["review"], account.balanced) == (1, 1, True)

    learning.decide(["L1"], APPROVED)

    assert learning.fate("t1") == "pending:waiting"
    assert [item.turn.id for item in claim(learning)] == ["t1"]


async def test_without_review_a_proposed_hint_is_taught(log, learning) -> None:
    await hinted(log, "t1", "use zorp")
    learning.configure(needs="hint", approve="auto")
    learning.add_lessons([lesson()])
    link(learning, use_zorp="L1")

    assert [item.signals[0].hint for item in claim(learning)] == ["use zorp"]


@pytest.mark.parametrize("needs", ["hint", "any"])
async def test_rejecting_and_retiring_set_the_turns_aside_with_the_reason_and_approval_brings_them_back(
    log, learning, needs: str
) -> None:
    await hinted(log, "t1", "use zorp", reward=-1.0)
    learning.configure(needs=needs, approve="auto")
    learning.add_lessons([lesson(state=APPROVED)])
    link(learning, use_zorp="L1")

    learning.decide(["L1"], REJECTED, "not in our house")
    assert learning.fate("t1") == "rejected:lesson_rejected"
    assert learning.account().rejected == {"lesson_rejected": 1}
    assert claim(learning, needs) == []
    [found] = learning.lessons()
    assert (found.state, found.reason) == (REJECTED, "not in our house")

    learning.decide(["L1"], RETIRED)
    assert learning.account().rejected == {"lesson_retired": 1}
    assert claim(learning, needs) == []

    learning.decide(["L1"], APPROVED)
    assert learning.fate("t1") == "pending:waiting"
    assert len(claim(learning, needs)) == 1


async def test_of_several_hints_only_those_that_may_be_taught_are_handed_out(log, learning) -> None:
    await hinted(log, "t1", "use zorp", "use blip", "use flom", reward=-1.0)
    review(learning)
    learning.add_lessons([lesson("L1"), lesson("L2", APPROVED), lesson("L3", REJECTED)])
    link(learning, use_zorp="L1", use_blip="L2", use_flom="L3")

    [claimed] = claim(learning)

    assert [signal.hint for signal in claimed.signals] == [None, "use blip", None]
    assert [signal.reward for signal in claimed.signals] == [-1.0, -1.0, -1.0]
    assert [learning.may_teach("t1", hint) for hint in ("use zorp", "use blip", "use flom")] == [
        False,
        True,
        False,
    ]


async def test_a_recipe_that_shows_no_hints_asks_for_no_approval(log, learning) -> None:
    await hinted(log, "t1", "use zorp", reward=1.0)
    learning.configure(needs="reward")
    learning.add_lessons([lesson(state=REJECTED)])
    link(learning, use_zorp="L1")

    assert learning.fate("t1") == "pending:waiting"


async def test_a_turn_without_context_comes_back_for_a_lesson_that_is_approved_or_imported_later(
    log, learning, clock
) -> None:
    await hinted(log, "t1", "")
    learning.configure(needs="any", approve="review")
    learning.add_lessons([lesson("L1"), lesson("L2", scope="team")])

    def set_aside() -> None:
        learning.reject(["t1"], "no context")
        clock.now += 1
        assert learning.fate("t1") == "rejected:no context"

    set_aside()
    learning.decide(["L2"], APPROVED)
    learning.decide(["L1"], RETIRED)
    learning.add_lessons([lesson("L3", APPROVED)])
    assert learning.fate("t1") == "rejected:no context", "another scope, not approved, of another turn's hint"
    learning.decide(["L1"], APPROVED)
    assert learning.fate("t1") == "pending:waiting"
    set_aside()
    learning.add_lessons([lesson("L4", APPROVED, origin="import")])
    assert learning.fate("t1") == "pending:waiting"


async def test_a_turn_that_waits_for_the_approval_of_anothers_hint_is_pending_until_anything_is_decided(
    log, learning
) -> None:
    await hinted(log, "t1", "")
    learning.configure(needs="any", approve="review")
    learning.add_lessons([lesson("L1"), lesson("L2")])
    assert len(claim(learning, "any")) == 1
    learning.wait_for_approval(["t1"], learning.decided())

    assert learning.fate("t1") == "pending:review"
    assert claim(learning, "any") == []
    assert learning.account().pending["review"] == 1
    assert (await log.explain("t1"))["rejection"] is None
    learning.decide(["L2"], REJECTED)
    assert learning.fate("t1") == "pending:waiting"
    assert len(claim(learning, "any")) == 1


async def test_what_was_decided_while_a_turn_was_built_is_not_missed(log, learning, clock) -> None:
    await hinted(log, "t1", "")
    learning.configure(needs="any", approve="review")
    learning.add_lessons([lesson("L1")])
    claim(learning, "any")
    seen = learning.decided()
    clock.now += 1
    learning.decide(["L1"], APPROVED)

    learning.wait_for_approval(["t1"], seen)

    assert learning.fate("t1") == "pending:waiting"


async def test_without_review_no_turn_waits_for_an_approval(log, learning) -> None:
    await hinted(log, "t1", "")
    learning.configure(needs="any", approve="review")
    learning.add_lessons([lesson("L1")])
    claim(learning, "any")
    learning.wait_for_approval(["t1"], learning.decided())
    learning.configure(needs="any", approve="auto")
    assert learning.fate("t1") == "pending:waiting", "whatever is noted"
    learning.configure(needs="any", approve="review")
    assert learning.fate("t1") == "pending:review"

    learning.approve_proposed()

    assert learning.fate("t1") == "pending:waiting"


async def test_what_waits_for_an_approval_expires_and_then_no_lesson_brings_it_back(
    log, learning, clock
) -> None:
    for name in ("t1", "t2"):
        await hinted(log, name, "")
    learning.configure(needs="any", approve="review")
    learning.add_lessons([lesson("L1"), lesson("L2")])
    claim(learning, "any")
    learning.wait_for_approval(["t1"], learning.decided())
    learning.reject(["t2"], "no context")
    clock.now += 100

    assert learning.expire(50.0) == 1
    learning.decide(["L1"], APPROVED)

    assert learning.fate("t1") == "rejected:expired"
    assert learning.fate("t2") == "rejected:no context", (
        "too old to be claimed: nothing would end its waiting"
    )
    assert learning.account().balanced


async def test_what_was_trained_stays_trained_when_its_lesson_retires(log, learning) -> None:
    await hinted(log, "t1", "use zorp")
    learning.configure(needs="hint", approve="auto")
    learning.add_lessons([lesson(state=APPROVED)])
    link(learning, use_zorp="L1")
    claim(learning)
    step = learning.record_step(["t1"], recipe="r", seed=0, metrics={}, version_parent=0)
    gated(learning, 1, step)

    learning.decide(["L1"], RETIRED)

    assert learning.fate("t1") == "trained"
    assert learning.claim(limit=10, needs="hint", max_age_s=1e9, uses=2)[0].signals[0].hint is None


async def test_a_decision_takes_the_turns_back_from_a_learner_that_has_them_in_hand(log, learning) -> None:
    await hinted(log, "t1", "use zorp")
    await hinted(log, "t2", "use blip")
    learning.configure(needs="hint", approve="auto")
    learning.add_lessons([lesson("L1", APPROVED), lesson("L2", APPROVED)])
    link(learning, use_zorp="L1", use_blip="L2")
    assert len(claim(learning)) == 2

    learning.decide(["L1"], REJECTED)

    assert learning.fate("t1") == "rejected:lesson_rejected"
    assert learning.fate("t2") == "pending:claimed"
    with pytest.raises(StoreError, match="t1 is not claimed any more"):
        learning.record_step(["t1", "t2"], recipe="r", seed=0, metrics={}, version_parent=0)


async def test_a_turn_with_another_hint_is_taken_back_too_and_handed_out_without_the_rejected_one(
    log, learning
) -> None:
    """The learner has read both hints by then."""
    await hinted(log, "t1", "use zorp", "use blip")
    learning.configure(needs="hint", approve="auto")
    learning.add_lessons([lesson("L1", APPROVED), lesson("L2", APPROVED)])
    link(learning, use_zorp="L1", use_blip="L2")
    [claimed] = claim(learning)
    assert [signal.hint for signal in claimed.signals] == ["use zorp", "use blip"]
    assert learning.held() == {"t1"}

    learning.decide(["L1"], REJECTED)

    assert learning.held() == set()
    [claimed] = claim(learning)
    assert [signal.hint for signal in claimed.signals] == [None, "use blip"]


async def test_a_recipe_that_shows_no_hints_keeps_its_turns_whatever_is_decided(log, learning) -> None:
    await hinted(log, "t1", "use zorp", reward=1.0)
    learning.configure(needs="reward")
    learning.add_lessons([lesson(state=APPROVED)])
    link(learning, use_zorp="L1")
    claim(learning, "reward")

    learning.decide(["L1"], REJECTED)

    assert learning.held() == {"t1"}


def work_of(learning: LearningLog, ask: Callable[[], object]) -> int:
    """Hundreds of instructions of SQLite's machine that a question takes."""
    num_hundreds = 0

    def count() -> None:
        nonlocal num_hundreds
        num_hundreds += 1

    with learning._open() as connection:
        connection.set_progress_handler(count, 100)
        ask()
        connection.set_progress_handler(None, 0)
    return num_hundreds


async def test_lessons_cost_the_account_nothing_for_turns_without_a_context(log, learning) -> None:
    for number in range(20):
        await hinted(log, f"t{number}", "")
    learning.configure(needs="any", approve="auto")
    learning.reject([f"t{number}" for number in range(20)], "no context")
    without = work_of(learning, learning.account)

    learning.add_lessons([lesson(f"L{number}", APPROVED) for number in range(200)])

    assert work_of(learning, learning.account) <= without + 2, "20 turns times 200 lessons are 4,000 rows"


async def test_signals_without_a_hint_cost_the_gathering_nothing(log, learning) -> None:
    await hinted(log, "t1", reward=1.0)
    before = work_of(learning, learning.new_hints)
    for _ in range(200):
        await log.record_signal(Signal(turn_id="t1", source=SignalSource.RULE, reward=1.0))

    assert work_of(learning, learning.new_hints) <= before + 2


async def test_an_unknown_lesson_is_named_and_nothing_changes(log, learning) -> None:
    learning.add_lessons([lesson("L1")])

    with pytest.raises(StoreError, match="no lesson L9"):
        learning.decide(["L1", "L9"], APPROVED)

    assert learning.lessons(state=APPROVED) == []


async def test_only_hints_that_may_be_learned_from_become_lessons_and_each_once(log, learning) -> None:
    await hinted(log, "t1", "use zorp", "")
    for name, changes in (
        ("eval", {"purpose": Purpose.EVAL}),
        ("control", {"arm": Arm.CONTROL}),
        ("failed", {"error": "EngineError: gone"}),
    ):
        await record(log, make_turn(name, **changes))
        await log.record_signal(Signal(turn_id=name, source=SignalSource.RULE, hint="use blip"))

    assert [(item.turn.id, item.hint) for item in learning.new_hints()] == [("t1", "use zorp")]
    learning.add_lessons([lesson()])
    link(learning, use_zorp="L1")
    assert learning.new_hints() == []
    assert learning.lessons()[0].turn_ids == ("t1",)


async def test_a_signal_number_that_was_given_again_does_not_inherit_the_lesson(log, learning) -> None:
    """A power cut may take the log's newest signals, whose numbers then come again."""
    await hinted(log, "t1", "use zorp")
    review(learning)
    learning.add_lessons([lesson(state=APPROVED)], {1: ("lost", "L1")})

    assert learning.fate("t1") == "pending:review"
    assert [item.turn.id for item in learning.new_hints()] == ["t1"]


async def test_gathering_begins_anew_where_the_log_has_fewer_signals_than_were_gathered(
    log, learning
) -> None:
    await hinted(log, "t1", "use zorp")
    learning.add_lessons([lesson()], {7: ("lost", "L1")})

    assert [item.hint for item in learning.new_hints()] == ["use zorp"]


@pytest.mark.parametrize(("approve", "fate"), [("auto", "pending:waiting"), ("review", "pending:review")])
async def test_what_was_imported_and_waits_is_not_taught_though_a_user_says_the_same(
    approve: str, fate: str, log, learning
) -> None:
    await hinted(log, "t1", "use zorp")
    learning.configure(needs="hint", approve=approve)
    [hint] = learning.new_hints()

    learning.add_lessons([lesson("L0")], {hint.signal: ("t1", "L0")})
    assert learning.fate("t1") == fate, "the lesson of a hint waits in review alone"
    learning.add_lessons([lesson("L1", origin="import")], {hint.signal: ("t1", "L1")})
    assert learning.fate("t1") == "pending:review"
    assert claim(learning) == []
    learning.decide(["L1"], APPROVED)
    assert learning.fate("t1") == "pending:waiting"


async def test_explain_names_the_lessons_of_a_turn(log, learning) -> None:
    await hinted(log, "t1", "use zorp")
    learning.add_lessons([lesson(state=APPROVED)])
    link(learning, use_zorp="L1")

    assert (await log.explain("t1"))["lessons"] == [{"id": "L1", "text": "text of L1", "state": "approved"}]


async def test_situations_that_nothing_is_trained_on_are_found(log, learning) -> None:
    await hinted(log, "waits", "use zorp")
    await record(log, make_turn("eval", purpose=Purpose.EVAL, session="e"))
    await record(log, make_turn("open", session="o"))
    await record(log, make_turn("side", session="x", block_spans=((0, 1),)))

    assert [turn.id for turn in learning.untrained()] == ["eval"]


@pytest.mark.parametrize("seed", range(20))
def test_the_account_balances_whatever_is_decided_in_whatever_order(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)

    async def run() -> None:
        async with await SignalLog.open(tmp_path) as log:
            with LearningLog(tmp_path) as learning:
                learning.ensure_base("default", "base")
                learning.configure(needs="hint", approve=rng.choice(["auto", "review"]))
                learning.add_lessons([lesson(f"L{i}") for i in range(3)])
                for number in range(30):
                    await hinted(log, f"t{number}", *[f"hint {i}" for i in range(rng.randint(0, 2))])
                    for item in learning.new_hints():
                        learning.add_lessons([], {item.signal: (item.turn.id, f"L{rng.randint(0, 2)}")})
                    learning.decide([f"L{rng.randint(0, 2)}"], rng.choice(list(LessonState)))
                    held = learning.claim(limit=rng.randint(0, 3), needs="hint", max_age_s=1e12)
                    states = {found.id: found.state for found in learning.lessons()}
                    for claimed in held:
                        assert any(signal.hint for signal in claimed.signals)
                    learning.release([claimed.turn.id for claimed in held])
                    account = learning.account()
                    assert account.balanced, (account, states)
                    assert account.accepted == number + 1

    asyncio.run(run())
