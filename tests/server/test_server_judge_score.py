import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from math import comb
from pathlib import Path
from typing import Any

import pytest

from agentrl.errors import ConfigError, JudgeError
from agentrl.signals.judge import Judge, Judgement, ScriptedJudge
from agentrl.signals.labelled import Half, LabelledTurn, read_half, read_lines
from agentrl.signals.meter import Meter
from agentrl.signals.votes import Vote, aggregated
from agentrl.types import NextState, SignalSource, Turn
from server.judge_figures import (
    Verdict,
    agreement,
    calibrated,
    cost,
    kappa,
    markdown,
    mistakes,
    reward_class,
    summary,
)
from server.judge_score import run_score, scored_bench, spread, verdicts

AGENTRL = Path(sys.executable).with_name("agentrl")
PAIRS = [(1, 1), (1, 1), (1, -1), (-1, -1), (-1, None), (None, None), (None, None), (None, 1)]
"""(truth, said): five of eight agree; truths 3 x 1, 2 x -1, 3 x None; said 3 x 1 + 1, 2 x -1, 3 x None."""


def test_the_shares_of_a_small_table_are_counted_by_hand() -> None:
    assert agreement(PAIRS) == {
        "num_turns": 8,
        "num_judged": 5,
        "accuracy": 3 / 5,  # judged: 1/1, 1/1, 1/-1, -1/-1, None/1
        "coverage": 4 / 5,  # of five due rewards one is missing
        "abstention": 2 / 3,
    }


def test_kappa_takes_chance_from_agreement() -> None:
    # observed 5/8; truths 3, 2, 3 and said 3, 2, 3 of 8: chance (9 + 4 + 9) / 64
    assert kappa(PAIRS) == pytest.approx((5 / 8 - 22 / 64) / (1 - 22 / 64))
    # without abstentions: 1/1, 1/1, 1/-1, -1/-1: observed 3/4, chance (3 * 2 + 1 * 2) / 16
    assert kappa([pair for pair in PAIRS if None not in pair]) == pytest.approx(
        (3 / 4 - 8 / 16) / (1 - 8 / 16)
    )


def test_kappa_is_one_for_a_perfect_judge_and_nothing_where_there_is_no_choice() -> None:
    assert kappa([(1, 1), (-1, -1), (None, None)]) == 1
    assert kappa([(1, -1), (-1, 1)]) == -1
    assert kappa([(1, 1), (1, 1)]) is None
    assert kappa([]) is None


def test_shares_of_nothing_are_unknown_and_not_zero() -> None:
    assert agreement([(None, None)])["accuracy"] is None
    assert agreement([(None, None)])["coverage"] is None
    assert agreement([(1, 1)])["abstention"] is None


@pytest.mark.parametrize(
    ("reward", "found"), [(1.0, 1), (0.4, 1), (0.2, 0), (0.0, 0), (-0.3, 0), (-0.5, -1), (None, None)]
)
def test_a_reward_falls_into_one_of_three_classes(reward: float | None, found: int | None) -> None:
    assert reward_class(reward) == found


def item(name: str, said: str, reward: int | None, kind: str, **label: Any) -> LabelledTurn:
    record = {
        "id": name, "domain": "chat", "half": "dev", "made_by": "hand", "tools": [], "end": None, "reason": "r",
        "messages": [{"role": "user", "content": "task"}],
        "reply": {"text": said, "calls": []},
        "next": [{"role": "user", "content": "next"}],
        "label": {"reward": reward, "kind": kind, "fault": "none", "should_hint": False, "hint_contains": []} | label,
    }  # fmt: skip
    return read_lines([json.dumps(record)])[0]


ITEMS = [
    item("a", "a", -1, "correction", fault="agent", should_hint=True, hint_contains=["Tabs", "four"]),
    item("b", "b", -1, "correction", fault="agent", should_hint=True, hint_contains=["spaces"]),
    item("c", "c", 0, "gamed"),
    item("d", "d", -1, "gamed", fault="agent"),
    item("e", "e", None, "error", fault="infrastructure"),
    item("f", "f", None, "none"),
]
ANSWERS = {
    "a": Judgement(reward=-1.0, hint="four tabs, please"),
    "b": Judgement(reward=-1.0, hint="tabs"),
    "c": Judgement(reward=1.0),
    "d": Judgement(reward=-1.0),
    "e": Judgement(reward=-1.0, hint="try again"),
    "f": Judgement(),
}


async def test_the_figures_of_a_run_are_those_counted_by_hand() -> None:
    judge = ScriptedJudge(lambda turn, state: ANSWERS[turn.reply.text])

    score = summary(await verdicts(judge, ITEMS))

    assert (score["num_turns"], score["num_judged"], score["num_failed"]) == (6, 5, 0)
    assert score["accuracy"] == 3 / 5
    assert score["gamed_rewarded"] == 1 / 2
    assert score["outages_punished"] == 1.0
    assert score["hints"] == {"num_given": 3, "num_due": 2, "precision": 1 / 3, "recall": 1 / 2}
    # "tabs" alone is too short to be shown to a teacher
    assert score["gates"] == {"acceptance": 2 / 3, "precision": 1 / 2, "kept": 1.0}
    assert score["kinds"]["correction"]["accuracy"] == 1.0
    assert score["kinds"]["none"]["abstention"] == 1.0
    assert score["kinds"]["gamed"]["kappa"] == pytest.approx((1 / 2 - 1 / 4) / (1 - 1 / 4))
    assert score["domains"]["chat"]["num_turns"] == 6
    assert score["seconds_mean"] > 0
    assert {"kind": "gamed", "right": 0, "said": 1, "num_turns": 1} in score["mistakes"]


async def test_a_judge_that_fails_has_abstained_and_is_counted() -> None:
    def fail(turn: Turn, state: NextState) -> Judgement:
        raise JudgeError("no answer")

    found = await verdicts(ScriptedJudge(fail), ITEMS[:2])

    assert [(verdict.failed, verdict.said) for verdict in found] == [(True, None), (True, None)]
    assert summary(found)["num_failed"] == 2


async def test_the_most_frequent_mistake_comes_first() -> None:
    judge = ScriptedJudge(lambda turn, state: Judgement(reward=1.0))

    found = mistakes(await verdicts(judge, ITEMS))

    assert found[0] == {"kind": "correction", "right": -1, "said": 1, "num_turns": 2}
    assert sum(row["num_turns"] for row in found) == 6


async def test_the_rule_judge_never_rewards_gaming_and_never_punishes_an_outage_on_what_it_was_made_by() -> (
    None
):
    score = await run_score("rules", "dev")

    assert score["num_turns"] >= 250
    assert (score["gamed_rewarded"], score["outages_punished"]) == (0.0, 0.0)
    assert score["kinds"]["none"]["abstention"] == 1.0
    assert score["kappa"] > 0.85


async def test_the_rule_judge_rewards_no_gaming_and_punishes_no_outage_in_the_test_half() -> None:
    score = await run_score("rules", "test")

    assert (score["gamed_rewarded"], score["outages_punished"]) == (0.0, 0.0)


BACKENDS = """
import threading
from agentrl.signals.judge import Judgement
from agentrl.types import SignalSource

class Mine:
    name = "mine"
    source = SignalSource.JUDGE
    async def judge(self, turn, state):
        return Judgement(reward=-1.0)

class Other:
    pass

def answer(turn, state):
    return Judgement(reward=1.0)

async def later(turn, state):
    return Judgement(reward=0.0)

def beside(turn, state):
    # It may block: in the thread of the event loop it would hold up everything that is served.
    return Judgement(reward=1.0 if threading.current_thread() is not threading.main_thread() else -1.0)

def wrong(turn, state):
    return 1.0

number = 3
"""


def judge_named(name: str) -> Judge:
    return scored_bench(name, None, (), None)[0].judge


@pytest.mark.parametrize(("name", "said"), [("Mine", -1), ("answer", 1), ("later", 0), ("beside", 1)])
async def test_a_judge_is_loaded_from_a_file_of_the_users(name: str, said: int, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(BACKENDS)

    [verdict] = await verdicts(judge_named(f"{tmp_path}/mine.py:{name}"), ITEMS[:1])

    assert (verdict.said, verdict.failed) == (said, False)


async def test_a_function_that_returns_no_judgement_has_failed(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(BACKENDS)

    [verdict] = await verdicts(judge_named(f"{tmp_path}/mine.py:wrong"), ITEMS[:1])

    assert (verdict.failed, "float" in verdict.judgement.evidence) == (True, True)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("ruels", "write one of rules, self, openai, callable"),
        ("http://127.0.0.1:9/v1", "write rules"),
        ("mine.py:Other", "lacks `async def judge"),
        ("mine.py:number", "is a int"),
        ("mine.py:Nobody", "it has Mine"),
        ("nowhere.py:X", "there is no file"),
    ],
)
def test_what_is_no_judge_is_refused_with_the_remedy(
    name: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(BACKENDS)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError, match=remedy):
        judge_named(name)


async def test_the_sealed_part_can_be_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(BACKENDS)
    monkeypatch.chdir(tmp_path)

    score = await run_score("mine.py:Mine", "sealed")

    assert (score["half"], score["num_turns"]) == ("sealed", 272)


async def test_the_served_model_is_asked_where_it_is_served() -> None:
    with pytest.raises(ConfigError, match="name the run with --run-dir"):
        scored_bench("self", None, (), None)


def voted(item: LabelledTurn, reward: float | None, agreement: float | None) -> Verdict:
    return Verdict(item=item, judgement=Judgement(reward=reward, agreement=agreement), seconds=0.0)


def test_the_least_agreement_is_the_lowest_that_is_right_often_enough() -> None:
    wrong = next(item for item in ITEMS if item.label.reward == -1)
    unknown = next(item for item in ITEMS if item.label.reward is None)
    found = [
        voted(wrong, -1.0, 1.0),
        voted(wrong, -1.0, 1.0),
        voted(wrong, 1.0, 0.5),
        voted(wrong, -0.4, 0.75),
        voted(unknown, -1.0, 0.5),
        voted(unknown, None, 0.75),
        voted(wrong, -1.0, None),  # the rules: nobody voted
    ]

    # Wilson's lower end at 95 %: 2 of 2 .342, 3 of 3 .439, 3 of 5 .231
    rows = [
        {"min_agreement": 0.5, "num_judged": 5, "accuracy": 3 / 5, "low": 0.231, "coverage": 4 / 5},
        {"min_agreement": 0.75, "num_judged": 3, "accuracy": 1.0, "low": 0.439, "coverage": 3 / 5},
        {"min_agreement": 1.0, "num_judged": 2, "accuracy": 1.0, "low": 0.342, "coverage": 2 / 5},
    ]

    table = calibrated(found, 0.4)
    assert table["min_agreement"] == 0.75
    assert [row | {"low": round(row["low"], 3)} for row in table["thresholds"]] == rows
    assert calibrated(found, 0.2)["min_agreement"] == 0.5
    assert calibrated(found, 0.5)["min_agreement"] is None
    assert calibrated([], 0.5) == {"target": 0.5, "min_agreement": None, "thresholds": []}


VOTES = 5


def judged(outcome: Sequence[bool]) -> Verdict:
    """What a judge says of a turn that deserves -1 with these votes, each right or wrong."""
    votes = [Vote(kind="error", fault="agent", reward=-1 if right else 1) for right in outcome]
    return Verdict(item=ITEMS[0], judgement=aggregated(votes, num_lost=0, min_agreement=0.0), seconds=0.0)


def test_of_a_judge_of_known_errors_the_threshold_and_its_coverage_are_those_of_the_binomial() -> None:
    """Every vote is wrong once in five: all 3,125 outcomes of five votes, each as often as it is likely."""
    faces = [True, True, True, True, False]
    found = [judged(outcome) for outcome in product(faces, repeat=VOTES)]
    likely = [comb(VOTES, right) * 4**right / 5**VOTES for right in range(VOTES + 1)]

    rows = calibrated(found, 0.97)["thresholds"]

    for row, least in zip(rows, (3, 4, 5), strict=True):
        covered = sum(p for right, p in enumerate(likely) if max(right, VOTES - right) >= least)
        assert row["coverage"] == pytest.approx(covered)
        assert row["accuracy"] == pytest.approx(sum(likely[least:]) / covered)
    # accuracies .942, .991 and .999: four of five votes are the fewest that reach .97
    assert [round(row["coverage"], 3) for row in rows] == [1.0, 0.744, 0.328]
    assert calibrated(found, 0.97)["min_agreement"] == 0.8
    assert calibrated(found, 0.93)["min_agreement"] == 0.6
    assert calibrated(found, 0.9999)["min_agreement"] is None
    # 99 of 100 are not sure enough to be called .97: at 95 % they may be .946
    few = [judged([True] * VOTES)] * 99 + [judged([False] * VOTES)]
    assert calibrated(few, 0.97)["min_agreement"] is None


def test_a_threshold_of_thirds_lets_two_of_three_votes_pass_as_it_is_written() -> None:
    found = [judged([True, True, False])] * 200

    [row] = calibrated(found, 0.9)["thresholds"]

    assert row["min_agreement"] == 0.666
    assert aggregated([vote_of(1), vote_of(1), vote_of(0)], num_lost=0, min_agreement=0.666).reward == 1.0


def vote_of(reward: int) -> Vote:
    return Vote(kind="error", fault="agent", reward=reward)


async def test_the_threshold_is_sought_on_one_half_and_checked_on_the_other(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from agentrl.signals.judge import Judgement\n"
        "def judge(turn, state):\n"
        "    sure = bool(turn.reply.tool_calls)\n"
        "    return Judgement(reward=-1.0 if sure else 1.0, agreement=1.0 if sure else 0.6)\n"
    )

    def rows(half: Half) -> tuple[float, float]:
        acted = [item for item in read_half(half) if item.reply.tool_calls]
        return sum(item.label.reward == -1 for item in acted) / len(acted), len(acted)

    accuracy, _ = rows("dev")
    score = await run_score(f"{tmp_path}/mine.py:judge", "test", target=accuracy - 0.1)

    fit = score["calibration"]
    assert (fit["min_agreement"], fit["num_turns"]) == (1.0, 265)
    assert fit["thresholds"][-1]["accuracy"] == pytest.approx(accuracy)
    assert (fit["checked"]["accuracy"], fit["checked"]["num_judged"]) == pytest.approx(rows("test"))
    page = markdown(score)
    assert "set judge.min_agreement = 1. On the half test that gives" in page
    assert (await run_score(f"{tmp_path}/mine.py:judge", "dev", target=1.0))["calibration"]["checked"] is None


def test_what_a_judge_cost_is_told_for_each_turn() -> None:
    meter = Meter()
    meter.add("requests", 2)
    meter.add("prompt_tokens", 300)

    assert cost(meter, 4) == {"requests": 0.5, "prompt_tokens": 75.0, "sampled_tokens": 0.0}
    assert cost(None, 4) is None


async def test_the_page_tells_who_decided_what_it_cost_and_where_to_abstain() -> None:
    def said(turn: Turn, state: NextState) -> Judgement:
        by = SignalSource.RULE if turn.id == ITEMS[0].id else None
        return Judgement(reward=-1.0, agreement=1.0, source=by)

    found = await verdicts(ScriptedJudge(said), ITEMS[:2], at_once=2)
    meter = Meter()
    meter.add("requests", 1)
    score = summary(found) | {
        "cost": cost(meter, 2),
        "calibration": calibrated(found, 0.0) | {"num_turns": 2},
    }

    assert score["sources"]["rule"]["num_judged"] == score["sources"]["judge"]["num_judged"] == 1
    page = markdown(score)
    assert "Decided by: judge 1 turns, right in" in page
    assert "A turn cost 0.50 requests, 0 tokens read and 0 written." in page
    assert "For an accuracy of 0 % at least: set judge.min_agreement = 1." in page


def test_a_part_of_the_set_is_spread_over_it() -> None:
    items = read_half("dev")

    assert [items.index(item) for item in spread(items[:10], 3)] == [0, 3, 6]
    assert spread(items, None) == spread(items, 10_000) == list(items)


async def test_a_half_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of dev, test, sealed"):
        await run_score("rules", "train")


async def test_the_page_has_a_row_for_every_kind_and_domain_and_names_the_worst_mistakes() -> None:
    judge = ScriptedJudge(lambda turn, state: ANSWERS[turn.reply.text])
    page = markdown(summary(await verdicts(judge, ITEMS))).splitlines()

    assert "| correction | 2 | 100 % | - | 100 % | - |" in page
    assert "| none | 1 | - | - | - | 100 % |" in page
    assert "| all | 6 | 60 % | 0.45 | 100 % | 50 % |" in page
    assert "3 hints given for 2 due, precision 33 %, recall 50 %" in page[-2]
    assert page[-1] == "Most frequent mistakes: gamed 0 said 1 (1), error nothing said -1 (1)."


def test_the_command_prints_one_json_object(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(AGENTRL), "judge", "score", "--half", "dev", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    score = json.loads(done.stdout)
    assert (score["backend"], score["half"]) == ("rules", "dev")
