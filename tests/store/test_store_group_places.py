"""Groups take their places in turn, and turns whose episodes' ends count wait for them."""

from store_samples import answer, attempt, claim, make_turn, record

from agentrl.store.balance import KEY, SESSION, Places
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.types import End, Signal, SignalSource

ROUND = Places(size=4, balance=(KEY, SESSION))


def groups(learning: LearningLog, limit: int, places: Places | None) -> list[str]:
    return claim(learning, limit, needs="reward", group_size=2, group_timeout_s=1e6, places=places)


async def group(log: SignalLog, name: str, scope: str = "default") -> None:
    """Two sessions of one turn each; the turns are NAME0 and NAME1."""
    player, _, number = name.partition(".")
    for member in (0, 1):
        turn = f"{scope}.{name}.{member}"
        await record(log, make_turn(turn, session=f"{player}~g{number}~{member}", scope=scope))
        await answer(log, turn, end=End.CLOSED)
        await log.mark_judged(turn, "abstained")
        await log.record_signal(Signal(turn_id=turn, source=SignalSource.ENVIRONMENT, reward=1.0))


async def test_the_oldest_groups_come_first_where_nobody_says_how_places_go_round(log, learning) -> None:
    for number in (1, 2):
        await group(log, f"loud.{number}")
    await group(log, "quiet.1", scope="guests")

    assert groups(learning, 4, None) == [
        "default.loud.1.0",
        "default.loud.1.1",
        "default.loud.2.0",
        "default.loud.2.1",
    ]


async def test_groups_go_round_among_keys_and_then_among_those_who_play_them(log, learning) -> None:
    for number in (1, 2, 3):
        await group(log, f"loud.{number}")
    await group(log, "calm.1")
    await group(log, "quiet.1", scope="guests")

    claimed = groups(learning, 8, Places(size=8, balance=(KEY, SESSION)))

    assert claimed[::2] == ["default.loud.1.0", "guests.quiet.1.0", "default.calm.1.0", "default.loud.2.0"]


async def test_one_loud_key_owns_no_batch_of_groups_while_others_are_active(log, learning) -> None:
    for number in (1, 2, 3, 4):
        await group(log, f"loud.{number}")
    await group(log, "quiet.1", scope="guests")
    capped = Places(size=8, balance=(KEY, SESSION), shares={KEY: 0.5})

    assert groups(learning, 8, capped)[::2] == ["default.loud.1.0", "guests.quiet.1.0", "default.loud.2.0"]
    assert learning.account().pending["waiting"] == 4


async def test_places_of_groups_in_hand_count_and_no_group_is_cut(log, learning) -> None:
    await group(log, "loud.1")
    await group(log, "quiet.1", scope="guests")
    held = Places(size=4, balance=(KEY, SESSION), held={KEY: ["default"], SESSION: [("default", "loud")]})

    assert groups(learning, 3, held) == ["guests.quiet.1.0", "guests.quiet.1.1"]
    assert groups(learning, 1, ROUND) == ["default.loud.1.0", "default.loud.1.1"]


# episodes that end


def ended(learning: LearningLog, **changes) -> list[str]:
    return claim(learning, needs="reward", group_size=1, ended=True, **changes)


async def judged(log: SignalLog, turn: str, session: str, at: float, end: End | None = None) -> None:
    await record(log, make_turn(turn, session=session, received_at=at))
    await answer(log, turn, end=end)
    await log.record_signal(Signal(turn_id=turn, source=SignalSource.JUDGE, reward=0.5))
    await log.mark_judged(turn, "judged")


async def test_a_turn_waits_for_the_end_of_its_episode_only_where_that_is_asked_for(log, learning) -> None:
    await judged(log, "a1", "s1", 1000.0)
    await record(log, make_turn("a2", session="s1", received_at=1001.0))

    assert ended(learning) == []
    assert learning.backlog(needs="reward", group_size=1, max_age_s=1e6, ended=True)["episode"].num_turns == 1
    assert claim(learning, needs="reward", group_size=1) == ["a1"]


async def test_an_episode_has_ended_with_a_reward_or_with_a_typed_end_and_nothing_open(log, learning) -> None:
    await attempt(log, "s1", "a1", "a2")
    await judged(log, "b1", "s2", 1000.0)
    await judged(log, "b2", "s2", 1001.0, end=End.ABANDONED)
    # between two requests nothing is open, and yet it goes on
    await judged(log, "c1", "s3", 1000.0, end=End.CLIENT_GONE)
    await judged(log, "c2", "s3", 1001.0)
    # another one of its turns waits for what follows
    await judged(log, "d1", "s4", 1000.0)
    await record(log, make_turn("d0", session="s4", received_at=999.0))

    assert sorted(ended(learning)) == ["a1", "a2", "b1", "b2"]
    assert learning.account().pending["waiting"] == 2


async def test_those_whose_episode_has_ended_are_balanced_like_others(log, learning) -> None:
    for number in range(4):
        await judged(log, f"loud{number}", "loud", 1000.0 + number, end=End.CLOSED)
    await judged(log, "quiet", "quiet", 900.0, end=End.CLOSED)

    assert ended(learning, limit=2, places=Places(size=2)) == ["quiet", "loud3"]
