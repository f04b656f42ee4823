"""What a sandbox asks of the machine it runs on: who starts it, what is denied, and what ends it."""

# ruff: noqa: ASYNC220, ASYNC240 - other programs are waited for on purpose

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

import envs
from agentrl.errors import ConfigError
from envs.sandbox import probe
from envs.sandbox.base import Ended, Limits, ShellKind
from envs.sandbox.syscalls import build_filter, supported


async def test_when_the_host_process_is_killed_its_sandbox_ends_too(best_kind: ShellKind) -> None:
    program = textwrap.dedent(f"""
        import asyncio
        from envs.sandbox.base import ShellKind
        from envs.sandbox.sandbox import Sandbox
        async def main():
            sandbox = await Sandbox.open(ShellKind("{best_kind}"))
            await sandbox.run("sleep 1000 &")
            print(sandbox._channel.peer, flush=True)
            await asyncio.sleep(1000)
        asyncio.run(main())
    """)
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    peer = int(child.stdout.readline())
    assert Path(f"/proc/{peer}").exists()
    child.kill()
    child.wait()
    child.stdout.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{peer}").exists() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)  # another process ends: no event tells of it
    assert not Path(f"/proc/{peer}").exists()


EPISODE = """
import asyncio, json
from agentrl.types import Reply, ToolCall
from envs.sandbox.probe import open_shell, probe
from envs.terminal import Terminal

async def main():
    found = await probe()
    env = Terminal(shell=KIND)
    await env.reset(env.task("train", 0))
    command = json.dumps({"command": "id -u; pwd; cat /root/x /etc/shadow"})
    said = await env.step(Reply(text="", tool_calls=(ToolCall(id="c", name="bash", arguments=command),)))
    print(json.dumps([found.kind, dict(found.reasons), said.info["shell"], said.messages[0]["content"]]))
    await env.aclose()

asyncio.run(main())
"""


def run_as(starter: list[str], python: str, kind: str = "auto", **more: str) -> list[Any]:
    """Plays the start of an episode in another program and returns what it printed."""
    program = EPISODE.replace("KIND", repr(str(kind)))
    environment = {"PATH": os.environ["PATH"], **more}
    done = subprocess.run(
        [*starter, python, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert isinstance(printed, list)
    return printed


def test_where_namespaces_are_denied_the_environment_is_simulated() -> None:
    """As user 1000 of a user namespace that allows no further ones; the host's own limits stay as they are."""
    script = (
        "echo 0 > /proc/sys/user/max_user_namespaces && "
        'exec setpriv --ambient-caps=-all --inh-caps=-all --bounding-set=-all "$@"'
    )
    starter = [
        "unshare",
        "--user",
        "--map-user=1000",
        "--map-group=1000",
        "--keep-caps",
        "sh",
        "-c",
        script,
        "sh",
    ]
    if subprocess.run([*starter, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine denies user namespaces to begin with")
    root = str(Path(envs.__file__).parents[1])
    kind, reasons, shell, output = run_as(starter, sys.executable, PYTHONPATH=root)
    assert (kind, shell) == ("simulated", "simulated")
    assert set(reasons) == {"bubblewrap", "unshare"}
    assert all(reasons.values())
    assert "No such file or directory" in output


@pytest.mark.parametrize("kind", [ShellKind.BUBBLEWRAP, ShellKind.UNSHARE])
def test_an_ordinary_user_gets_a_sandbox_too(kind: ShellKind) -> None:
    python = "/usr/bin/python3"
    version = "import sys; sys.exit(sys.version_info < (3, 11))"
    if os.geteuid() != 0 or subprocess.run([python, "-c", version], check=False).returncode != 0:
        pytest.skip("needs root, to become somebody else, and a Python that everybody can run")
    starter = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"]
    if subprocess.run([*starter, "unshare", "-Ur", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine denies user namespaces to ordinary users")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for package in ("agentrl", "envs"):
            shutil.copytree(Path(envs.__file__).parents[1] / package, Path(folder, package))
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        found, reasons, shell, output = run_as(starter, python, kind, PYTHONPATH=folder)
    assert (found, reasons, shell) == ("bubblewrap", {}, str(kind))
    assert output.startswith("0\n/home/agent\n")
    assert output.count("No such file or directory") == 2


async def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="use auto, bubblewrap, unshare, simulated"):
        await probe.open_shell("docker")


def test_the_filter_is_made_for_known_processors_only() -> None:
    assert supported("x86_64")
    assert supported("aarch64")
    assert not supported("riscv64")
    for machine in ("x86_64", "aarch64"):
        code = build_filter(machine)
        assert len(code) % 8 == 0
        assert len(code) // 8 < 4096


async def test_ctrl_c_ends_a_command_also_where_we_were_started_with_it_ignored(best_kind: ShellKind) -> None:
    """A shell starts its background jobs so, and a CI may run in one."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        shell = await probe.open_shell(best_kind, limits=Limits(command_s=0.3))
        try:
            await shell.reset({})
            result = await shell.run("sleep 1000")
        finally:
            await shell.aclose()
    finally:
        signal.signal(signal.SIGINT, before)

    assert (result.ended, result.exit_code, result.restarted) == (Ended.TIMED_OUT, 124, False)
