"""kill -9 in mid-write: what was acknowledged is there, once and whole (law 3)."""

import os
import random
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from store_writer import expected_turn

from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.store.verify import verify

WRITER = Path(__file__).with_name("store_writer.py")


def write_until_killed(run_dir: Path, round_: int, num_lines: int) -> list[str]:
    """Lines acknowledged by a writer that is killed once it has said at least `num_lines`."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    writer = subprocess.Popen(
        [sys.executable, str(WRITER), str(run_dir), str(round_)], stdout=subprocess.PIPE, env=environment
    )
    assert writer.stdout is not None
    said = b""
    try:
        while said.count(b"\n") < num_lines:
            ready, _, _ = select.select([writer.stdout], [], [], 60)
            chunk = os.read(writer.stdout.fileno(), 65536) if ready else b""
            assert chunk, "the writer ended or stopped on its own"
            said += chunk
    finally:
        writer.send_signal(signal.SIGKILL)
        # What it had said before it died is still in the pipe.
        said += writer.stdout.read()
        writer.wait()
        writer.stdout.close()
    assert writer.returncode == -signal.SIGKILL
    return [line for line in said.decode().split("\n")[:-1] if line]


async def check_kills(run_dir: Path, num_kills: int) -> None:
    draw = random.Random(0)
    acknowledged: set[str] = set()
    for round_ in range(num_kills):
        acknowledged |= set(write_until_killed(run_dir, round_, draw.randint(1, 120)))

        turns = {line.removeprefix("turn ") for line in acknowledged if line.startswith("turn ")}
        followed = {line.removeprefix("next ") for line in acknowledged if line.startswith("next ")}
        async with await SignalLog.open(run_dir) as log:
            counts = await log.counts()
            # Committed but not yet acknowledged: at most one write a caller, of 8 callers, a round.
            assert 0 <= counts["turns"] - len(turns) <= 8 * (round_ + 1)
            assert 0 <= counts["next_states"] - len(followed) <= 8 * (round_ + 1)
            assert counts["next_states.repeated"] == 0
            assert counts["turns"] == counts["turns.open"] + counts["next_states"]
            newest = [turn for turn in turns if turn.startswith(f"r{round_}-")]
            for turn in newest:
                name = turn.replace("r", "").replace("c", "").split("-")
                assert await log.turn(turn) == expected_turn(*(int(part) for part in name))
            for turn in followed & set(newest):
                assert await log.next_state(turn) is not None
        with LearningLog(run_dir) as learning:
            account = learning.account()
            assert account.balanced
            assert account.accepted == counts["turns"]
        assert verify(run_dir) == []


async def test_acknowledged_turns_survive_three_kills(tmp_path: Path) -> None:
    await check_kills(tmp_path, 3)


@pytest.mark.heavy
async def test_acknowledged_turns_survive_fifty_kills(tmp_path: Path) -> None:
    await check_kills(tmp_path, 50)
