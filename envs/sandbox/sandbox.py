"""A shell in a sandbox: bubblewrap or unshare around a supervisor, bash on a terminal inside."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from typing import Any

from agentrl.errors import SandboxError
from envs.sandbox import pty, syscalls
from envs.sandbox.base import (
    HOME,
    MAX_COMMAND_BYTES,
    SERVER,
    CommandResult,
    Ended,
    Files,
    Limits,
    ShellKind,
    Snapshot,
    check_files,
    printable,
)
from envs.sandbox.cgroups import ControlGroups, make_groups
from envs.sandbox.channel import Channel
from envs.sandbox.launch import INTERPRETER, command_line, fresh_uid, inside_usr

START_S = 15.0
"""Most seconds that starting, resetting or a snapshot may take; a machine under load is slow, not broken."""
INTERRUPT_S = 2.0
"""How long a command may take to end after Ctrl-C before its shell is replaced."""
PROGRAMS = "/opt/agentrl/bin"
"""First on the PATH: house rules and stand-ins."""
ENVIRONMENT = {
    "HOME": HOME,
    "PATH": f"{PROGRAMS}:/usr/bin:/bin:/usr/sbin:/sbin",
    "USER": "agent",
    "LOGNAME": "agent",
    "SHELL": "/bin/bash",
    "TERM": "dumb",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PAGER": "cat",
    "COLUMNS": "80",
    "LINES": "24",
}


class Sandbox:
    """One sandbox. Made by `await Sandbox.open(...)`; a broken one starts itself anew.

    Args:
        kind: BUBBLEWRAP or UNSHARE.
        limits: bounds of one sandbox.
        programs: texts of scripts by absolute path, installed read-only and executable.
    """

    def __init__(self, kind: ShellKind, limits: Limits, programs: Mapping[str, str]) -> None:
        self._kind = kind
        self._limits = limits
        self._programs = dict(programs)
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._terminal: pty.Terminal | None = None
        self._groups = ControlGroups(())
        self._shell_number = 0
        self._shell_status = 0
        self._closed = False

    @classmethod
    async def open(
        cls, kind: ShellKind, limits: Limits | None = None, programs: Mapping[str, str] | None = None
    ) -> Sandbox:
        """Starts a sandbox with empty files. SandboxError says why it does not start."""
        sandbox = cls(kind, limits or Limits(), programs or {})
        try:
            await sandbox._start()
            await sandbox.reset({})
        except BaseException:
            await sandbox.aclose()
            raise
        return sandbox

    @property
    def kind(self) -> ShellKind:
        return self._kind

    async def reset(self, files: Files) -> None:
        check_files(files)
        if self._closed:
            raise SandboxError("this sandbox has been closed")
        if self._channel is None or self._channel.closed:
            await self._start()
        await self._new_shell({"op": "fresh", "files": dict(files)})

    async def run(self, command: str) -> CommandResult:
        began = time.perf_counter()
        data = command.replace("\0", "").encode("utf-8", errors="replace")
        if len(data) > MAX_COMMAND_BYTES:
            text = f"bash: the command is longer than {MAX_COMMAND_BYTES} bytes"
            return CommandResult(output=text, exit_code=126, num_bytes=len(text))
        try:
            result = await self._execute(data, began)
        except SandboxError as error:
            await self._stop()
            text = f"bash: the machine went away ({error})"
            result = CommandResult(
                output=text, exit_code=137, ended=Ended.SANDBOX_GONE, restarted=True, num_bytes=len(text)
            )
        return result

    async def snapshot(self) -> Snapshot:
        if self._channel is None or self._channel.closed:
            return Snapshot(complete=False)
        try:
            found = await self._channel.ask({"op": "snapshot"}, START_S)
        except SandboxError:
            await self._stop()
            return Snapshot(complete=False)
        return Snapshot(
            files={path: base64.b64decode(text) for path, text in found["files"].items()},
            directories=frozenset(found["directories"]),
            links=found["links"],
            complete=found["complete"],
        )

    async def aclose(self) -> None:
        self._closed = True
        await self._stop()

    async def _execute(self, command: bytes, began: float) -> CommandResult:
        limits = self._limits
        if self._channel is None or self._channel.closed:
            await self.reset({})
        if self._terminal is None or self._terminal.gone:
            await self._new_shell({"op": "shell"})
        terminal = self._terminal
        assert terminal is not None
        output, finished = await terminal.execute(
            command, keep=limits.kept_output, max_output=limits.max_output, timeout_s=limits.command_s
        )
        ended, exit_code, restarted = Ended.EXITED, output.exit_code, False
        if not finished:
            ended = Ended.TOO_MUCH_OUTPUT if output.num_bytes > limits.max_output else Ended.TIMED_OUT
            exit_code = 124
            if not await terminal.interrupt(INTERRUPT_S):
                await self._new_shell({"op": "shell"})
                exit_code, restarted = 137, True
        elif exit_code is None:
            assert self._channel is not None
            if self._channel.closed:
                raise SandboxError("it ended during the command")
            ended, restarted = Ended.SHELL_GONE, True
            exit_code = await self._wait_for_status()
            await self._new_shell({"op": "shell"})
        output.close()
        return CommandResult(
            output=printable(bytes(output.kept)),
            exit_code=exit_code if exit_code is not None else 137,
            ended=ended,
            num_bytes=output.num_bytes,
            restarted=restarted,
            elapsed_s=time.perf_counter() - began,
        )

    async def _wait_for_status(self) -> int:
        """The shell's exit code as a shell would report it. Its terminal may close a moment before it ends."""
        for _ in range(50):
            if self._shell_number == 0:
                return self._shell_status if self._shell_status >= 0 else 128 - self._shell_status
            await asyncio.sleep(0.002)
        return 137

    async def _new_shell(self, request: dict[str, Any]) -> None:
        assert self._channel is not None
        if self._terminal is not None:
            self._terminal.close()
            self._terminal = None
        number = await self._channel.ask(request, START_S)
        master, commands = self._channel.take_descriptors(2)
        self._shell_number = number
        self._terminal = pty.Terminal(master, commands)

    async def _start(self) -> None:
        await self._stop()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                line = command_line(self._kind, theirs.fileno())
                self._process = subprocess.Popen(  # noqa: ASYNC220 - a millisecond, and no child watcher
                    line,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=(theirs.fileno(),),
                    env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
                )
            except (OSError, SandboxError) as error:
                ours.close()
                raise SandboxError(str(error)) from error
        self._channel = Channel(ours, self._on_event)
        try:
            await self._channel.send(self._configuration())
            await self._channel.ask(None, START_S)
        except SandboxError as error:
            self._channel.close()
            raise SandboxError(await self._last_words() or str(error)) from error
        self._groups = make_groups(self._limits)
        if self._channel.peer is not None:
            with contextlib.suppress(OSError):
                self._groups.add(self._channel.peer)

    def _configuration(self) -> dict[str, Any]:
        limits = self._limits
        build_root = self._kind is ShellKind.UNSHARE
        return {
            "build_root": build_root,
            "uid": fresh_uid() if build_root and os.geteuid() == 0 else None,
            "detach": None if build_root or inside_usr(INTERPRETER) else str(INTERPRETER),
            "home": HOME,
            "watched": [HOME, SERVER],
            "writable": [HOME, SERVER, "/tmp", "/dev/shm"],  # noqa: S108
            "mount_size": limits.mount_size,
            "mount_inodes": limits.mount_inodes,
            "programs": self._programs,
            "bashrc": pty.BASHRC,
            "shell": list(pty.bash_command()),
            "environment": ENVIRONMENT,
            "filter": syscalls.build_filter(os.uname().machine),
            "limits": {
                "RLIMIT_AS": limits.memory,
                "RLIMIT_CPU": limits.cpu_s,
                "RLIMIT_FSIZE": limits.mount_size,
                "RLIMIT_NPROC": limits.num_processes,
                "RLIMIT_NOFILE": limits.num_open_files,
                "RLIMIT_CORE": 0,
                "RLIMIT_MEMLOCK": 0,
                "RLIMIT_MSGQUEUE": 0,
            },
        }

    def _on_event(self, event: dict[str, Any]) -> None:
        if event.get("exited") == self._shell_number or "closed" in event:
            self._shell_number, self._shell_status = 0, event.get("status", -9)
            if self._terminal is not None:
                self._terminal.shell_ended()

    async def _stop(self) -> None:
        if self._terminal is not None:
            self._terminal.close()
            self._terminal = None
        if self._channel is not None:
            # The supervisor reads the end of its socket, ends, and takes every process of its namespace along.
            self._channel.close()
            self._channel = None
        if self._process is not None:
            process, self._process = self._process, None
            await _wait(process)
            if process.stderr is not None:
                process.stderr.close()
        for _ in range(100):
            if self._groups.remove():
                break
            await asyncio.sleep(0.01)
        self._groups = ControlGroups(())
        self._shell_number = 0

    async def _last_words(self) -> str:
        """What a start that failed said on stderr."""
        process = self._process
        assert process is not None
        assert process.stderr is not None
        await _wait(process)
        return process.stderr.read(4096).decode(errors="replace").strip()


async def _wait(process: subprocess.Popen[bytes]) -> None:
    """Waits for a process whose socket has been closed; kills it when it does not go."""
    for delay in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        if process.poll() is not None:
            return
        await asyncio.sleep(delay)
    process.kill()
    await asyncio.to_thread(process.wait)
