"""What each turn counts as, and claims, one rule a test."""

from collections.abc import Callable
from pathlib import Path

import pytest
from store_samples import (
    NOW,
    answer,
    claim,
    hint,
    judged_with_hint,
    learn,
    make_completion,
    make_turn,
    publish,
    record,
    step,
)

from agentrl.errors import StoreError
from agentrl.store import claims
from agentrl.store.learning_log import LearningLog, Reason
from agentrl.types import (
    Arm,
    End,
    MatchedBy,
    NextState,
    Purpose,
    Signal,
    SignalSource,
    TurnKind,
    VersionState,
)
from server.demo_figures import feedback_to_serving_s

# what each turn counts as


FATES = [
    ("pending:open", {}, None, None),
    ("pending:unjudged", {}, "and then?", None),
    ("rejected:no_hint", {}, "and then?", "abstained"),
    ("apart:eval", {"purpose": Purpose.EVAL}, "and then?", "hint"),
    ("apart:off", {"purpose": Purpose.OFF}, "and then?", "hint"),
    ("apart:control", {"arm": Arm.CONTROL}, "and then?", "hint"),
    ("rejected:side", {"kind": TurnKind.SIDE}, "and then?", "hint"),
    ("rejected:error", {"error": "EngineGone: x"}, "and then?", "hint"),
    ("rejected:empty", {"completion": make_completion(())}, "and then?", "hint"),
    ("rejected:ambiguous", {"matched_by": MatchedBy.AMBIGUOUS}, "and then?", "hint"),
    ("rejected:operator_block", {"block_spans": ((0, 1),)}, "and then?", "hint"),
    ("rejected:lesson_shown", {"block_spans": ((0, 1),), "shown_lessons": ("L1",)}, "and then?", "hint"),
    ("rejected:client_gone", {}, End.CLIENT_GONE, "hint"),
    ("rejected:not_chosen", {}, End.NOT_CHOSEN, "hint"),
    ("pending:waiting", {}, End.ABANDONED, "hint"),
    ("pending:waiting", {}, "no, use ls", "hint"),
    ("pending:waiting", {}, None, "hint"),
]


@pytest.mark.parametrize(("fate", "fields", "followed", "judged"), FATES, ids=lambda value: str(value)[:24])
async def test_each_turn_counts_as_exactly_one_thing(log, learning, fate, fields, followed, judged) -> None:
    await record(log, make_turn("t1", **fields))
    if isinstance(followed, End):
        await answer(log, "t1", end=followed)
    elif followed:
        await answer(log, "t1", followed)
    if judged == "hint":
        await hint(log, "t1")
    elif judged:
        await log.mark_judged("t1", judged)

    account = learning.account()

    assert learning.fate("t1") == fate
    assert account.balanced
    kind, _, detail = fate.partition(":")
    assert getattr(account, kind)[detail] == 1
    assert account.accepted == (kind != "apart")
    assert claim(learning) == (["t1"] if fate == "pending:waiting" else [])


async def test_a_next_state_of_ambiguous_lineage_is_not_learned_from(log, learning) -> None:
    await record(log, make_turn("t1"))
    await log.record_next_state(NextState(turn_id="t1", matched_by=MatchedBy.AMBIGUOUS))
    await hint(log, "t1")

    assert learning.fate("t1") == "rejected:ambiguous"
    assert claim(learning) == []


async def test_a_judge_that_gave_up_is_told_from_one_that_had_nothing_to_say(log, learning) -> None:
    await record(log, make_turn("t1"))
    await answer(log, "t1")
    for _ in range(3):
        assert learning.fate("t1") == "pending:unjudged"
        await log.mark_judged("t1", "failed", "timed out")

    assert learning.fate("t1") == "rejected:judge_failed"


async def test_a_recipe_decides_which_signal_a_turn_needs(log, learning) -> None:
    await record(log, make_turn("hinted"), make_turn("graded"), make_turn("plain"))
    for turn in ("hinted", "graded", "plain"):
        await answer(log, turn)
        await log.mark_judged(turn, "judged")
    await hint(log, "hinted")
    # Judged neutral: 0.0 is a judgement, None is none (law 6).
    await log.record_signal(Signal(turn_id="graded", source=SignalSource.USER, reward=0.0))
    await log.record_signal(Signal(turn_id="plain", source=SignalSource.USER, reward=None))

    def fates() -> list[str | None]:
        return [learning.fate(turn) for turn in ("hinted", "graded", "plain")]

    assert fates() == ["pending:waiting", "rejected:no_hint", "rejected:no_hint"]
    learning.configure(needs="reward")
    assert fates() == ["rejected:no_reward", "pending:waiting", "rejected:no_reward"]
    learning.configure(needs="any")
    assert fates() == ["pending:waiting"] * 3
    assert learning.account().balanced


async def test_a_recipe_that_takes_what_there_is_waits_for_the_judge_to_add_to_it(log, learning) -> None:
    learning.configure(needs="any")
    await record(log, make_turn("answered"), make_turn("open"))
    await answer(log, "answered")
    await hint(log, "answered")
    await hint(log, "open")
    assert learning.fate("answered") == "pending:unjudged"
    assert learning.fate("open") == "pending:waiting"

    await log.mark_judged("answered", "judged")
    assert learning.fate("answered") == "pending:waiting"


async def test_a_reward_of_the_environment_is_every_turn_s_of_its_session(log, learning) -> None:
    await record(
        log,
        make_turn("t1"),
        make_turn("t2"),
        make_turn("other", session="s2"),
        make_turn("foreign", scope="x"),
    )
    for turn in ("t1", "t2", "other", "foreign"):
        await answer(log, turn)
        await log.mark_judged(turn, "abstained")
    await log.record_signal(Signal(turn_id="t2", source=SignalSource.ENVIRONMENT, reward=0.5))
    await log.record_signal(Signal(turn_id="t2", source=SignalSource.ENVIRONMENT, reward=1.0))

    claimed = learning.claim(limit=9, needs="reward", max_age_s=1e6)

    assert {c.turn.id: c.episode_reward for c in claimed} == {"t1": 1.0, "t2": 1.0}


async def test_late_feedback_brings_a_turn_back_until_age_has_settled_it(log, learning) -> None:
    await record(log, make_turn("t1"), make_turn("t2"))
    for turn in ("t1", "t2"):
        await answer(log, turn)
        await log.mark_judged(turn, "abstained")
    assert learning.account().rejected == {"no_hint": 2}

    await hint(log, "t1")
    assert learning.fate("t1") == "pending:waiting"

    assert learning.expire(max_age_s=1001.0) == 0
    assert learning.expire(max_age_s=999.0) == 1
    assert learning.fate("t1") == "rejected:expired"
    await hint(log, "t2")
    assert learning.fate("t2") == "rejected:no_hint"
    assert claim(learning) == []


async def test_pending_of_every_kind_expires_but_what_the_learner_holds(log, learning) -> None:
    await judged_with_hint(log, make_turn("held"))
    assert claim(learning) == ["held"]
    await record(log, make_turn("open"))
    await record(log, make_turn("unjudged"))
    await answer(log, "unjudged")
    await judged_with_hint(log, make_turn("waiting"), make_turn("young", received_at=1999.0))
    await record(log, make_turn("eval", purpose=Purpose.EVAL))

    assert learning.expire(max_age_s=100.0) == 3

    account = learning.account()
    assert account.rejected == {"expired": 3}
    assert account.pending == {"open": 0, "unjudged": 0, "review": 0, "waiting": 1, "claimed": 1}
    assert account.apart == {"eval": 1}
    assert learning.expire(max_age_s=100.0) == 0

    # Given back after its age was settled, it is looked at again.
    learning.release(["held"])
    assert learning.expire(max_age_s=100.0) == 1
    assert learning.account().rejected == {"expired": 4}


async def test_a_turn_that_is_given_back_while_others_expire_is_looked_at_again(log, learning, clock) -> None:
    await judged_with_hint(log, make_turn("t1"))
    assert claim(learning) == ["t1"]

    class Meanwhile(LearningLog):
        """Of another process, whose own write comes behind the release."""

        def _writing(self):
            learning.release(["t1"])
            return super()._writing()

    clock.now += 10_000
    with Meanwhile(learning.path, clock=clock) as slow:
        assert slow.expire(max_age_s=100.0) == 0

    assert learning.expire(max_age_s=100.0) == 1
    assert learning.fate("t1") == "rejected:expired"
    assert learning.account("default") == learning.account()


async def test_a_turn_committed_late_is_not_overlooked_by_expiry(log, learning) -> None:
    """Received first, committed last: age goes by receipt, the log by commit."""
    await judged_with_hint(log, make_turn("quick", received_at=1950.0))
    assert learning.expire(max_age_s=100.0) == 0
    await judged_with_hint(log, make_turn("slow", received_at=1000.0))

    assert learning.expire(max_age_s=100.0) == 1
    assert learning.fate("slow") == "rejected:expired"
    assert learning.fate("quick") == "pending:waiting"


# claims


async def test_claims_go_newest_first_and_hand_out_everything_known(log, learning) -> None:
    await judged_with_hint(log, make_turn("t1"), make_turn("t2"), make_turn("t3"))

    first = learning.claim(limit=2, needs="hint", max_age_s=1e6)

    assert [claimed.turn.id for claimed in first] == ["t3", "t2"]
    assert first[1].turn == await log.turn("t2")
    assert first[1].next_state == await log.next_state("t2")
    assert list(first[1].signals) == await log.signals("t2")
    assert (first[1].use, first[1].group, first[1].episode_reward) == (1, None, None)
    assert claim(learning) == ["t1"]
    assert claim(learning) == []
    assert learning.account().pending["claimed"] == 3


async def test_claims_leave_what_is_too_old_to_expiry(log, learning) -> None:
    await judged_with_hint(log, make_turn("old", received_at=1000.0), make_turn("young", received_at=1990.0))

    assert claim(learning, max_age_s=100.0) == ["young"]


async def test_claims_of_one_line_leave_the_others_alone(log, learning) -> None:
    await judged_with_hint(log, make_turn("t1"), make_turn("x1", policy="user:x"))

    assert claim(learning, policy="user:x") == ["x1"]
    assert learning.account("user:x").pending["claimed"] == 1
    assert learning.account("default").pending["waiting"] == 1
    assert learning.account().accepted == 2


async def test_control_and_eval_turns_are_never_handed_out_whatever_they_have(log, learning) -> None:
    await judged_with_hint(
        log,
        make_turn("control", arm=Arm.CONTROL),
        make_turn("eval", purpose=Purpose.EVAL),
        make_turn("off", purpose=Purpose.OFF),
    )

    for needs in ("hint", "reward", "any"):
        assert claim(learning, needs=needs, uses=9) == []
    assert learning.account().accepted == 0
    assert learning.account().apart == {"control": 1, "eval": 1, "off": 1}


async def test_the_account_follows_the_needs_of_the_claims(log, learning) -> None:
    await judged_with_hint(log, make_turn("t1"))
    assert claim(learning, needs="reward") == []

    assert learning.fate("t1") == "rejected:no_reward"


async def test_released_turns_are_handed_out_again_and_the_use_is_not_spent(log, learning) -> None:
    await judged_with_hint(log, make_turn("t1"))
    assert claim(learning) == ["t1"]

    assert learning.release(["t1", "unknown"]) == 1

    claimed = learning.claim(limit=1, needs="hint", max_age_s=1e6)
    assert [(c.turn.id, c.use) for c in claimed] == [("t1", 1)]


async def test_rejected_turns_keep_the_first_reason_and_never_come_back(log, learning) -> None:
    await judged_with_hint(log, make_turn("t1"))
    claim(learning)

    learning.reject(["t1"], Reason.STALE)
    learning.reject(["t1"], "something else")

    assert learning.fate("t1") == "rejected:stale"
    assert claim(learning) == []
    with pytest.raises(StoreError, match="no turn ghost"):
        learning.reject(["ghost"], Reason.STALE)


async def test_a_turn_is_used_at_most_so_often_and_fresh_turns_go_first(log, learning) -> None:
    await judged_with_hint(log, make_turn("t1"))
    uses = []
    for _ in range(3):
        claimed = learning.claim(limit=5, needs="hint", max_age_s=1e6, uses=2)
        uses.append([(c.turn.id, c.use) for c in claimed])
        if claimed:
            step(learning, [c.turn.id for c in claimed])

    assert uses == [[("t1", 1)], [("t1", 2)], []]
    assert learning.account().pending["claimed"] == 1

    await judged_with_hint(log, make_turn("t2"))
    assert claim(learning, uses=3) == ["t2", "t1"]


async def test_what_was_selected_is_asked_for_again_when_it_is_taken(log, learning) -> None:
    """Between selecting and taking, another learner may have used a turn up, hold it, or have set it aside."""
    await judged_with_hint(log, make_turn("used"))
    step(learning, claim(learning))
    await judged_with_hint(log, make_turn("held"))
    claim(learning)
    await judged_with_hint(log, make_turn("aside"), make_turn("free"))
    learning.reject(["aside"], "stale")

    with learning._writing() as connection:
        taken = claims.take(connection, "default", ["used", "held", "aside", "free"], uses=1, now=NOW)

    assert taken == {"free": 1}


async def test_a_held_turn_is_not_handed_out_again_before_its_step(log, learning) -> None:
    await judged_with_hint(log, make_turn("t1"))
    assert claim(learning, uses=5) == ["t1"]
    assert claim(learning, uses=5) == []


async def test_the_account_counts_turns_that_have_reached_their_end_once(log, learning, clock) -> None:
    for number in range(60):
        await judged_with_hint(log, make_turn(f"t{number}", session=f"s{number}"))
        if number % 3 == 0:
            await record(log, make_turn(f"e{number}", purpose=Purpose.EVAL))
    learn(learning, 1, limit=20)
    clock.now += 10_000
    learning.expire(100.0)
    first = steps_of(learning, lambda: learning.account("default"))

    again = steps_of(learning, lambda: learning.account("default"))

    assert again * 5 < first, "80 turns are settled"
    assert learning.account("default") == learning.account()
    learning.rollback("default", 0, "a fault")
    assert learning.account("default") == learning.account()
    assert learning.account("default").rejected == {"expired": 40, "rolled_back": 20}


def steps_of(learning: LearningLog, ask: Callable[[], object]) -> int:
    """Tens of instructions of SQLite's machine that a question takes."""
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    with learning._open() as connection:
        connection.set_progress_handler(count, 10)
        ask()
        connection.set_progress_handler(None, 0)
    return counted


async def test_a_turn_whose_answer_was_lent_keeps_why_it_has_no_lesson_of_its_own(
    tmp_path: Path, log, learning, clock
) -> None:
    await judged_with_hint(log, make_turn("first"))
    await record(log, make_turn("later"))
    await answer(log, "later")
    for _ in range(3):
        await log.mark_judged("later", "failed")
    assert claim(learning) == ["first"]
    learned = learning.record_step(
        ["first"], recipe="r", seed=1, metrics={}, version_parent=0, lent=["later"]
    )
    publish(learning, 1, learned)
    learning.set_state("default", 1, VersionState.SERVING, "")
    assert learning.fate("later") == "trained"
    await log.record_signal(Signal(turn_id="later", source=SignalSource.USER, reward=1.0, created_at=1002.0))
    assert learning.successes(oldest_version=0, newest_version=9) == [], "of itself nothing was trained"
    assert feedback_to_serving_s(tmp_path) == [NOW - 1002.0]
    clock.now += 1000.0
    assert learning.expire(100.0) == 0
    assert learning.account("default").trained == 2
    await hint(log, "later")
    clock.now += 1000.0

    with LearningLog(tmp_path) as fresh:
        assert fresh.account("default") == learning.account("default")
    assert (learning.fate("later"), claim(learning), learning.expire(100.0)) == ("trained", [], 0)
