"""What operators see of the guards: the report, the pause and its reason, what was set aside and why."""

import asyncio
from datetime import datetime
from pathlib import Path

import pytest

from agentrl.config import Config, write_config
from agentrl.errors import ConfigError
from agentrl.learner.control import set_paused
from agentrl.learner.guard_report import read_report, write_report
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from server.doctor import REMEDIES, diagnose
from server.guard_notices import news, tell
from server.guard_pages import alarm_said, findings, guards_of, not_measured, numbers
from server.inspect import status_of
from server.metrics import Metrics
from server.runtime import Runtime

REPORT = {
    "budget": {"version": 3, "kl_update": 0.01, "not_measured": ["kl_base", "probe_fall"]},
    "watch": {"turns": 64, "of": 64, "against": "control", "entropy": {"now": 0.2, "reference": 0.3}},
    "shares": {"session": 0.5},
    "quarantined": 2,
}


def test_findings_name_the_pause_and_what_was_set_aside_and_not_what_was_not_measured(tmp_path: Path) -> None:
    write_report(tmp_path, REPORT)
    set_paused(tmp_path, paused=True, reason="the watch raised an alarm: replies are long")
    found = findings(guards_of(tmp_path), {"contradicted": 2, "untrusted": 1, "gate": 4})

    assert len(found) == 3
    assert found[0] == (
        "learning was paused: the watch raised an alarm: replies are long; look at it, then `agentrl resume`"
    )
    assert found[1].startswith("2 turns are set aside as 'contradicted'")
    assert found[2].startswith("1 turns are set aside as 'untrusted'")


def test_what_was_not_measured_is_one_line(tmp_path: Path) -> None:
    write_report(tmp_path, REPORT)

    assert not_measured(guards_of(tmp_path)) == (
        "the newest version against guards.max_kl_base, guards.max_fall: the gate's probe holds too few rewarded "
        "turns; send rewards by /v1/feedback; and version 0's own answers were no measure of guards.max_kl_base: the "
        "recipe shows its teacher no context or has another model for one, or no trained prompt is shorter than the "
        "model's length"
    )
    only_by_the_probe = not_measured({"budget": {"not_measured": ["probe_fall"]}})
    assert only_by_the_probe.endswith("by /v1/feedback")
    assert not_measured({"budget": {"not_measured": []}}) == not_measured({}) == ""


AT = 1_763_700_000.0
RETURNED = {
    "at": AT, "acts": "rollback", "reasons": ["replies are long", "it asks"], "serves": 2,
    "passed_over": {"5": "garbled", "4": "garbled"},
}  # fmt: skip


def test_an_alarm_is_told_with_what_serves_again_and_what_was_passed_over() -> None:
    at = datetime.fromtimestamp(AT).astimezone().isoformat()

    assert alarm_said(RETURNED) == (
        f"{at}: replies are long; it asks; version 2 serves again, versions 5, 4 were passed over, bad as well"
    )
    assert alarm_said({"at": AT, "acts": "report", "reasons": ["it asks"]}) == (
        f"{at}: it asks; nothing was done, for guards.watch = 'report': `agentrl rollback` serves an earlier version"
    )


def test_the_console_is_told_of_an_alarm_of_a_pause_and_of_its_end_once_each() -> None:
    calm = {"paused": False, "paused_because": None}
    alarmed = {"paused": True, "paused_because": "the watch raised an alarm: it asks", "alarm": RETURNED}

    raised = news(calm, alarmed)
    assert len(raised) == 2
    assert raised[0].startswith("the watch raised an alarm at ")
    assert "version 2 serves again" in raised[0]
    assert raised[1].startswith("learning is paused by the watch, serving goes on: `agentrl resume` goes on")
    # the watch pauses first, and reports when another version serves
    pausing = {name: value for name, value in alarmed.items() if name != "alarm"}
    first, second = news(calm, pausing), news(pausing, alarmed)
    assert [first, second] == [[raised[1]], [raised[0]]]
    assert news(alarmed, alarmed) == []
    assert news(alarmed, calm | {"alarm": RETURNED}) == ["learning goes on"]
    assert news(calm, calm | {"paused": True, "paused_because": "tea"})[0].startswith(
        "learning is paused (tea), "
    )


@pytest.mark.timeout(120)
async def test_a_server_says_on_its_console_what_the_guards_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    set_paused(tmp_path, paused=True, reason="before the start")
    telling = asyncio.create_task(tell(tmp_path, look_s=0.01))

    async def said(text: str) -> None:
        while text not in caplog.text:
            await asyncio.sleep(0.01)

    await said("learning is paused (before the start)")
    set_paused(tmp_path, paused=False)
    await said("learning goes on")
    write_report(tmp_path, {"alarm": RETURNED})
    await said("version 2 serves again")
    telling.cancel()


def test_findings_say_how_many_approvals_count_for_nothing_and_what_frees_them(tmp_path: Path) -> None:
    write_report(tmp_path, {"empty_approvals": 12})
    first, second = findings(guards_of(tmp_path), {"empty_approval": 7})

    assert first == "7 turns are set aside as 'empty_approval': their user approves of everything"
    assert second.startswith("12 approvals count for nothing: their API keys approve of everything")
    assert second.endswith("sends /v1/feedback with source 'environment'")
    assert findings(guards_of(tmp_path), {}) == [second]
    assert numbers(guards_of(tmp_path))["empty_approvals"] == 12.0
    assert "source 'environment'" in REMEDIES["empty_approval"]


def test_a_run_without_trouble_has_no_findings(tmp_path: Path) -> None:
    assert findings(guards_of(tmp_path), {"gate": 4, "side": 2}) == []
    assert guards_of(tmp_path) == {"paused": False, "paused_because": None}


def test_a_damaged_report_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "guards.json").write_text("{")
    assert read_report(tmp_path) == {}


def test_the_first_reason_of_a_pause_stays_until_it_ends(tmp_path: Path) -> None:
    set_paused(tmp_path, paused=True, reason="first")
    set_paused(tmp_path, paused=True, reason="second")
    assert guards_of(tmp_path)["paused_because"] == "first"
    set_paused(tmp_path, paused=False)
    set_paused(tmp_path, paused=True)
    assert guards_of(tmp_path) == {"paused": True, "paused_because": None}


def test_metrics_show_what_the_guards_measured(tmp_path: Path) -> None:
    write_report(tmp_path, REPORT)
    metrics = Metrics()
    metrics.read_guards = lambda: numbers(guards_of(tmp_path))
    text = metrics.exposition().decode()

    assert 'agentrl_guards{what="kl_update"} 0.01' in text
    assert 'agentrl_guards{what="entropy"} 0.2' in text
    assert 'agentrl_guards{what="entropy_reference"} 0.3' in text
    assert 'agentrl_guards{what="share_session"} 0.5' in text
    assert 'agentrl_guards{what="quarantined"} 2.0' in text
    assert 'agentrl_guards{what="paused"} 0.0' in text
    assert "version" not in numbers(guards_of(tmp_path))


async def test_status_and_doctor_of_a_run_hold_the_guards(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path):
        pass
    write_config(Config(run_dir=str(tmp_path)), tmp_path / "config.json")
    with LearningLog(tmp_path) as log:
        log.ensure_base("default", "base")
    write_report(tmp_path, REPORT)
    set_paused(tmp_path, paused=True, reason="an alarm")

    assert status_of(tmp_path)["guards"]["paused_because"] == "an alarm"
    found = diagnose(tmp_path)
    assert found["guards"][0].startswith("learning was paused: an alarm")
    assert next(iter(found)) == "finding", "first, and what was not measured behind the findings"
    assert list(found).index("not_measured") > list(found).index("guards")
    assert found["not_measured"].startswith(
        "the newest version against guards.max_kl_base, guards.max_fall: "
    )


async def test_a_server_refuses_guards_that_its_recipe_leaves_no_room_for(tmp_path: Path) -> None:
    settings = {"learn": {"recipe": "dpo"}, "guards": {"quarantine": "on"}}
    config = Config.model_validate(settings | {"run_dir": str(tmp_path / "run")})

    with pytest.raises(ConfigError, match=r"set guards\.quarantine = 'auto'"):
        await Runtime(config).start()
