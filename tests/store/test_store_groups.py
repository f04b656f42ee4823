"""Groups are handed out whole, or decided as they are when their time is over."""

from store_samples import answer, attempt, claim, make_turn, record, step

from agentrl.store.learning_log import LearningLog
from agentrl.types import End, Signal, SignalSource


def groups(learning: LearningLog, size: int = 2, limit: int = 100, **changes) -> list[str]:
    options = {"group_timeout_s": 1e6} | changes
    return claim(learning, limit, needs="reward", group_size=size, **options)


async def test_a_group_is_handed_out_whole_once_all_its_sessions_have_ended(log, learning) -> None:
    await attempt(log, "run~g1~0", "a1", "a2")
    assert groups(learning) == []
    assert learning.account().pending["waiting"] == 2

    await attempt(log, "run~g1~1", "b1", reward=0.0)
    await attempt(log, "run~g2~0", "c1")

    claimed = learning.claim(limit=100, needs="reward", max_age_s=1e6, group_size=2)
    assert [(c.turn.id, c.group, c.episode_reward) for c in claimed] == [
        ("a1", "run~g1", 1.0),
        ("a2", "run~g1", 1.0),
        ("b1", "run~g1", 0.0),
    ]
    assert groups(learning) == []


async def test_a_session_with_an_open_turn_has_not_ended(log, learning) -> None:
    await attempt(log, "run~g1~0", "a1")
    await attempt(log, "run~g1~1", "b1")
    await record(log, make_turn("b2", session="run~g1~1"))
    assert groups(learning) == []

    await answer(log, "b2", end=End.CLOSED)
    assert groups(learning) == ["a1", "b1", "b2"]


async def test_a_reward_that_the_environment_did_not_give_ends_no_session(log, learning) -> None:
    await attempt(log, "run~g1~0", "a1")
    await attempt(log, "run~g1~1", "b1", reward=None)
    await log.record_signal(Signal(turn_id="b1", source=SignalSource.RULE, reward=-1.0))

    assert groups(learning) == []


async def test_groups_are_never_cut_and_the_first_may_exceed_the_limit(log, learning) -> None:
    for group in (1, 2):
        for member in (0, 1):
            await attempt(log, f"run~g{group}~{member}", f"{group}{member}x", f"{group}{member}y")

    assert groups(learning, limit=3) == ["10x", "10y", "11x", "11y"]
    assert groups(learning, limit=3) == ["20x", "20y", "21x", "21y"]


async def test_groups_do_not_cross_scopes_or_lines(log, learning) -> None:
    await attempt(log, "run~g1~0", "a1")
    for turn, changes in (("b1", {"scope": "other"}), ("c1", {"policy": "user:x"})):
        await record(log, make_turn(turn, session="run~g1~1", **changes))
        await answer(log, turn, end=End.CLOSED)
        await log.record_signal(Signal(turn_id=turn, source=SignalSource.ENVIRONMENT, reward=1.0))

    assert groups(learning) == []


async def test_a_group_that_stays_incomplete_is_rejected_after_its_timeout(log, learning, clock) -> None:
    await attempt(log, "run~g1~0", "a1")
    await record(log, make_turn("b1", session="run~g1~1", received_at=1100.0))
    await attempt(log, "run~g2~0", "c1", at=1500.0)
    clock.now = 1400.0
    assert groups(learning, group_timeout_s=300.0) == []
    assert learning.account().rejected == {}

    clock.now = 1401.0
    assert groups(learning, group_timeout_s=300.0) == []

    assert learning.account().rejected == {"group_incomplete": 2}
    assert learning.fate("c1") == "pending:waiting"


async def test_or_it_is_handed_out_as_it_is_and_only_the_rest_is_rejected(log, learning, clock) -> None:
    await attempt(log, "run~g1~0", "a1")
    await attempt(log, "run~g1~1", "b1")
    await record(log, make_turn("c1", session="run~g1~2"))
    clock.now = 1400.0

    got = groups(learning, size=3, group_timeout_s=300.0, on_group_timeout="hand_out")

    assert got == ["a1", "b1"]
    assert learning.account().rejected == {"group_incomplete": 1}


async def test_complete_groups_that_wait_for_the_learner_are_not_late(log, learning, clock) -> None:
    for group in (1, 2):
        for member in (0, 1):
            await attempt(log, f"run~g{group}~{member}", f"{group}{member}")
    clock.now = 9999.0

    assert groups(learning, limit=2, group_timeout_s=1.0) == ["10", "11"]
    assert learning.account().pending["waiting"] == 2
    assert groups(learning, limit=2, group_timeout_s=1.0) == ["20", "21"]


async def test_turns_without_a_group_are_told_so_by_a_recipe_that_needs_groups(log, learning) -> None:
    await attempt(log, "live traffic", "a1")
    assert groups(learning) == []

    assert learning.fate("a1") == "rejected:no_group"


async def test_a_group_used_again_comes_whole_again(log, learning) -> None:
    await attempt(log, "run~g1~0", "a1")
    await attempt(log, "run~g1~1", "b1")
    step(learning, groups(learning, uses=2))

    assert groups(learning, uses=2) == ["a1", "b1"]
    assert groups(learning, uses=2) == []
