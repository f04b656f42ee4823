"""Who gets the places of an update, and that nobody is lost on the way."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_samples import answer, make_turn, record

from agentrl.store import balance
from agentrl.store.account import Reason
from agentrl.store.balance import KEY, SESSION, SIGNAL, Places, Waiting, choose
from agentrl.store.feeds import SignalledTurns
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.types import Signal, SignalSource

NOW = 2000.0
ALL = {KEY: 99, SESSION: 99, SIGNAL: 99}


def waiting(*names: str, used: int = 0) -> list[Waiting]:
    """Turns named KEY.SESSION.SOURCE, the newest first."""
    found = []
    for number, name in enumerate(names):
        key, session, source = name.split(".")
        owners = {KEY: key, SESSION: (key, session), SIGNAL: source}
        found.append(Waiting(turn_ids=(f"{number}:{name}",), used=used, owners=owners))
    return found


def test_places_go_round_among_keys_then_sessions_then_sources() -> None:
    turns = waiting("a.1.rule", "a.1.rule", "a.1.user", "a.2.rule", "b.9.rule", "b.9.rule")

    assert choose(turns, Places(size=6), ALL, 6) == [
        "0:a.1.rule",
        "4:b.9.rule",
        "3:a.2.rule",
        "5:b.9.rule",
        "2:a.1.user",
        "1:a.1.rule",
    ]


def test_without_balance_the_newest_come_first() -> None:
    turns = waiting("a.1.rule", "a.1.rule", "b.9.rule")

    assert choose(turns, Places(size=3, balance=()), ALL, 2) == ["0:a.1.rule", "1:a.1.rule"]


def test_only_what_is_named_is_balanced() -> None:
    turns = waiting("a.1.rule", "a.1.rule", "a.2.rule", "b.9.rule")

    assert choose(turns, Places(size=4, balance=(SESSION,)), ALL, 3) == [
        "0:a.1.rule",
        "2:a.2.rule",
        "3:b.9.rule",
    ]


def test_beyond_its_places_nobody_gets_more_and_the_rest_waits() -> None:
    turns = waiting(*["a.1.rule"] * 9, "b.2.rule")

    assert choose(turns, Places(size=8), ALL | {SESSION: 4}, 8) == [
        "0:a.1.rule",
        "9:b.2.rule",
        "1:a.1.rule",
        "2:a.1.rule",
        "3:a.1.rule",
    ]


def test_places_that_are_taken_already_count() -> None:
    held = {KEY: ["a", "a"], SESSION: [("a", "1"), ("a", "1")], SIGNAL: ["rule", "rule"]}
    turns = waiting("a.1.rule", "b.2.rule")

    assert choose(turns, Places(size=4, held=held), ALL | {SESSION: 2}, 2) == ["1:b.2.rule"]


def test_turns_never_used_come_before_used_ones_whoever_they_belong_to() -> None:
    turns = waiting("a.1.rule", "a.1.rule") + waiting("b.2.rule", used=1)

    assert choose(turns, Places(size=3), ALL, 3) == ["0:a.1.rule", "1:a.1.rule", "0:b.2.rule"]


def test_of_n_active_ones_each_may_have_the_nth_part_and_who_is_alone_all() -> None:
    places = Places(size=8, shares={SESSION: 0.1})

    assert [places.most(SESSION, active) for active in (0, 1, 2, 4, 100)] == [8, 8, 4, 2, 1]
    assert places.most(KEY, 3) == 8


@pytest.fixture
async def log(tmp_path: Path):
    async with await SignalLog.open(tmp_path) as log:
        yield log


@pytest.fixture
def learning(tmp_path: Path, log: SignalLog) -> Iterator[LearningLog]:
    with LearningLog(tmp_path, clock=lambda: NOW) as learning:
        learning.ensure_base("default", "base")
        yield learning


async def hinted(log: SignalLog, name: str, session: str, scope: str, at: float) -> None:
    await record(log, make_turn(name, session=session, scope=scope, received_at=at))
    await answer(log, name)
    await log.record_signal(Signal(turn_id=name, source=SignalSource.RULE, hint="use blorp"))
    await log.mark_judged(name, "judged")


async def test_a_loud_session_shares_an_update_with_the_quiet_ones(log, learning) -> None:
    for number in range(12):
        await hinted(log, f"loud{number}", "loud", "default", 1500.0 + number)
    for number in range(2):
        await hinted(log, f"quiet{number}", f"quiet{number}", "default", 1400.0 + number)
    places = Places(size=8, shares={SESSION: 0.5})

    claimed = learning.claim(limit=8, needs="hint", max_age_s=1e6, places=places)

    assert Counter(claim.turn.session for claim in claimed) == {"loud": 4, "quiet0": 1, "quiet1": 1}
    account = learning.account()
    assert (account.pending["claimed"], account.pending["waiting"], account.balanced) == (6, 8, True)


async def test_one_user_who_is_alone_fills_the_update(log, learning) -> None:
    for number in range(12):
        await hinted(log, f"loud{number}", "loud", "default", 1500.0 + number)
    places = Places(size=8, shares={SESSION: 0.25, KEY: 0.25, SIGNAL: 0.25})

    assert len(learning.claim(limit=8, needs="hint", max_age_s=1e6, places=places)) == 8


async def test_who_was_silent_for_long_does_not_count_as_active(log, learning) -> None:
    await hinted(log, "early", "early", "guests", 100.0)
    for number in range(12):
        await hinted(log, f"loud{number}", "loud", "default", 1500.0 + number)
    shares = {SESSION: 0.5, KEY: 0.5}

    within = Places(size=8, shares=shares, active_s=10_000.0)
    claimed = learning.claim(limit=8, needs="hint", max_age_s=1e6, places=within)
    assert Counter(claim.turn.session for claim in claimed) == {"early": 1, "loud": 4}
    learning.release([claim.turn.id for claim in claimed])
    beyond = Places(size=8, shares=shares, active_s=60.0)
    claimed = learning.claim(limit=8, needs="hint", max_age_s=1e6, places=beyond)
    assert Counter(claim.turn.session for claim in claimed) == {"early": 1, "loud": 7}


async def test_a_backlog_of_one_session_hides_nobody(log, learning, monkeypatch) -> None:
    monkeypatch.setattr(balance, "MAX_LOOKED", 4)
    await hinted(log, "quiet", "quiet", "default", 1400.0)
    for number in range(12):
        await hinted(log, f"loud{number}", "loud", "default", 1500.0 + number)
    places = Places(size=8, shares={SESSION: 0.5})

    claimed = learning.claim(limit=8, needs="hint", max_age_s=1e6, places=places)

    assert {claim.turn.id for claim in claimed} == {"quiet", "loud11", "loud10", "loud9"}


async def test_a_quarantined_turn_is_rejected_until_it_is_readmitted(log, learning) -> None:
    await hinted(log, "t1", "s", "default", 1500.0)
    learning.claim(limit=1, needs="hint", max_age_s=1e6)
    learning.reject(["t1"], "contradicted")

    assert learning.quarantined(limit=10) == {"t1": ("default", None)}
    assert learning.account().rejected == {"contradicted": 1}
    assert learning.claim(limit=1, needs="hint", max_age_s=1e6) == []
    assert learning.readmit(["t1", "unknown"], Reason.CONTRADICTED) == 1
    assert learning.fate("t1") == "pending:waiting"
    assert [claim.turn.id for claim in learning.claim(limit=1, needs="hint", max_age_s=1e6)] == ["t1"]


async def test_signalled_turns_are_read_one_by_one_and_count_as_seen_at_the_end(
    log, learning, tmp_path
) -> None:
    with SignalledTurns(tmp_path, "default", most=10) as feed:
        for name in ("t1", "t2"):
            await hinted(log, name, name, "default", 1500.0)
        assert next(feed.new()).turn.id == "t1"
        assert [said.turn.id for said in feed.new()] == ["t1", "t2"]
        assert list(feed.new()) == []


@pytest.mark.parametrize("reason", ["gate", "empty_approval"])
async def test_nothing_is_readmitted_that_was_set_aside_for_another_reason(
    log, learning, reason: str
) -> None:
    await hinted(log, "t1", "s", "default", 1500.0)
    learning.reject(["t1"], reason)

    assert learning.readmit(["t1"], Reason.CONTRADICTED) == 0
    assert learning.fate("t1") == f"rejected:{reason}"


async def test_a_readmitted_turn_expires_like_any_other(log, learning) -> None:
    await hinted(log, "t1", "s", "default", 1500.0)
    learning.reject(["t1"], "contradicted")
    learning.expire(100.0)
    learning.readmit(["t1"], Reason.CONTRADICTED)

    assert learning.expire(100.0) == 1
    assert learning.fate("t1") == "rejected:expired"
