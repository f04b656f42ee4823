"""Approvals that say nothing, at work in the learner's loop."""

from pathlib import Path

import pytest
from guarded_run import guarded, held_out_names, say, settled
from learner_run import Run, write_base

from agentrl.learner.guard_report import read_report
from agentrl.store.learning_log import LearningLog
from agentrl.types import Turn


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


FAR = {"batch__turns_per_step": 2, "limits__max_logprob_gap": 1e9}
"""The log-probs of these turns are made up."""


def rated(run: Run, num: int, sessions: int) -> list[Turn]:
    return run.record(
        *(run.turn(f"task {i}", "abc", session=f"s{i % sessions}", logprobs=(-5.0,) * 4) for i in range(num))
    )


def test_approvals_of_a_user_who_approves_of_everything_teach_nothing_until_he_disapproves(
    tmp_path: Path, base: Path
) -> None:
    run = guarded(Run(tmp_path / "run", base, recipe="openclaw_rl_binary", **FAR), approval_span=3)
    turns = rated(run, 6, sessions=3)
    for turn in turns[:5]:
        say(run, turn, "user", reward=1.0)
    with run.learner() as learner:
        learner.loop.start()
        settled(learner)

        assert run.account() == (6, 0, {"empty_approval": 5, "no_reward": 1}, {})
        assert read_report(run.path)["empty_approvals"] == 5

        say(run, turns[5], "user", reward=-1.0)  # frees the three before it
        settled(learner)

        assert run.account() == (6, 4, {"empty_approval": 2}, {})
        assert read_report(run.path)["empty_approvals"] == 2


def test_an_approval_that_says_nothing_leaves_what_others_said_of_the_turn(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, recipe="openclaw_rl_binary", **FAR)
    turns = rated(run, 4, sessions=4)
    for turn, source in zip(turns, ("environment", "judge", "rule", "rule"), strict=True):
        say(run, turn, "user", reward=1.0)
        if turn is not turns[3]:
            say(run, turn, source, reward=1.0)
    with run.learner() as learner:
        learner.loop.start()
        settled(learner)

        # an environment and a judge are not the user; the rule judge has read the same user's words
        assert run.account()[1:3] == (2, {"empty_approval": 2})


def test_an_approval_that_says_nothing_is_as_good_as_silence_where_hints_teach(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, batch__turns_per_step=2)
    run.record(run.turn("do this thing now", "abc", session="a"), hint="say xyz")
    [approved] = run.record(run.turn("do this thing now", "abc", session="b"))
    say(run, approved, "user", reward=1.0)
    with run.learner() as learner:
        learner.loop.start()
        settled(learner)

        assert run.account() == (2, 2, {}, {})
    with LearningLog(run.path) as log:
        assert log.fate(approved.id) == "trained"


def test_an_approval_that_says_nothing_is_no_part_of_the_gates_probe(tmp_path: Path, base: Path) -> None:
    found = {}
    for most in (0, 20):
        run = guarded(Run(tmp_path / f"run{most}", base, batch__turns_per_step=2), approval_span=most)
        turns = run.record(*(run.turn("do it", "fine", turn_id=name) for name in held_out_names(3)))
        for turn in turns:
            say(run, turn, "user", reward=1.0)
        with run.learner() as learner:
            learner.loop.start()
            settled(learner)
            found[most] = len(learner.loop._held_out.rows)

    assert found == {0: 3, 20: 0}


def test_what_is_said_between_listening_and_claiming_is_heard_before_it_is_taught(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, recipe="openclaw_rl_binary", batch__turns_per_step=1)
    [turn] = rated(run, 1, sessions=1)
    with run.learner() as learner:
        learner.loop.start()
        learner.guards.listen()
        say(run, turn, "user", reward=1.0)
        claims = learner.log.claim(limit=1, needs="reward", max_age_s=1e9)

        assert len(claims) == 1
        assert learner.guards.sift(claims).kept == []
