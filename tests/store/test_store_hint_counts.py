"""How many hints passed their gates, counted from the log."""

from pathlib import Path

import pytest
from store_samples import answer, make_turn, record

from agentrl.signals.rules import judge_user_text
from agentrl.store.hint_counts import HintCounts, hint_counts
from agentrl.store.signal_log import SignalLog

JUDGED = (
    ("judged", "hint passed length, injection"),
    ("judged", "hint passed length, injection"),
    ("judged", "hint refused by injection: an address; hint passed length, injection"),
    ("abstained", "hint refused by length: 301 characters; hint refused by injection: a command; with; more"),
    ("judged", "hint shortened by injection: 1 clause; hint passed length, injection"),
    ("abstained", "the tools reported no failure"),
    ("abstained", "the user said: hint refused by leak: of mine"),
    ("abstained", judge_user_text("And what about Lisbon?").evidence),
    (
        "abstained",
        judge_user_text("And what about Lisbon?").evidence + "; not asked: the hour's calls are spent",
    ),
    ("judged", ""),
)


async def test_a_turn_counts_once_and_each_gate_with_all_that_it_refused(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        for number, (outcome, detail) in enumerate(JUDGED):
            await record(log, make_turn(f"t{number}", session=f"s{number}"))
            await answer(log, f"t{number}")
            await log.mark_judged(f"t{number}", outcome, detail)

    found = hint_counts(tmp_path, "default")
    refused = {"injection": 2, "length": 1}
    assert found == HintCounts(num_accepted=4, num_refused=1, refused=refused, num_unread=2)
    assert found.acceptance_rate == pytest.approx(0.8)
    assert hint_counts(tmp_path, "other") == HintCounts(num_accepted=0, num_refused=0)
    assert hint_counts(tmp_path, "other").acceptance_rate is None
