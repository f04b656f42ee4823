"""Claims, steps, versions and rollbacks, one rule a test."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import answer, hint, judged_with_hint, make_completion, make_turn, record

from agentrl.errors import StoreError
from agentrl.store import claims
from agentrl.store.learning_log import LearningLog, Reason
from agentrl.store.signal_log import SignalLog
from agentrl.store.version_log import Probe
from agentrl.types import (
    Arm,
    End,
    MatchedBy,
    NextState,
    PolicyVersion,
    Purpose,
    Signal,
    SignalSource,
    TurnKind,
    VersionState,
)

NOW = 2000.0


class Clock:
    """Unix seconds that move only when told."""

    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def log(tmp_path: Path):
    async with await SignalLog.open(tmp_path) as log:
        yield log


@pytest.fixture
def learning(tmp_path: Path, log: SignalLog, clock: Clock) -> Iterator[LearningLog]:
    with LearningLog(tmp_path, clock=clock) as learning:
        learning.ensure_base("default", "base")
        learning.configure(needs="hint")
        yield learning


def claim(learning: LearningLog, limit: int = 100, **changes) -> list[str]:
    options = {"needs": "hint", "max_age_s": 1e6} | changes
    return [claimed.turn.id for claimed in learning.claim(limit=limit, **options)]


def step(learning: LearningLog, turn_ids: list[str], parent: int = 0) -> int:
    return learning.record_step(
        turn_ids, recipe="hint_opsd", seed=1, metrics={"loss": 0.5}, version_parent=parent
    )


def publish(learning: LearningLog, number: int, *steps: int, parent: int | None = None) -> PolicyVersion:
    version = PolicyVersion(
        policy="default",
        number=number,
        parent=number - 1 if parent is None else parent,
        state=VersionState.CANDIDATE,
        path=f"versions/{number:06d}",
        step_ids=steps,
        metrics={"loss": 0.5},
        created_at=NOW,
    )
    learning.publish(version)
    return version


def accept(learning: LearningLog, number: int) -> None:
    learning.set_state("default", number, VersionState.SERVING, "passed")


def learn(learning: LearningLog, number: int, **changes) -> list[str]:
    """One whole round: claim all, step, publish, serve."""
    turns = claim(learning, **changes)
    publish(learning, number, step(learning, turns, parent=number - 1))
    accept(learning, number)
    return turns


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
    assert account.pending == {"open": 0, "unjudged": 0, "waiting": 1, "claimed": 1}
    assert account.apart == {"eval": 1}
    assert learning.expire(max_age_s=100.0) == 0

    # Given back after its age was settled, it is looked at again.
    learning.release(["held"])
    assert learning.expire(max_age_s=100.0) == 1
    assert learning.account().rejected == {"expired": 4}


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


async def test_a_turn_with_an_operator_s_block_trains_only_where_the_recipe_allows_it(log, learning) -> None:
    await judged_with_hint(log, make_turn("t1", block_spans=((0, 1),)))

    assert claim(learning) == []
    learning.configure(needs="hint", allow_blocks=True)
    assert claim(learning) == ["t1"]


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


# steps and versions


async def test_a_turn_is_trained_when_its_version_serves_and_not_before(log, learning) -> None:
    await judged_with_hint(log, make_turn("t1"))
    seen = []

    claim(learning)
    seen.append(learning.fate("t1"))
    made = step(learning, ["t1"])
    seen.append(learning.fate("t1"))
    publish(learning, 1, made)
    seen.append(learning.fate("t1"))
    accept(learning, 1)
    seen.append(learning.fate("t1"))

    assert seen == ["pending:claimed", "pending:claimed", "pending:claimed", "trained"]
    assert learning.account().trained == 1
    serving = learning.serving()
    assert (serving.number, serving.state, serving.step_ids, serving.served_at) == (
        1,
        VersionState.SERVING,
        (1,),
        NOW,
    )
    assert learning.version("default", 0).state is VersionState.RETIRED


async def test_a_trained_turn_may_be_used_again_and_is_counted_once(log, learning) -> None:
    await judged_with_hint(log, make_turn("t1"))
    assert learn(learning, 1, uses=2) == ["t1"]
    assert learn(learning, 2, uses=2) == ["t1"]

    assert learning.account().trained == 1
    assert learning.account().balanced
    assert claim(learning, uses=2) == []


async def test_a_step_names_its_turns_once_and_only_those_it_holds(log, learning) -> None:
    await judged_with_hint(log, make_turn("t1"))
    claim(learning)
    await judged_with_hint(log, make_turn("t2"))

    with pytest.raises(StoreError, match="t2 is not claimed any more"):
        step(learning, ["t1", "t2"])
    with pytest.raises(ValueError, match="twice"):
        step(learning, ["t1", "t1"])

    assert learning.account().pending == {"open": 0, "unjudged": 0, "waiting": 1, "claimed": 1}
    assert learning.step(step(learning, ["t1"])).turn_ids == ("t1",)


async def test_rejection_by_the_gate_sets_the_turns_aside(log, learning) -> None:
    await judged_with_hint(log, make_turn("t1"), make_turn("t2"))
    first = claim(learning, limit=1)
    publish(learning, 1, step(learning, first))
    second = claim(learning, limit=1)
    publish(learning, 2, step(learning, second, parent=1))

    learning.set_state("default", 1, VersionState.REJECTED, "worse on the probes")

    # Version 2 was built upon it and holds the fault too.
    assert learning.version("default", 2).state is VersionState.REJECTED
    assert learning.account().rejected == {"gate": 2}
    assert claim(learning, uses=5) == []
    assert learning.serving().number == 0
    assert learning.next_number() == 3
    with pytest.raises(
        StoreError, match=r"version 1 .* cannot be built upon.*restore the learner from version 0"
    ):
        step(learning, [], parent=1)
    with pytest.raises(StoreError, match="only candidates can be served"):
        accept(learning, 2)


async def test_a_candidate_passed_over_retires_with_its_successor_and_its_turns_are_trained(
    log, learning
) -> None:
    await judged_with_hint(log, make_turn("t1"), make_turn("t2"))
    publish(learning, 1, step(learning, claim(learning, limit=1)))
    publish(learning, 2, step(learning, claim(learning, limit=1), parent=1))

    accept(learning, 2)

    assert [version.state for version in learning.versions()] == ["retired", "retired", "serving"]
    assert learning.version("default", 1).served_at is None
    assert learning.account().trained == 2


async def test_a_version_that_would_drop_what_was_learned_since_is_not_served(log, learning) -> None:
    publish(learning, 1)
    publish(learning, 2, parent=0)
    accept(learning, 1)

    with pytest.raises(StoreError, match="does not descend from version 1"):
        accept(learning, 2)
    with pytest.raises(StoreError, match="is serving; only a candidate"):
        learning.set_state("default", 1, VersionState.REJECTED, "x")
    with pytest.raises(ValueError, match="call rollback"):
        learning.set_state("default", 1, VersionState.RETIRED, "x")
    with pytest.raises(StoreError, match=r"version 1 .* serves already"):
        accept(learning, 1)
    with pytest.raises(StoreError, match="no version 9"):
        learning.set_state("default", 9, VersionState.REJECTED, "x")


def test_numbers_and_steps_are_used_once(learning) -> None:
    made = learning.record_step([], recipe="r", seed=0, metrics={}, version_parent=0)
    publish(learning, 1, made)

    with pytest.raises(StoreError, match="never used again"):
        publish(learning, 1, parent=0)
    with pytest.raises(StoreError, match="cannot hold step 1"):
        publish(learning, 2, made)
    with pytest.raises(StoreError, match="the line began already"):
        learning.publish(replace(publish(learning, 2), number=3, parent=None))
    assert [version.number for version in learning.versions()] == [0, 1, 2]


def test_the_base_begins_a_line_once_and_a_line_without_one_says_so(learning) -> None:
    assert learning.ensure_base("default", "elsewhere").path == "base"
    assert learning.serving().number == 0
    with pytest.raises(StoreError, match="call ensure_base"):
        learning.serving("user:x")
    assert (learning.next_number("user:x"), learning.next_number()) == (0, 1)


async def test_rollback_sets_aside_every_turn_behind_the_versions_above(log, learning) -> None:
    for number in (1, 2, 3):
        await judged_with_hint(log, make_turn(f"t{number}"))
        learn(learning, number)
    await judged_with_hint(log, make_turn("candidate"))
    publish(learning, 4, step(learning, claim(learning), parent=3))
    await judged_with_hint(log, make_turn("stepped"))
    unpublished = step(learning, claim(learning), parent=3)
    await judged_with_hint(log, make_turn("held"))
    claim(learning)

    assert learning.rollback("default", 1, "users complain") == [2, 3, 4]

    assert learning.serving().number == 1
    fates = {turn: learning.fate(turn) for turn in ("t1", "t2", "t3", "candidate", "stepped", "held")}
    assert fates == {
        "t1": "trained",
        "t2": "rejected:rolled_back",
        "t3": "rejected:rolled_back",
        "candidate": "rejected:rolled_back",
        "stepped": "pending:waiting",
        "held": "pending:claimed",
    }
    assert learning.account().balanced
    assert learning.step(unpublished).voided == "rolled back to version 1"
    # The learner's weights descend from version 3: what it does on them is refused, and its turns go back.
    with pytest.raises(StoreError, match="cannot be built upon"):
        step(learning, ["held"], parent=3)
    learning.release(["held"])
    assert claim(learning, uses=9) == ["held", "stepped", "t1"]
    assert learning.next_number() == 5
    assert learning.events("default", 3)[-1][:2] == (
        VersionState.REJECTED,
        "rolled back to version 1: users complain",
    )


async def test_a_turn_that_a_version_which_stays_holds_too_remains_trained_but_is_set_aside(
    log, learning
) -> None:
    await judged_with_hint(log, make_turn("t1"))
    learn(learning, 1, uses=5)
    learn(learning, 2, uses=5)

    learning.rollback("default", 1, "worse")

    assert learning.fate("t1") == "trained"
    assert claim(learning, uses=5) == []
    learning.rollback("default", 0, "worse still")
    assert learning.fate("t1") == "rejected:rolled_back"


async def test_a_claim_on_a_turn_that_a_rollback_set_aside_is_void(log, learning) -> None:
    await judged_with_hint(log, make_turn("t1"))
    learn(learning, 1, uses=5)
    assert claim(learning, uses=5) == ["t1"]

    learning.rollback("default", 0, "worse")

    assert learning.fate("t1") == "rejected:rolled_back"
    with pytest.raises(StoreError, match="not claimed any more"):
        step(learning, ["t1"], parent=0)


def test_rollback_goes_to_ancestors_only_and_only_where_files_are_left(learning) -> None:
    for number in (1, 2, 3):
        publish(learning, number)
        accept(learning, number)
    for target in (3, 4):
        with pytest.raises(StoreError, match=r"no ancestor of the serving version 3.*\[2, 1, 0\]"):
            learning.rollback("default", target, "x")
    learning.forget_files("default", lambda versions, pins: [1])
    with pytest.raises(StoreError, match=r"files of version 1 .* were deleted"):
        learning.rollback("default", 1, "x")
    assert learning.rollback("default", 2, "x") == [3]


async def test_a_learner_that_starts_anew_finds_everything_unserved_pending_again(log, learning) -> None:
    await judged_with_hint(log, make_turn("t0"))
    learn(learning, 1)
    await judged_with_hint(log, make_turn("t1"))
    publish(learning, 2, step(learning, claim(learning), parent=1))
    await judged_with_hint(log, make_turn("t2"))
    step(learning, claim(learning), parent=1)
    await judged_with_hint(log, make_turn("t3"))
    held = claim(learning)

    assert learning.recover() == ["t1", "t2", "t3"]

    assert learning.account().pending == {"open": 0, "unjudged": 0, "waiting": 3, "claimed": 0}
    assert learning.account().trained == 1
    assert learning.version("default", 2).state is VersionState.REJECTED
    # The learner before, if it still runs, cannot bring in what it held.
    with pytest.raises(StoreError, match="not claimed any more"):
        step(learning, held, parent=1)
    assert sorted(claim(learning)) == ["t1", "t2", "t3"]
    assert learning.recover() == ["t1", "t2", "t3"]
    assert learning.recover() == []


async def test_two_learners_never_hold_one_turn(tmp_path: Path, log, learning, clock) -> None:
    await judged_with_hint(log, *(make_turn(f"t{index:02}") for index in range(40)))

    def drain() -> list[str]:
        mine: list[str] = []
        with LearningLog(tmp_path, clock=clock) as other:
            while got := claim(other, limit=3):
                mine += got
        return mine

    hauls = await asyncio.gather(*(asyncio.to_thread(drain) for _ in range(4)))

    assert sorted(turn for haul in hauls for turn in haul) == [f"t{index:02}" for index in range(40)]


def test_pins_and_probes_are_kept_by_version(learning) -> None:
    learning.pin("default", 0, "teacher")
    learning.pin("default", 0, "name@0")
    learning.unpin("default", 0, "name@0")
    probe = Probe(name="lesson l1", passed=False, score=0.25, detail="said cat", created_at=5.0)
    learning.record_probe("default", 0, probe)

    assert learning.pins() == {0: ["teacher"]}
    assert learning.probes("default", 0) == [probe]
    with pytest.raises(StoreError, match="cannot be pinned"):
        learning.pin("default", 7, "teacher")
    with pytest.raises(StoreError, match="no version 7"):
        learning.record_probe("default", 7, probe)


async def test_explain_follows_a_turn_to_the_version_that_learned_it(log, learning) -> None:
    await judged_with_hint(log, make_turn("t1"))
    learn(learning, 1)

    told = await log.explain("t1")

    assert told["fate"] == "trained"
    assert (told["steps"][0]["version"], told["steps"][0]["recipe"], told["steps"][0]["use"]) == (
        1,
        "hint_opsd",
        1,
    )
    assert [event["state"] for event in told["steps"][0]["version_history"]] == ["candidate", "serving"]

    learning.rollback("default", 0, "worse")
    told = await log.explain("t1")
    assert told["fate"] == "rejected:rolled_back"
    assert told["rejection"] == {"reason": "rolled_back", "version": 1, "created_at": NOW}


# opening


def test_a_run_whose_server_never_started_has_no_learning(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="start the server once"):
        LearningLog(tmp_path)


def test_a_reader_changes_nothing_and_a_closed_log_says_so(tmp_path: Path, learning) -> None:
    with LearningLog(tmp_path, read_only=True) as reader:
        assert reader.serving().number == 0
        assert reader.account().balanced
        with pytest.raises(StoreError, match="read-only"):
            reader.pin("default", 0, "x")
    reader.close()
    with pytest.raises(StoreError, match="closed"):
        reader.account()


# groups


async def attempt(
    log: SignalLog, session: str, *turns: str, reward: float | None = 1.0, at: float = 1000.0
) -> None:
    """A session of an environment: its turns, each followed by something, and a reward at the end."""
    for turn in turns:
        await record(log, make_turn(turn, session=session, received_at=at))
        await answer(log, turn, end=End.CLOSED if turn == turns[-1] else None)
        await log.mark_judged(turn, "abstained")
    if reward is not None:
        await log.record_signal(Signal(turn_id=turns[-1], source=SignalSource.ENVIRONMENT, reward=reward))


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
