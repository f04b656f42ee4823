"""`agentrl status` in short and whole."""

from pathlib import Path

import pytest
from server_house import MODEL, says, serving

from agentrl.store.learning_log import LearningLog
from agentrl.store.versions import VersionStore
from agentrl.types import PolicyVersion, VersionState
from server.cli import outline
from server.guard_pages import RESUME
from server.learner_child import LearnerChild
from server.status import learner_report, short


def served(log: LearningLog, number: int) -> None:
    store = VersionStore(log.path.parent)
    store.write(number, lambda place: None)
    log.publish(
        PolicyVersion(
            policy="default",
            number=number,
            parent=number - 1,
            state=VersionState.CANDIDATE,
            path=store.relative_path(number),
            step_ids=(),
            metrics={f"figure {one}": 0.5 for one in range(25)},
        )
    )
    log.set_state("default", number, VersionState.SERVING, "passed")


async def test_forty_versions_later_the_status_still_fits_on_a_screen_and_the_whole_is_there_too(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, lambda *_: says("Ok.")) as house:
        await house.ask({"role": "user", "content": "Hello"})
    with LearningLog(tmp_path) as log:
        log.ensure_base("default", str(MODEL))
        for number in range(1, 41):
            served(log, number)
    async with serving(tmp_path, lambda *_: says("Ok.")) as house:
        whole = (await house.http.get("/v1/status")).json()

    brief = short(whole)

    assert len(outline(whole)) > 1000
    assert len(outline(brief)) < 70, "\n".join(outline(brief))
    assert (brief["versions"]["num"], brief["versions"]["serving"], brief["versions"]["retired"]) == (
        41,
        1,
        40,
    )
    assert list(brief["versions"]["newest"]) == ["38", "39", "40"]
    assert brief["versions"]["newest"]["40"].startswith("serving, 0 steps, served from ")
    assert brief["account"]["accepted"] == whole["account"]["accepted"] == 1
    assert brief["account"]["pending"] == {"open": 1}
    assert brief["serving"] == {"newest": 40, "models": len(whole["serving"]["models"]), "resident": 1}


def test_a_pause_stands_in_the_short_report_and_zeros_that_say_something_stay() -> None:
    account = {"accepted": 3, "trained": 0, "rejected": {}, "pending": {"open": 3, "review": 0}, "apart": {}}
    guards = {"paused": True, "paused_because": "an alarm", "watch": {"entropy": {"now": 1.0}}}

    brief = short(
        {"serving": 0, "account": account, "guards": guards, "versions": [], "learning_paused": True}
    )

    assert brief["learner"] == {"state": "paused", "because": "an alarm", "remedy": RESUME}
    assert "learning_paused" not in brief, "one state, said once"
    assert (brief["serving"], brief["account"]["trained"], brief["account"]["pending"]) == (0, 0, {"open": 3})
    assert "versions" not in brief


def test_an_alarm_that_was_only_reported_stands_in_the_short_report() -> None:
    alarm = {
        "at": 1.8e9,
        "acts": "report",
        "reasons": ["the rate of questions is 1.00, 0.00 in the reference"],
    }

    brief = short({"serving": 0, "guards": {"paused": False, "alarm": alarm}})

    assert (
        ": the rate of questions is 1.00, 0.00 in the reference; nothing was done, for guards.watch"
        in brief["alarm"]
    )
    assert "alarm" not in short({"serving": 0, "guards": {"paused": False}})


@pytest.mark.parametrize(
    ("process", "paused", "state"),
    [
        ("running", False, "running"),
        ("running", True, "paused"),
        ("starting", True, "paused"),
        ("refused its settings", True, "refused its settings"),
    ],
)
def test_a_learner_is_in_one_state_and_a_paused_one_says_why_and_what_ends_it(
    tmp_path: Path, process: str, paused: bool, state: str
) -> None:
    learner = LearnerChild(tmp_path, crashed=lambda: None)
    learner.state = process

    found = learner_report(learner, {"paused": paused, "paused_because": None})

    assert found["state"] == state
    assert ("because" in found, "remedy" in found) == (state == "paused",) * 2
    if state == "paused":
        assert found["because"] == "somebody asked for it (`agentrl pause`)"
        assert "`agentrl resume`" in found["remedy"]


def test_a_run_that_never_learned_has_a_short_report() -> None:
    assert short({"server": "not running", "policy": "default", "serving": 0})["server"] == "not running"
