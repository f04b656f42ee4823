"""Which turns are claimed together as answers to one prompt, and that the account of law 3 balances at every moment."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from store_samples import make_turn

from agentrl.store import pairs
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.types import (
    End,
    MatchedBy,
    NextState,
    PolicyVersion,
    Purpose,
    Signal,
    SignalSource,
    VersionState,
)

NOW = 2000.0


@pytest.fixture
async def log(tmp_path: Path):
    async with await SignalLog.open(tmp_path) as log:
        yield log


@pytest.fixture
def learning(tmp_path: Path, log: SignalLog) -> Iterator[LearningLog]:
    with LearningLog(tmp_path, clock=lambda: NOW) as learning:
        learning.ensure_base("default", "base")
        learning.configure(needs="pair")
        yield learning


async def turn(log: SignalLog, name: str, **changes: Any) -> None:
    made = make_turn(name, **({"session": f"session-{name}"} | changes))
    await log.record_turn(made, history_key=f"h-{name}", reply_key=f"r-{name}")


async def ends(log: SignalLog, name: str, end: End | None, by: str | None = None) -> None:
    """The turn's next state; `by` names the turn whose request brought it."""
    await log.record_next_state(
        NextState(
            turn_id=name,
            messages=() if end else ({"role": "user", "content": "and then?"},),
            matched_by=MatchedBy.HISTORY,
            end=end,
            answered_by=None if by is None else f"request-{by}",
        )
    )


async def says(log: SignalLog, name: str, source: SignalSource = SignalSource.USER, **said: Any) -> None:
    await log.record_signal(Signal(turn_id=name, source=source, created_at=NOW, **said))


def claim(learning: LearningLog, limit: int = 100, **changes: Any) -> list[tuple[str, str | None, bool]]:
    """(turn, pair, preferred) of what is handed out; the account balances before and after."""
    options = {"needs": "pair", "max_age_s": 1e6} | changes
    claimed = learning.claim(limit=limit, **options)
    account = learning.account()
    assert account.balanced
    assert account.pending["claimed"] >= len(claimed)
    return [(one.turn.id, one.pair, one.preferred) for one in claimed]


def learn(learning: LearningLog, turn_ids: list[str], number: int = 1) -> None:
    step = learning.record_step(turn_ids, recipe="dpo", seed=0, metrics={}, version_parent=number - 1)
    learning.publish(
        PolicyVersion(
            policy="default",
            number=number,
            parent=number - 1,
            state=VersionState.CANDIDATE,
            path=f"versions/{number:06d}",
            step_ids=(step,),
        )
    )
    learning.set_state("default", number, VersionState.SERVING, "passed")


@pytest.mark.parametrize("end", [End.REGENERATED, End.EDITED])
async def test_an_answer_asked_for_again_loses_to_the_one_that_was_kept(log, learning, end: End) -> None:
    await turn(log, "first")
    await ends(log, "first", end, by="second")
    await turn(log, "second")
    assert (learning.fate("first"), learning.fate("second")) == ("pending:waiting", "pending:open")
    assert claim(learning) == []  # the second answer may be asked for again as well

    await ends(log, "second", None)

    assert claim(learning) == [("first", "second", False), ("second", "second", True)]
    assert claim(learning) == []
    learn(learning, ["first", "second"])
    assert learning.account().trained == 2


async def test_of_many_answers_the_last_is_preferred_to_all_others(log, learning) -> None:
    for name, later in (("a", "b"), ("b", "c"), ("c", "d")):
        await turn(log, name)
        await ends(log, name, End.REGENERATED, by=later)
    await turn(log, "d")
    await ends(log, "d", None)

    assert claim(learning, limit=1) == [
        ("a", "d", False),
        ("b", "d", False),
        ("c", "d", False),
        ("d", "d", True),
    ]


async def test_a_failed_attempt_in_between_does_not_hide_the_answer_that_was_kept(log, learning) -> None:
    await turn(log, "a")
    await ends(log, "a", End.REGENERATED, by="b")
    await turn(log, "b", error="EngineGone: died")
    await ends(log, "b", End.RETRIED, by="c")
    await turn(log, "c")
    await ends(log, "c", None)

    assert claim(learning) == [("a", "c", False), ("c", "c", True)]
    assert learning.account().rejected == {"error": 1}


async def test_a_retry_is_no_judgement_of_the_reply(log, learning) -> None:
    await turn(log, "a")
    await ends(log, "a", End.RETRIED, by="b")
    await turn(log, "b")
    await ends(log, "b", None)
    assert claim(learning) == []

    await turn(log, "c")
    await ends(log, "c", End.REGENERATED, by="d")
    await turn(log, "d")
    await ends(log, "d", End.RETRIED, by="e")
    await turn(log, "e")
    await ends(log, "e", None)

    assert claim(learning) == [("c", "e", False), ("e", "e", True)]
    assert learning.account().pending["waiting"] == 3


@pytest.mark.parametrize(
    ("end", "reward", "preferred"),
    [
        (None, None, True),
        (None, 0.0, True),
        (None, -1.0, False),
        (End.ABANDONED, None, False),
        (End.CLOSED, None, False),
        (End.CLOSED, 0.0, False),
        (End.CLOSED, -1.0, False),
        (End.ABANDONED, 1.0, True),
        (End.CLOSED, 1.0, True),
    ],
)
async def test_the_last_answer_is_preferred_only_where_the_user_went_on_or_praised_it(
    log, learning, end: End | None, reward: float | None, preferred: bool
) -> None:
    await turn(log, "a")
    await ends(log, "a", End.REGENERATED, by="b")
    await turn(log, "b")
    await ends(log, "b", end)
    if reward is not None:
        await says(log, "b", reward=reward)

    assert claim(learning) == ([("a", "b", False), ("b", "b", True)] if preferred else [])


async def test_answers_to_other_prompts_and_of_other_scopes_are_not_compared(log, learning) -> None:
    await turn(log, "a")
    await ends(log, "a", End.EDITED, by="b")
    await turn(log, "b", prompt_ids=(1, 2, 4))
    await ends(log, "b", None)
    for name, reward, scope in (("c", 1.0, "anna"), ("d", -1.0, "bert"), ("e", -1.0, "anna")):
        await turn(log, name, scope=scope, task_key="t", prompt_ids=(1, 5) if name == "e" else (1, 2))
        await ends(log, name, None)
        await says(log, name, reward=reward)

    assert claim(learning) == []
    assert learning.account().pending["waiting"] == 5


async def test_a_corrected_turn_is_claimed_alone_with_the_text_that_is_preferred_to_it(log, learning) -> None:
    await turn(log, "a")
    assert learning.fate("a") == "pending:open"
    await says(log, "a", preferred="Use zip.")

    assert learning.fate("a") == "pending:waiting"
    assert claim(learning) == [("a", "a", False)]


async def test_a_correction_of_the_kept_answer_is_preferred_to_all_answers(log, learning) -> None:
    await turn(log, "a")
    await ends(log, "a", End.REGENERATED, by="b")
    await turn(log, "b")
    await ends(log, "b", None)
    await says(log, "b", preferred="Use zip.")

    assert claim(learning) == [("a", "b", False), ("b", "b", False)]


async def test_what_the_user_wrote_himself_is_preferred_to_all_answers(log, learning) -> None:
    await turn(log, "a")
    await ends(log, "a", End.REGENERATED, by="b")
    await turn(log, "b")
    await ends(log, "b", End.EDITED, by="c")
    await turn(log, "c", prompt_ids=(1, 2, 4))
    await ends(log, "c", None)
    assert claim(learning) == []  # the judge has not read what was written

    await says(log, "b", SignalSource.RULE, reward=-1.0, preferred="Use zip.")

    assert claim(learning) == [("a", "b", False), ("b", "b", False)]


async def test_a_failed_and_a_successful_turn_of_one_task_are_a_pair(log, learning) -> None:
    for name, reward in (("lost", 0.0), ("won", 1.0), ("lost2", 0.0)):
        await turn(log, name, task_key="t")
        await ends(log, name, None)
        await says(log, name, SignalSource.ENVIRONMENT, reward=reward)

    assert claim(learning) == [("lost", "won", False), ("won", "won", True)]
    assert learning.fate("lost2") == "pending:waiting"


async def test_turns_share_the_outcome_of_their_episode(log, learning) -> None:
    for episode, reward in (("x", 1.0), ("y", 0.0)):
        await turn(log, f"{episode}1", session=episode, task_key="t")
        await ends(log, f"{episode}1", None)
        await turn(log, f"{episode}2", session=episode, task_key="t", prompt_ids=(1, 2, 3, ord(episode)))
        await ends(log, f"{episode}2", End.CLOSED)
        await says(log, f"{episode}2", SignalSource.ENVIRONMENT, reward=reward)

    assert claim(learning) == [("y1", "x1", False), ("x1", "x1", True)]


@pytest.mark.parametrize("source", [SignalSource.USER, SignalSource.JUDGE])
async def test_a_neutral_word_is_no_failure(log, learning, source: SignalSource) -> None:
    """Law 6: judged neutral is neither good nor bad."""
    for name, reward in (("a", 0.0), ("b", 1.0)):
        await turn(log, name, task_key="t")
        await ends(log, name, None)
        await says(log, name, source, reward=reward)

    assert claim(learning) == []


async def test_a_turn_without_a_partner_waits_until_its_age_has_it_expire(log, learning) -> None:
    await turn(log, "a", received_at=NOW - 50)
    await ends(log, "a", None)
    await log.mark_judged("a", "judged")
    assert (claim(learning), learning.fate("a")) == ([], "pending:waiting")
    assert learning.expire(100.0) == 0

    assert learning.expire(40.0) == 1

    assert learning.fate("a") == "rejected:expired"
    assert learning.account().balanced


async def test_a_pair_is_claimed_whole_or_not_at_all(log, learning) -> None:
    for name, later in (("a", "b"), ("c", "d")):
        await turn(log, name)
        await ends(log, name, End.REGENERATED, by=later)
        await turn(log, later)
        await ends(log, later, None)
    learning.reject(["b"], "stale")
    assert claim(learning) == [("c", "d", False), ("d", "d", True)]
    assert learning.fate("a") == "pending:waiting"

    assert learning.release(["c", "d"]) == 2
    assert claim(learning) == [("c", "d", False), ("d", "d", True)]


async def test_a_pair_that_breaks_between_looking_and_taking_is_left_alone(log, learning) -> None:
    for name, later in (("a", "b"), ("c", "d")):
        await turn(log, name)
        await ends(log, name, End.REGENERATED, by=later)
        await turn(log, later)
        await ends(log, later, None)
    with learning._reading() as connection:
        found = pairs.select(connection, "default", 0.0, 1, 100)
    assert len(found) == 2
    learning.reject(["b"], "stale")

    with learning._writing() as connection:
        taken = pairs.take(connection, "default", found, 1, NOW)

    assert [pair.name for pair, _ in taken] == ["d"]
    assert learning.fate("a") == "pending:waiting"
    assert learning.account().pending["claimed"] == 2


async def test_pairs_used_least_come_first_and_each_turn_is_counted(log, learning) -> None:
    for name, later in (("a", "b"), ("c", "d")):
        await turn(log, name)
        await ends(log, name, End.REGENERATED, by=later)
        await turn(log, later)
        await ends(log, later, None)
    assert [name for name, _, _ in claim(learning, limit=2, uses=2)] == ["c", "d"]
    learn(learning, ["c", "d"])

    again = learning.claim(limit=4, needs="pair", max_age_s=1e6, uses=2)

    assert [(one.turn.id, one.use) for one in again] == [("a", 1), ("b", 1), ("c", 2), ("d", 2)]
    learn(learning, ["a", "b", "c", "d"], 2)
    assert [one.turn.id for one in learning.claim(limit=9, needs="pair", max_age_s=1e6, uses=2)] == ["a", "b"]


async def test_only_turns_of_which_something_is_known_are_looked_at_and_no_pair_is_lost(
    log, learning, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = pairs._CANDIDATES.replace(f"WHERE c.seq IN ({pairs._TOLD}) ", "")
    asked = {"policy": "default", "oldest": 0.0, "uses": 1}
    draw = random.Random(5)
    for i in range(120):
        name = f"t{i:03}"
        await turn(log, name, task_key=draw.choice("xyz"), session=f"s{i // 2}")
        end = draw.choice([None] * 8 + [End.REGENERATED, End.EDITED, End.RETRIED, End.CLOSED])
        await ends(log, name, end, by=f"t{i + 1:03}")
        if draw.random() < 0.2:
            source = draw.choice([SignalSource.USER, SignalSource.ENVIRONMENT])
            said = {"preferred": "so"} if draw.random() < 0.2 else {"reward": draw.choice([-1.0, 0.0, 1.0])}
            await says(log, name, source, **said)

    with learning._reading() as connection:
        looked_at = connection.execute(pairs._CANDIDATES, asked).fetchall()
        found = pairs.select(connection, "default", 0.0, 1, 1000)
        waiting = connection.execute(everything, asked).fetchall()
        monkeypatch.setattr(pairs, "_CANDIDATES", everything)
        found_among_all = pairs.select(connection, "default", 0.0, 1, 1000)

    assert len(waiting) == 120
    assert 20 < len(looked_at) < 100
    assert len(found) > 10
    assert found == found_among_all


async def test_evaluations_are_never_compared(log, learning) -> None:
    await turn(log, "a", purpose=Purpose.EVAL)
    await ends(log, "a", End.REGENERATED, by="b")
    await turn(log, "b")
    await ends(log, "b", None)

    assert claim(learning) == []


@pytest.mark.parametrize("seed", range(4))
async def test_the_account_balances_whatever_becomes_of_pairs(log, learning, seed: int) -> None:
    draw = random.Random(seed)
    held: dict[str, list[str]] = {}
    number = num_turns = 0
    for _ in range(150):
        event = draw.choice(
            ["ask", "ask", "again", "say", "claim", "claim", "step", "step", "release", "expire", "crash"]
        )
        name, later = f"t{num_turns}", f"t{num_turns + 1}"
        if event in ("ask", "again"):
            await turn(log, name, task_key=draw.choice("xy"), received_at=draw.choice([NOW, NOW - 90]))
            num_turns += 1
            await ends(log, name, End.REGENERATED if event == "again" else None, by=later)
        elif event == "say" and num_turns:
            said = draw.choice([{"reward": 1.0}, {"reward": -1.0}, {"preferred": "so"}])
            await says(log, f"t{draw.randrange(num_turns)}", **said)
        elif event == "claim":
            for claimed in learning.claim(limit=draw.randint(1, 5), needs="pair", max_age_s=100.0, uses=2):
                held.setdefault(str(claimed.pair), []).append(claimed.turn.id)
        elif event == "step" and held:
            number += 1
            learn(learning, [name for names in held.values() for name in names], number)
            held = {}
        elif event == "release" and held:
            names = held.pop(draw.choice(list(held)))
            assert learning.release(names) == len(names)
        elif event == "expire":
            learning.expire(80.0)
        elif event == "crash":
            assert learning.recover() == sorted(name for names in held.values() for name in names)
            held = {}
        account = learning.account()
        assert account.balanced
        assert account.accepted == num_turns
        in_hand = [learning.fate(name) for names in held.values() for name in names]
        assert set(in_hand) <= {"pending:claimed", "trained"}  # trained: in hand for its second use
        assert account.pending["claimed"] == in_hand.count("pending:claimed")
    assert account.trained > 0
