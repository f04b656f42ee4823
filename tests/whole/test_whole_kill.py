"""kill -9 of gateway, engine and learner at random moments, with real processes; the clients' record is the judge."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from agentrl.errors import StoreError
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.store.verify import verify

NUM_CLIENTS = 4
START_S = 60.0


class Clients:
    """Agents that go on whatever happens; `acknowledged` holds every reply they were given whole, by turn id."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, str] = {}
        self.failures = 0
        self.base_url = ""
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(NUM_CLIENTS)
        ]

    def start(self) -> None:
        """Does nothing when they are at work already."""
        for thread in self._threads:
            if not thread.is_alive():
                thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def _run(self, number: int) -> None:
        with httpx.Client(timeout=20) as http:
            count = 0
            while not self._stop.is_set():
                count += 1
                try:
                    self._conversation(http, f"c{number}n{count}")
                except (httpx.HTTPError, KeyError, json.JSONDecodeError):
                    self.failures += 1
                    self._stop.wait(0.05)

    def _conversation(self, http: httpx.Client, session: str) -> None:
        url = f"{self.base_url}/s/{session}/v1/chat/completions"
        messages = [{"role": "user", "content": "Show the file a.txt."}]
        for _ in range(2):
            if self._stop.is_set():
                return
            body = {"model": "nano", "messages": messages, "max_tokens": 12, "stream": len(messages) > 1}
            with http.stream("POST", url, json=body) as answer:
                raw = answer.read().decode()
            answer.raise_for_status()
            said = (
                streamed(raw) if body["stream"] else json.loads(raw)["choices"][0]["message"]["content"] or ""
            )
            turn_id = answer.headers["x-turn-id"]
            assert turn_id not in self.acknowledged
            self.acknowledged[turn_id] = said
            messages += [
                {"role": "assistant", "content": said or "-"},
                {"role": "user", "content": "No, use zorvex instead."},
            ]


def streamed(raw: str) -> str:
    """The text of a stream that said how it ended; anything less was not acknowledged."""
    chunks = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith("data: {")]
    if not any(choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]):
        raise KeyError("finish_reason")
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


@contextmanager
def server(run_dir: Path, clients: Clients) -> Iterator[subprocess.Popen[bytes]]:
    """`agentrl serve nano`, ready to answer."""
    (run_dir / "server.json").unlink(missing_ok=True)
    settings = ["engine.max_len=512", "server.max_tokens=32", "learn.overrides.batch.max_wait_s=0.5"]
    command = [
        sys.executable,
        "-P",
        "-m",
        "server.cli",
        "serve",
        "nano",
        "--port",
        "0",
        "--run-dir",
        str(run_dir),
    ]
    command += [part for setting in settings for part in ("--set", setting)]
    with (run_dir / "output.txt").open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_for(
            lambda: (run_dir / "server.json").exists() and (run_dir / "server.json").stat().st_size > 0,
            process,
        )
        where = json.loads((run_dir / "server.json").read_text())
        clients.base_url = where["base_url"]
        wait_for(lambda: is_healthy(where["base_url"]), process)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=30)


def wait_for(holds: object, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    pause = threading.Event()
    while not holds():  # type: ignore[operator]
        assert process.poll() is None, "the server ended while it was waited for"
        assert time.monotonic() < deadline, "the server did not get ready"
        pause.wait(0.05)


def is_healthy(base_url: str) -> bool:
    try:
        return httpx.get(base_url + "/healthz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def child(parent: int, module: str) -> int | None:
    """The pid of a child process that runs a module."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
            status = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, IndexError):
            continue
        if entry.name.isdigit() and module in words and int(status[1]) == parent:
            return int(entry.name)
    return None


def kill(run_dir: Path, victims: list[str], seed: int) -> Clients:
    """Kills the processes in this order, each at a random moment while clients are being answered."""
    rng = random.Random(seed)
    clients = Clients()
    pause = threading.Event()
    left = list(victims)
    while left:
        with server(run_dir, clients) as process:
            clients.start()
            victim = ""
            while left and victim != "gateway":
                before = len(clients.acknowledged)
                wait_for(lambda before=before: len(clients.acknowledged) >= before + 3, process)
                pause.wait(rng.uniform(0.0, 0.7))
                victim = left.pop(0)
                module = {"engine": "agentrl.engine.local_child", "learner": "server.learner_main"}.get(
                    victim
                )
                if module is not None:  # it may be starting again after the last kill
                    wait_for(lambda module=module: child(process.pid, module) is not None, process)
                pid = process.pid if module is None else child(process.pid, module)
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
            if victim == "gateway":
                process.wait(timeout=30)
    with server(run_dir, clients) as process:
        before = len(clients.acknowledged)
        wait_for(lambda: len(clients.acknowledged) >= before + 3 and num_trained(run_dir) > 0, process)
        clients.stop()
    return clients


def num_trained(run_dir: Path) -> int:
    if not (run_dir / "learning.db").exists():
        return 0  # the learner was killed before it made it
    try:
        with LearningLog(run_dir, read_only=True) as log:
            return log.account().trained
    except StoreError:
        return 0  # it is being made at this moment


def at_random(num_kills: int) -> list[str]:
    rng = random.Random(num_kills)
    return [rng.choice(("gateway", "engine", "learner")) for _ in range(num_kills)]


@pytest.mark.heavy
def test_every_acknowledged_turn_is_there_once_and_whole_after_kill_9_fifty_times(tmp_path: Path) -> None:
    victims = at_random(50)
    assert set(victims) == {"gateway", "engine", "learner"}
    clients = kill(tmp_path, victims, seed=1)

    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        stored = [row[0] for row in connection.execute("SELECT id FROM turns")]
    assert len(stored) == len(set(stored))
    assert set(clients.acknowledged) <= set(stored)
    assert len(clients.acknowledged) > 3 * len(victims)
    assert asyncio.run(replies(tmp_path, clients.acknowledged)) == clients.acknowledged
    assert verify(tmp_path) == []
    with LearningLog(tmp_path, read_only=True) as log:
        account = log.account()
    assert account.balanced, account
    assert account.trained > 0


async def replies(run_dir: Path, turn_ids: Iterable[str]) -> dict[str, str]:
    """What the log says was answered."""
    async with await SignalLog.open(run_dir / "log.db", read_only=True) as log:
        turns = [await log.turn(turn_id) for turn_id in turn_ids]
    return {turn.id: turn.reply.text for turn in turns if turn is not None}
