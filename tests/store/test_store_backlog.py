"""What the pending turns wait for: the reasons add up to the account's pending, whatever was trained before."""

from typing import Any

import pytest
from store_samples import NOW, answer, attempt, claim, hint, judged_with_hint, learn, make_turn, record, step

from agentrl.store.learning_log import LearningLog
from agentrl.types import End, Signal, SignalSource


def backlog(learning: LearningLog, **changes: Any) -> dict[str, int]:
    """Turns by reason; they add up to what the account calls pending."""
    options: dict[str, Any] = {"needs": "hint", "group_size": 1, "max_age_s": 1e6} | changes
    found = learning.backlog(**options)
    assert sum(waiting.num_turns for waiting in found.values()) == sum(learning.account().pending.values())
    return {reason: waiting.num_turns for reason, waiting in found.items()}


async def test_every_pending_turn_waits_for_one_thing(log, learning) -> None:
    await record(log, make_turn("open"))
    await record(log, make_turn("answered", session="s2"))
    await answer(log, "answered")
    await judged_with_hint(log, make_turn("held", session="s3"))
    assert claim(learning) == ["held"]
    await judged_with_hint(log, *(make_turn(name, session=name) for name in ("a", "b")))

    assert backlog(learning) == {"next_state": 1, "judge": 1, "step": 2, "hand": 1}
    step(learning, ["held"])
    assert backlog(learning) == {"next_state": 1, "judge": 1, "step": 2, "version": 1}


async def test_turns_in_hand_tell_how_long_they_are_there(log, learning, clock) -> None:
    await judged_with_hint(log, make_turn("t1", received_at=NOW - 90.0))
    assert claim(learning) == ["t1"]
    clock.now += 19.0

    assert learning.backlog(needs="hint", group_size=1, max_age_s=1e6)["hand"].oldest_s == 19.0


async def test_hints_that_nobody_approved_wait_for_approval(log, learning) -> None:
    learning.configure(needs="hint", approve="review")
    await judged_with_hint(log, make_turn("t1"))

    assert backlog(learning) == {"approval": 1}


async def test_trained_turns_hide_no_group_that_is_not_complete(log, learning) -> None:
    grouped = {"needs": "reward", "group_size": 2}
    learning.configure(**grouped)
    await attempt(log, "run~g1~0", "a1", "a2")
    await attempt(log, "run~g1~1", "b1", reward=0.0)
    assert learn(learning, 1, **grouped, group_timeout_s=1e6) == ["a1", "a2", "b1"]
    assert backlog(learning, **grouped) == {}

    await attempt(log, "run~g2~0", "c1", "c2")
    await attempt(log, "run~g2~1", "d1", reward=None)
    assert backlog(learning, **grouped) == {"group": 3}

    await log.record_signal(Signal(turn_id="d1", source=SignalSource.ENVIRONMENT, reward=0.0))
    await attempt(log, "run~g3~0", "e1")
    assert backlog(learning, **grouped) == {"group": 1, "step": 3}
    assert learning.account().trained == 3


async def test_trained_turns_hide_no_answer_that_has_no_partner(log, learning) -> None:
    learning.configure(needs="pair")
    for name, reward in (("good", 1.0), ("bad", 0.0), ("lone", 1.0)):
        await record(log, make_turn(name, session=name))
        await answer(log, name)
        await log.mark_judged(name, "abstained")
        await log.record_signal(Signal(turn_id=name, source=SignalSource.ENVIRONMENT, reward=reward))
    assert backlog(learning, needs="pair") == {"partner": 1, "step": 2}

    assert sorted(learn(learning, 1, needs="pair")) == ["bad", "good"]
    assert backlog(learning, needs="pair") == {"partner": 1}


async def test_the_oldest_of_them_tells_how_long_they_wait(log, learning) -> None:
    for name, at in (("old", NOW - 90.0), ("young", NOW - 1.0)):
        await judged_with_hint(log, make_turn(name, session=name, received_at=at))

    found = learning.backlog(needs="hint", group_size=1, max_age_s=1e6)
    assert found["step"].oldest_s == pytest.approx(90.0)


async def test_what_may_be_used_twice_is_in_the_backlog_once(log, learning) -> None:
    """A turn that was trained is no pending one, though it may be handed out again."""
    await judged_with_hint(log, make_turn("t1"))
    learn(learning, 1, uses=2)
    await record(log, make_turn("t2", session="s2"))
    await answer(log, "t2", end=End.CLOSED)
    await hint(log, "t2")

    assert backlog(learning, uses=2) == {"step": 1}
