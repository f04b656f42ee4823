"""What operators see of the guards: the report, the pause and its reason, what was set aside and why."""

from pathlib import Path

import pytest

from agentrl.config import Config, write_config
from agentrl.errors import ConfigError
from agentrl.learner.control import set_paused
from agentrl.learner.guard_report import read_report, write_report
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from server.doctor import REMEDIES, diagnose
from server.guard_pages import findings, guards_of, numbers
from server.inspect import status_of
from server.metrics import Metrics
from server.runtime import Runtime

REPORT = {
    "budget": {"version": 3, "kl_update": 0.01, "not_measured": ["kl_base", "probe_fall"]},
    "watch": {"turns": 64, "of": 64, "against": "control", "entropy": {"now": 0.2, "reference": 0.3}},
    "shares": {"session": 0.5},
    "quarantined": 2,
}


def test_findings_name_the_pause_what_was_set_aside_and_what_was_not_measured(tmp_path: Path) -> None:
    write_report(tmp_path, REPORT)
    set_paused(tmp_path, paused=True, reason="the watch raised an alarm: replies are long")
    found = findings(guards_of(tmp_path), {"contradicted": 2, "untrusted": 1, "gate": 4})

    assert len(found) == 5
    assert found[0] == (
        "learning was paused: the watch raised an alarm: replies are long; look at it, then `agentrl resume`"
    )
    assert found[1].startswith("2 turns are set aside as 'contradicted'")
    assert found[2].startswith("1 turns are set aside as 'untrusted'")
    assert (
        "against guards.max_kl_base: too few rewarded turns of the probe were sampled by version 0"
        in found[3]
    )
    assert "against guards.max_fall: the probe holds too few rewarded turns" in found[4]


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
    assert diagnose(tmp_path)["guards"][0].startswith("learning was paused: an alarm")


async def test_a_server_refuses_guards_that_its_recipe_leaves_no_room_for(tmp_path: Path) -> None:
    settings = {"learn": {"recipe": "dpo"}, "guards": {"quarantine": "on"}}
    config = Config.model_validate(settings | {"run_dir": str(tmp_path / "run")})

    with pytest.raises(ConfigError, match=r"set guards\.quarantine = 'auto'"):
        await Runtime(config).start()
