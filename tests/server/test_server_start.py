"""A start that is refused or ended by a signal, and what it leaves behind."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from server_house import MODEL, says, serving

from agentrl.config import Config, load_config
from agentrl.engine.scripted import ScriptedEngine
from agentrl.errors import ConfigError, StoreError, UserError
from agentrl.learner.process import LOCK_FILE
from agentrl.store.signal_log import SignalLog
from server.doctor import diagnose
from server.learner_child import refuse_beside_another
from server.runtime import Runtime

AGENTRL = Path(sys.executable).with_name("agentrl")


def settings(run_dir: Path) -> Config:
    return load_config(
        model=str(MODEL), name="nano", run_dir=str(run_dir), server__port=0, learn__enabled=False
    )


async def no_engine(*_: Any) -> ScriptedEngine:
    raise ConfigError("no such device")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_during_the_start_is_one_line_and_leaves_no_folder(
    number: signal.Signals, tmp_path: Path
) -> None:
    """As Ctrl-C in a terminal, while the engine's process is being started."""
    server = subprocess.Popen(
        [AGENTRL, "serve", "nano", "--port", "0", "--run-dir", "runs/first"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    deadline = time.monotonic() + 60
    try:
        while not psutil.Process(server.pid).children():
            assert time.monotonic() < deadline
            time.sleep(0.005)  # another process can only be looked at
        os.killpg(server.pid, number)
        out, err = server.communicate(timeout=60)
    finally:
        server.kill()

    assert (server.returncode, out) == (128 + number, "")
    assert err == f"agentrl: ended by {number.name} before it served\n"
    assert os.listdir(tmp_path) == []


async def test_a_refused_start_takes_the_folders_away_that_it_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such device"):
        await Runtime(settings(tmp_path / "runs" / "first"), make_engine=no_engine).start()

    assert os.listdir(tmp_path) == []


async def test_a_refused_start_leaves_what_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "other").mkdir()
    for name in ("own", "runs/first"):
        with pytest.raises(ConfigError, match="no such device"):
            await Runtime(settings(tmp_path / name), make_engine=no_engine).start()

    assert (tmp_path / "own" / "log.db").exists()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"]


async def test_a_taken_port_leaves_no_run_folder(tmp_path: Path) -> None:
    async with serving(tmp_path / "a", []) as house:
        port = int(house.runtime.base_url.rpartition(":")[2])
        with pytest.raises(
            ConfigError, match=r"cannot listen.*serve --port N`, or server\.port in the settings"
        ):
            async with serving(tmp_path / "b", [], server__port=port):
                pass

    assert os.listdir(tmp_path) == ["a"]


async def test_a_run_that_has_served_stays(tmp_path: Path) -> None:
    async with serving(tmp_path / "a", [says("Ok.")]) as house:
        await house.ask("Hi")

    assert (tmp_path / "a" / "log.db").exists()


async def test_while_the_learner_starts_doctor_says_so_and_no_other_begins(tmp_path: Path) -> None:
    """The lock is held here, so that the server's learner stays at its beginning."""
    with (tmp_path / LOCK_FILE).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with serving(tmp_path, [], learn__enabled=True):
            assert (await asyncio.to_thread(diagnose, tmp_path))["finding"] == "the learner is starting"
            with pytest.raises(
                UserError, match="runs a learner of its own: stop it, or start it with --no-learn"
            ):
                await asyncio.to_thread(refuse_beside_another, tmp_path)


async def test_a_learner_may_begin_beside_a_server_that_has_none(tmp_path: Path) -> None:
    async with serving(tmp_path, [], learn__enabled=False):
        await asyncio.to_thread(refuse_beside_another, tmp_path)


async def test_a_folder_that_another_start_took_first_is_left_to_it(tmp_path: Path) -> None:
    faster: list[SignalLog] = []

    async def second(run_dir: Path) -> SignalLog:
        faster.append(await SignalLog.open(run_dir))
        return await SignalLog.open(run_dir)

    with pytest.raises(StoreError, match="another process writes"):
        await Runtime(settings(tmp_path / "a"), open_log=second, make_engine=no_engine).start()
    await faster[0].aclose()

    assert (tmp_path / "a" / "log.db").exists()
