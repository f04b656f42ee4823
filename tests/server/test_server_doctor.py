"""What the doctor says of versions: lessons that they lost, and gates that had nothing to compare."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from test_server_inspect import PENDING, one_conversation

from agentrl.recipes.recipe import load_recipe
from agentrl.signals.lessons import gather
from agentrl.store.account import Account
from agentrl.store.learning_log import LearningLog
from agentrl.store.lesson_rows import PROBE
from agentrl.store.version_log import Probe, Refused
from agentrl.types import PolicyVersion, VersionState
from server.doctor import clipped_finding, diagnose, first_unmet, refused_finding

REPLIES = {"probe_turns": 0.0, "reply_surprise": 1.2}
COMPARED = {"probe_turns": 4.0, "probe_change": 0.1}
NOTHING = {"probe_turns": 3.0}
RUNS = {"model": "nano", "is_running": True, "is_paused": False, "learner": None}


def serve(log: LearningLog, number: int, metrics: Mapping[str, float]) -> None:
    log.publish(
        PolicyVersion(
            policy="default", number=number, parent=number - 1, state=VersionState.CANDIDATE,
            path=f"versions/{number:06d}", metrics=dict(metrics),
        )
    )  # fmt: skip
    log.set_state("default", number, VersionState.SERVING, "the gate passed")


def run_of(path: Path, *served: Mapping[str, float], holds: tuple[bool, ...] = ()) -> dict:
    """The diagnosis of a run with one lesson, and of each version whether it holds it."""
    asyncio.run(one_conversation(path))
    with LearningLog(path) as log:
        log.ensure_base("default", "base")
        log.configure("default", needs="hint", group_size=1, approve="auto")
        gather(log, "default", "auto")
        [lesson] = log.lessons("default")
        for number, metrics in enumerate(served, 1):
            serve(log, number, metrics)
        for number, held in enumerate(holds, 1):
            log.record_probe("default", number, Probe(name=PROBE + lesson.id, passed=held, detail="cat"))
    return diagnose(path)


def test_the_doctor_says_which_version_broke_lessons_and_what_helps(tmp_path: Path) -> None:
    found = run_of(tmp_path, REPLIES, REPLIES, holds=(True, False))

    assert found["lessons"] == (
        "1 of 1 lessons are broken, the first since version 2: `agentrl rollback 1` serves the version before, and "
        "steps that break less have a lower optim.lr (now 1e-05) or more turns: batch.turns_per_step (now 8); "
        "`agentrl progress` names them"
    )


def test_a_version_that_is_gone_from_disk_is_not_offered(tmp_path: Path) -> None:
    run_of(tmp_path, REPLIES, REPLIES, holds=(True, False))
    with LearningLog(tmp_path) as log:
        log.forget_files("default", lambda versions, pins: [1])

    found = diagnose(tmp_path)["lessons"]
    assert "since version 2: steps that break less" in found
    assert "rollback" not in found


def test_lessons_that_hold_are_no_finding(tmp_path: Path) -> None:
    assert "lessons" not in run_of(tmp_path, REPLIES, REPLIES, holds=(False, True))


def test_nothing_is_not_said_to_be_wrong_where_lessons_are_broken() -> None:
    account = Account(accepted=10, trained=4, rejected={}, pending=PENDING, apart={})
    found = first_unmet(account, {}, load_recipe("hint_opsd"), **RUNS, broken="2 are")

    assert found == "4 turns were trained, but 2 are"


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        (
            "version lag",
            "the weights were more than limits.max_version_lag versions further when their turn came",
        ),
        ("no context", "their next states said nothing of what should have been done"),
        ("of another release", "`agentrl explain` shows one of them"),
    ],
)
def test_what_most_turns_were_set_aside_for_is_explained_also_where_others_were_trained(
    reason: str, remedy: str
) -> None:
    account = Account(accepted=10, trained=4, rejected={reason: 6}, pending=PENDING, apart={})
    found = first_unmet(account, {}, load_recipe("hint_opsd"), **RUNS)

    assert found.startswith(
        f"nothing is wrong: 4 turns were trained; 6 were set aside as {reason!r}: {remedy}"
    )


def gates(found: dict) -> list[str]:
    return [text for text in found["guards"] if "went live" in text]


def test_the_doctor_counts_versions_that_nothing_was_held_against(tmp_path: Path) -> None:
    assert gates(run_of(tmp_path, NOTHING, REPLIES, NOTHING, COMPARED)) == [
        "2 of 4 versions went live without a comparison: the gate's probe held too few rewarded turns; send rewards "
        "by /v1/feedback"
    ]


@pytest.mark.parametrize("metrics", [REPLIES, COMPARED, {"probe_turns": 0.0, "kl_base": 0.02}])
def test_versions_of_which_something_was_compared_are_no_finding(
    tmp_path: Path, metrics: dict[str, float]
) -> None:
    assert gates(run_of(tmp_path, metrics, metrics)) == []


def test_garbled_replies_call_for_smaller_steps_and_not_for_a_wider_bound() -> None:
    refused = Refused(num_versions=3, newest=7, reason="version 0 finds .., guards.max_surprise allows 3")

    assert refused_finding(refused, serving=4).endswith(
        "allows 3; such replies are garbled: lower optim.lr, or take more turns a step"
    )


@pytest.mark.parametrize(("cut", "is_said"), [(41.0, True), (40.0, False)])
def test_the_doctor_says_when_most_of_what_was_taught_is_cut(cut: float, is_said: bool) -> None:
    version = PolicyVersion(
        policy="default", number=3, parent=2, state=VersionState.SERVING, path="versions/000003",
        metrics={"num_clipped_kd": cut, "num_tokens": 80.0},
    )  # fmt: skip

    found = clipped_finding([version], load_recipe("opsd"))

    assert bool(found) is is_said
    if is_said:
        assert found.startswith(
            "at 41 of 80 tokens that version 3 was taught, estimator.pointwise_clip = 0.05 cut terms"
        )
    assert clipped_finding([version], load_recipe("hint_opsd")) == "", "which has no such clip"
    assert clipped_finding([], load_recipe("opsd")) == ""
