"""The store under load: committed turns a second, bytes a turn, and what a learner beside it costs the server.

    python -m bench.store [--turns 3000] [--rounds 5] [--seconds 4] [--json]

A turn here has 2,000 prompt ids and 200 sampled ids out of 151,936, log-probs before and after temperature, and 8 kB
of messages whose words fall as they do in texts. "even" draws ids evenly, the worst case for the codec; "natural" draws
them like words. Each round measures every way once, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from agentrl.store.database import connect, writing
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.types import (
    Arm,
    Completion,
    FinishReason,
    MatchedBy,
    PolicyVersion,
    Purpose,
    Reply,
    Sampling,
    Signal,
    SignalSource,
    Turn,
    TurnKind,
    VersionSpan,
    VersionState,
)

IN_FLIGHT = (1, 64, 256)
VOCABULARY, NUM_PROMPT, NUM_SAMPLED, REQUEST_BYTES = 151_936, 2_000, 200, 8_000


class Traffic:
    """Draws turns. Every call gives new ones, so that nothing is saved by what is stored already."""

    def __init__(self, seed: int = 0, *, natural: bool = False) -> None:
        self._natural = natural
        self._random = random.Random(seed)
        self._numbers = np.random.default_rng(seed)
        letters = "abcdefghijklmnopqrstuvwxyz"
        self._words = [
            "".join(self._random.choices(letters, k=self._random.randint(2, 9))) for _ in range(5000)
        ]

    def ids(self, length: int) -> tuple[int, ...]:
        if self._natural:
            return tuple(np.minimum(self._numbers.zipf(1.2, length), VOCABULARY - 1).tolist())
        return tuple(self._numbers.integers(0, VOCABULARY, length).tolist())

    def text(self, size: int) -> str:
        drawn = np.minimum(self._numbers.zipf(1.3, size // 3), len(self._words)) - 1
        return " ".join(self._words[index] for index in drawn)[:size]

    def completion(self) -> Completion:
        raw = self._numbers.exponential(1.0, NUM_SAMPLED).astype(np.float32)
        return Completion(
            token_ids=self.ids(NUM_SAMPLED),
            logprobs=tuple((-raw * np.float32(0.7)).tolist()),
            raw_logprobs=tuple((-raw).tolist()),
            num_allowed=(VOCABULARY,) * NUM_SAMPLED,
            finish_reason=FinishReason.STOP,
            version_spans=(VersionSpan(version=0, start=0, end=NUM_SAMPLED),),
        )

    def first(self, name: str) -> Turn:
        """A turn that begins a conversation."""
        return Turn(
            id=name,
            request_id=name,
            session=f"session-{name}",
            scope="default",
            parent=None,
            matched_by=MatchedBy.NONE,
            kind=TurnKind.MAIN,
            kind_reason="",
            purpose=Purpose.TRAIN,
            arm=Arm.LEARNING,
            task_key="0123456789abcdef",
            messages=({"role": "user", "content": self.text(REQUEST_BYTES)},),
            tools=(),
            prompt_ids=self.ids(NUM_PROMPT),
            prompt_built_by="rendered: first turn",
            completion=self.completion(),
            reply=Reply(text=self.text(NUM_SAMPLED * 4)),
            sampling=Sampling(temperature=0.7),
            policy="default",
            received_at=time.time(),
            client="OpenAI/Python 3.51.0",
        )

    def later(self, name: str, parent: Turn) -> Turn:
        """The turn after `parent`: a tool result of 100 ids and 400 bytes more."""
        reply = {"role": "assistant", "content": parent.reply.text}
        result = {"role": "tool", "content": self.text(400)}
        return replace(
            parent,
            id=name,
            request_id=name,
            parent=parent.id,
            matched_by=MatchedBy.HISTORY,
            messages=(*parent.messages, reply, result),
            prompt_ids=(*parent.prompt_ids, *parent.completion.token_ids, *self.ids(100)),
            prompt_built_by="extended",
            completion=self.completion(),
            reply=Reply(text=self.text(NUM_SAMPLED * 4)),
        )


async def commit(log: SignalLog, turn: Turn) -> float:
    """Seconds until the turn was committed."""
    begin = time.perf_counter()
    await log.record_turn(turn, history_key=f"{turn.id:0>64}", reply_key=f"{turn.id:0>64}")
    return time.perf_counter() - begin


def size_of(run_dir: Path) -> int:
    return (run_dir / "log.db").stat().st_size


async def throughput(turns: list[Turn], in_flight: int) -> tuple[float, float, float]:
    """(turns/s, commit p95 in ms, bytes a turn) with `in_flight` callers, each of which waits for its commit."""
    with tempfile.TemporaryDirectory() as folder:
        latencies: list[float] = []
        async with await SignalLog.open(folder) as log:
            waiting = iter(turns)

            async def caller() -> None:
                latencies.extend([await commit(log, turn) for turn in waiting])

            begin = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(in_flight)))
            wall = time.perf_counter() - begin
        p95 = 1e3 * float(np.quantile(latencies, 0.95))
        return len(turns) / wall, p95, size_of(Path(folder)) / len(turns)


def bare(turns: list[Turn]) -> float:
    """Rows/s of a table with one blob of a turn's size, 64 a transaction: what SQLite itself leaves us."""
    with tempfile.TemporaryDirectory() as folder:
        connection = connect(Path(folder) / "bare.db")
        connection.execute("CREATE TABLE rows (id TEXT PRIMARY KEY, data BLOB)")
        rows = [(turn.id, os.urandom(12_000)) for turn in turns]
        begin = time.perf_counter()
        for first in range(0, len(rows), 64):
            with writing(connection):
                connection.executemany("INSERT INTO rows VALUES (?, ?)", rows[first : first + 64])
        wall = time.perf_counter() - begin
        connection.close()
    return len(turns) / wall


async def conversation(traffic: Traffic, length: int) -> tuple[int, float]:
    """(prompt ids of the last turn, bytes a later turn) of a conversation in which each turn resends all before it."""
    with tempfile.TemporaryDirectory() as folder:
        turn = traffic.first("c0")
        async with await SignalLog.open(folder) as log:
            await commit(log, turn)
        before = size_of(Path(folder))
        async with await SignalLog.open(folder) as log:
            for index in range(1, length):
                turn = traffic.later(f"c{index}", turn)
                await commit(log, turn)
        return len(turn.prompt_ids), (size_of(Path(folder)) - before) / (length - 1)


async def beside_learner(traffic: Traffic, seconds: float, rate: float, blocks: int) -> dict[str, float]:
    """Commit latency at `rate` turns a second, in blocks with and without a niced learner process beside it."""
    with tempfile.TemporaryDirectory() as folder:
        latencies: dict[bool, list[float]] = {False: [], True: []}
        steps = 0
        turns = [traffic.first(f"b{index}") for index in range(int(2 * blocks * seconds * rate) + 1)]
        async with await SignalLog.open(folder) as log:
            names = iter(turns)
            for index in range(2 * blocks):
                learner = start_learner(folder) if index % 2 else None
                try:
                    end = time.perf_counter() + seconds
                    while time.perf_counter() < end and (turn := next(names, None)) is not None:
                        latencies[bool(index % 2)].append(await commit(log, turn))
                        await log.record_signal(
                            Signal(turn_id=turn.id, source=SignalSource.JUDGE, hint="use the other command")
                        )
                        await asyncio.sleep(1 / rate)
                finally:
                    if learner is not None:
                        learner.terminate()
                        steps += int(learner.communicate()[0] or 0)
        alone, beside = (1e3 * float(np.quantile(latencies[which], 0.95)) for which in (False, True))
        return {
            "commits": len(latencies[False]) + len(latencies[True]),
            "steps of the learner": steps,
            "commit p95 alone, ms": alone,
            "commit p95 beside, ms": beside,
            "p95 ratio": beside / alone,
        }


def start_learner(run_dir: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["nice", "-n", "10", sys.executable, "-m", "bench.store", "--learner", run_dir],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def learn(run_dir: str) -> None:
    """A learner's traffic without a learner's mathematics: claim 16 turns, multiply matrices, publish, serve."""
    import signal

    running = True

    def stop(*_: object) -> None:
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    matrix = np.random.default_rng(0).standard_normal((512, 512), dtype=np.float32)
    steps = 0
    with LearningLog(run_dir) as log:
        log.ensure_base("default", "base")
        log.recover()
        while running:
            batch = log.claim(limit=16, needs="hint", max_age_s=3600.0)
            for _ in range(50):
                matrix = np.tanh(matrix @ matrix / 512)
            if not batch:
                continue
            serving = log.serving().number
            step = log.record_step(
                [claimed.turn.id for claimed in batch],
                recipe="bench",
                seed=steps,
                metrics={"loss": float(matrix.mean())},
                version_parent=serving,
            )
            number = log.next_number()
            log.publish(
                PolicyVersion(
                    policy="default",
                    number=number,
                    parent=serving,
                    state=VersionState.CANDIDATE,
                    path=f"versions/{number:06d}",
                    step_ids=(step,),
                )
            )
            log.set_state("default", number, VersionState.SERVING, "bench")
            assert log.account().balanced
            steps += 1
    print(steps)


async def measure(num_turns: int, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    even, natural = Traffic(), Traffic(natural=True)
    turns = [even.first(f"t{index}") for index in range(num_turns)]
    # A server does not hold thousands of turns for the collector to walk through, and this should not either.
    gc.freeze()
    rates: dict[str, list[float]] = {}
    p95: dict[str, list[float]] = {}
    size = 0.0
    for _ in range(rounds):
        rates.setdefault("bare SQLite", []).append(bare(turns))
        for in_flight in IN_FLIGHT:
            way = f"{in_flight} in flight"
            rate, slow, size = await throughput(turns, in_flight)
            rates.setdefault(way, []).append(rate)
            p95.setdefault(way, []).append(slow)
    _, _, natural_size = await throughput([natural.first(f"n{index}") for index in range(num_turns // 4)], 64)
    num_ids, later = await conversation(natural, 30)
    return {
        "turns/s, median": {way: statistics.median(values) for way, values in rates.items()},
        "turns/s, best": {way: max(values) for way, values in rates.items()},
        "commit p95, ms, median": {way: statistics.median(values) for way, values in p95.items()},
        "bytes a turn": {
            "first, even ids": size,
            "first, natural ids": natural_size,
            f"later, to {num_ids:,} ids": later,
        },
        "beside a learner": await beside_learner(even, seconds, rate=50.0, blocks=3),
    }


def show(results: dict[str, dict[str, float]]) -> None:
    table = Table("what", "of", "number")
    for what, numbers in results.items():
        for name, value in numbers.items():
            table.add_row(what, name, f"{value:,.0f}" if value >= 100 else f"{value:.3g}")
    console = Console(width=110)
    console.print(table)
    best = max(rate for way, rate in results["turns/s, best"].items() if way.endswith("in flight"))
    floors = [
        (f"{best:,.0f} turns/s committed in batches (at least 4,000)", best >= 4000),
        (
            f"{results['bytes a turn']['first, even ids']:,.0f} bytes a turn (at most 14,000)",
            results["bytes a turn"]["first, even ids"] <= 14_000,
        ),
        (
            f"{results['beside a learner']['p95 ratio']:.2f}x the commit p95 beside a learner (at most 1.5x)",
            results["beside a learner"]["p95 ratio"] <= 1.5,
        ),
    ]
    for sentence, holds in floors:
        console.print(f"{sentence}: {'ok' if holds else 'BELOW THE FLOOR'}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each block beside the learner")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--learner", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.learner:
        learn(arguments.learner)
        return
    results = asyncio.run(measure(arguments.turns, arguments.rounds, arguments.seconds))
    if arguments.json:
        print(json.dumps(results, indent=2))
    else:
        show(results)


if __name__ == "__main__":
    main()
