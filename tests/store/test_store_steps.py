"""Steps, versions and rollbacks, and how the learning log is opened, one rule a test."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import NOW, accept, claim, judged_with_hint, learn, make_turn, publish, step

from agentrl.errors import StoreError
from agentrl.store.learning_log import LearningLog
from agentrl.store.version_log import Probe, Refused
from agentrl.types import VersionState

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

    assert learning.account().pending == {"open": 0, "unjudged": 0, "review": 0, "waiting": 1, "claimed": 1}
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
    publish(learning, 4)
    learning.set_state("default", 4, VersionState.REJECTED, "worse")
    publish(learning, 6, parent=3)
    learning.forget_files("default", lambda versions, pins: [1])
    for target, why in (
        (1, r"has no files any more \(learn.keep_versions keeps more\)"),
        (3, "serves already"),
        (4, "was rejected"),
        (6, "has not passed its gate"),
        (5, "does not exist"),
    ):
        with pytest.raises(StoreError, match=f"version {target} {why}; choose one of 2, 0"):
            learning.rollback("default", target, "x")
    assert learning.rollback("default", 2, "x") == [3, 6]
    assert learning.rollback("default", 0, "x") == [1, 2]
    for target, why in (
        (0, "serves already; there is none before it"),
        (999, "does not exist; version 0 serves, and there is none before it"),
    ):
        with pytest.raises(StoreError, match=f"^version {target} {why}$"):
            learning.rollback("default", target, "x")


def test_the_versions_that_never_served_are_counted_with_what_refused_the_newest(learning) -> None:
    assert learning.refused() is None
    for number, parent, reason in ((1, 0, "held"), (2, 1, "KL is 0.6"), (3, 1, "KL is 0.7"), (4, 1, "held")):
        publish(learning, number, parent=parent)
        state = VersionState.SERVING if reason == "held" else VersionState.REJECTED
        learning.set_state("default", number, state, reason)
    publish(learning, 5, parent=4)
    learning.rollback("default", 1, "by hand")  # version 4 has served, and nobody refused version 5

    assert learning.refused() == Refused(num_versions=2, newest=3, reason="KL is 0.7")
    assert learning.refused("another") is None


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

    assert learning.account().pending == {"open": 0, "unjudged": 0, "review": 0, "waiting": 3, "claimed": 0}
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
