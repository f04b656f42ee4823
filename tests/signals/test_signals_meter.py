"""The judge's hour: it outlives the process, and judges of the user's are counted in it too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from judge_turns import followed, make_turn, user

from agentrl.config import load_config
from agentrl.errors import ConfigError
from agentrl.signals.counted import CountedJudge
from agentrl.signals.judge import Judgement, ScriptedJudge
from agentrl.signals.llm import NotAskedError
from agentrl.signals.meter import Meter
from server.judges import make_bench

SPENDS = """
import os, signal, sys
from pathlib import Path
from agentrl.signals.meter import Meter

meter = Meter(max_calls=8, path=Path(sys.argv[1]))
for _ in range(5):
    meter.add("requests")
    meter.add("prompt_tokens", 30)
os.kill(os.getpid(), signal.SIGKILL)
"""


def spent(path: Path, now: float = 0.0, **bounds: int) -> Meter:
    return Meter(path=path, clock=lambda: now, **bounds)


def test_a_process_that_was_killed_leaves_every_call_of_its_hour_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "hour"
    root = Path(__file__).parents[2]
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", SPENDS, str(path)], env=os.environ | {"PYTHONPATH": str(root)}, check=False
        )
        assert done.returncode == -9

    meter = Meter(max_calls=11, path=path)
    assert meter.report()["hour"] == {"calls": 10, "max_calls": 11, "tokens": 300, "max_tokens": 0}
    assert meter.counts == {}, "what this process did is another matter"
    assert meter.admits()
    meter.add("requests")
    assert not meter.admits()
    assert not Meter(max_calls=11, path=path).admits()


def test_what_is_older_than_an_hour_is_forgotten_in_the_file_too(tmp_path: Path) -> None:
    path = tmp_path / "hour"
    spent(path, 1000.0).add("requests", 3)
    spent(path, 2000.0).add("requests")

    assert spent(path, 4599.0).report()["hour"]["calls"] == 4
    assert spent(path, 4600.0).report()["hour"]["calls"] == 1
    assert path.read_text() == "2000 1 0\n"


def test_a_line_that_was_cut_costs_no_more_than_itself(tmp_path: Path) -> None:
    path = tmp_path / "hour"
    path.write_text("1000 1 0\n1000 0 12\n10")

    assert spent(path, 1500.0).report()["hour"] == {"calls": 1, "max_calls": 0, "tokens": 12, "max_tokens": 0}


def test_the_file_is_written_anew_before_it_grows_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentrl.signals.meter.MAX_LINES", 4)
    meter = spent(tmp_path / "hour", 1000.0)
    for _ in range(11):
        meter.add("requests")

    assert len((tmp_path / "hour").read_text().splitlines()) <= 4
    assert spent(tmp_path / "hour", 1000.0).report()["hour"]["calls"] == 11


def test_a_clock_that_is_set_back_makes_an_hour_no_longer_than_one(tmp_path: Path) -> None:
    path = tmp_path / "hour"
    spent(path, 90_000.0).add("requests", 2)
    now = [1000.0]
    meter = Meter(path=path, clock=lambda: now[0], max_calls=2)

    assert not meter.admits()
    now[0] = 4600.0
    assert meter.admits()


def test_a_file_that_cannot_be_written_stops_no_judge(tmp_path: Path) -> None:
    meter = spent(tmp_path / "nowhere" / "hour", 1000.0, max_calls=1)
    meter.add("requests")

    assert not meter.admits()
    assert meter.counts == {"requests": 1, "unsaved": 1}


def test_garbage_in_the_file_stops_no_start_and_what_can_be_read_counts(tmp_path: Path) -> None:
    path = tmp_path / "hour"
    lines = (b"\xff\x00 \xfe", b"9" * 400 + b" 1 1", b"1000 " + b"9" * 5000 + b" 1", b"1000 2 0")
    path.write_bytes(b"\n".join(lines))
    meter = spent(path, 1500.0, max_calls=3)
    meter.add("requests")

    assert not meter.admits()
    assert spent(path, 1500.0).report()["hour"]["calls"] == 3


def test_a_second_that_is_yet_to_come_holds_no_calls_for_longer_than_an_hour(tmp_path: Path) -> None:
    path = tmp_path / "hour"
    path.write_text("99999999999 1 0\n1000 1 0\n")
    now = [1000.0]
    meter = Meter(path=path, clock=lambda: now[0], max_calls=1)

    assert not meter.admits()
    now[0] = 4600.0
    assert meter.admits()


@pytest.mark.parametrize("name", ["hour", "hour.new"])
def test_a_folder_in_the_files_place_stops_no_start_and_is_counted(name: str, tmp_path: Path) -> None:
    path = tmp_path / "hour"
    if name != "hour":
        path.write_text("1000 1 0\n")
    (tmp_path / name).mkdir()
    meter = spent(path, 1000.0, max_calls=2)

    assert meter.counts == {"unsaved": 1}
    meter.add("requests", 2)
    assert not meter.admits()


def test_the_hour_is_pruned_where_calls_are_counted_and_nobody_asks_for_leave() -> None:
    now = [0.0]
    meter = Meter(clock=lambda: now[0])
    for _ in range(5):
        meter.add("requests")
        now[0] += 3600.0

    assert len(meter._hour) == 1


# judges of the user's


async def test_a_users_judge_is_asked_as_often_an_hour_as_it_may_and_counted() -> None:
    meter = Meter(max_calls=2)
    judge = CountedJudge(ScriptedJudge(lambda turn, state: Judgement(reward=1.0)), meter=meter)
    turn, state = make_turn(), followed(user("thanks"))

    assert [(await judge.judge(turn, state)).reward for _ in range(2)] == [1.0, 1.0]
    with pytest.raises(NotAskedError, match="calls of this hour are spent"):
        await judge.judge(turn, state)
    assert meter.counts == {"requests": 2, "judged": 2, "over_budget": 1}


async def test_a_function_of_the_users_has_the_runs_budget_and_the_rules_judge_when_it_is_spent(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.py").write_text(
        "from agentrl.signals.judge import Judgement\ndef judge(turn, next_state):\n    return Judgement(reward=0.5)\n"
    )
    config = load_config(
        judge__backend="callable", judge__callable=f"{tmp_path}/mine.py:judge", judge__max_calls_per_hour=3
    )
    found = []
    for _ in range(2):  # the second is a restart
        bench = make_bench(config, spent=tmp_path / "hour")
        found += [(await bench.judge.judge(make_turn(), followed(user("Hm.")))).reward for _ in range(2)]
        report = bench.report()
        await bench.aclose()

    assert found == [0.5, 0.5, 0.5, None]
    assert report["hour"] == {"calls": 3, "max_calls": 3, "tokens": 0, "max_tokens": 2_000_000}
    assert report["counts"] == {"requests": 1, "judged": 1, "over_budget": 1}


def test_tokens_of_a_judge_that_asks_by_itself_cannot_be_bounded(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def judge(turn, next_state):\n    return None\n")
    config = load_config(
        judge__backend="callable", judge__callable=f"{tmp_path}/mine.py:judge", judge__max_tokens_per_hour=9
    )
    with pytest.raises(ConfigError, match=r"judge\.max_tokens_per_hour has no effect"):
        make_bench(config)
