"""One bash on a terminal, seen from the host: a command goes in, its output and exit code come out.

The command itself travels through a pipe, because a terminal line holds at most 4,095 bytes; the terminal gets one
short line that makes bash read and evaluate it. Bash marks where the output begins and ends:

    RS B <number> RS  output of the command  RS E <tag>:<exit code> RS

The number is new for every command, so that whatever earlier commands left behind is dropped; the tag is random for
every shell, so that no file contains it by chance. A command that forges the end only loses the rest of its output.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import termios

_RS = b"\x1e"
_MAX_MARK = 64

BASHRC = r"""
PS1= PS2= PS4='+ '
unset HISTFILE MAILCHECK
set +o history +H
__agentrl_tag=
__agentrl_next() {
  local status=$?
  IFS= builtin read -r -d '' -u 99 __agentrl_command
  builtin printf '\036B%s\036' "$1" >/dev/tty
  return $status
}
__agentrl_end() {
  local status=$?
  [ -z "$__agentrl_tag" ] || builtin printf '\036E%s:%s\036' "$__agentrl_tag" "$status" >/dev/tty
  return $status
}
PROMPT_COMMAND=__agentrl_end
readonly PROMPT_COMMAND
readonly -f __agentrl_next __agentrl_end
"""


class Output:
    """Cuts one command's output out of what the terminal shows; keeps its first bytes and counts the rest."""

    def __init__(self, number: int, tag: str, keep: int) -> None:
        self._begin = _RS + b"B%d" % number + _RS
        self._end = re.compile(_RS + b"E" + tag.encode() + rb":(\d{1,3})" + _RS)
        self._keep = keep
        self._pending = b""
        self._begun = False
        self.kept = bytearray()
        self.num_bytes = 0
        self.exit_code: int | None = None

    def feed(self, data: bytes) -> None:
        data = self._pending + data
        if not self._begun:
            place = data.find(self._begin)
            if place < 0:
                self._pending = data[-len(self._begin) :]
                return
            self._begun = True
            data = data[place + len(self._begin) :]
        end = self._end.search(data)
        if end is not None:
            self.exit_code = int(end.group(1))
            self._pending = b""
            self._take(data[: end.start()])
            return
        # A mark that has arrived in part starts at the last RS: with both of its RS here it would have matched.
        cut = data.rfind(_RS, max(0, len(data) - _MAX_MARK))
        cut = len(data) if cut < 0 else cut
        self._take(data[:cut])
        self._pending = data[cut:]

    def close(self) -> None:
        """No more will come: what looked like the start of a mark was output."""
        if self._begun:
            self._take(self._pending)
        self._pending = b""

    def _take(self, data: bytes) -> None:
        self.num_bytes += len(data)
        room = self._keep - len(self.kept)
        if room > 0:
            self.kept += data[:room]


class Terminal:
    """The host's side of one shell: the terminal's master and the write end of the command pipe."""

    def __init__(self, master: int, commands: int) -> None:
        os.set_blocking(master, False)
        os.set_blocking(commands, False)
        self._master = master
        self._commands = commands
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._tag = ""
        self._settled = asyncio.Event()
        self._output: Output | None = None
        self._max_output = 0
        self.gone = False
        """The shell has ended or its terminal has closed."""
        self._modes = termios.tcgetattr(master)
        self._loop.add_reader(master, self._on_readable)

    async def execute(
        self, command: bytes, *, keep: int, max_output: int, timeout_s: float
    ) -> tuple[Output, bool]:
        """Runs one command. Returns its output and whether it ended by itself (exit code, or the shell went)."""
        self._number += 1
        line = b' __agentrl_next %d;eval "$__agentrl_command"\n' % self._number
        if not self._tag:
            # Given with the first command, so that what bash prints while starting is never taken for an end.
            self._tag = secrets.token_hex(4)
            line = b" readonly __agentrl_tag=" + self._tag.encode() + b";" + line
        output = self._output = Output(self._number, self._tag, keep)
        self._max_output = max_output
        self._settled.clear()
        try:
            # Commands may have changed the terminal; a program that hides what is typed must not hide the next line.
            termios.tcsetattr(self._master, termios.TCSANOW, self._modes)
            if os.write(self._commands, command + b"\0") != len(command) + 1:
                raise BlockingIOError
            os.write(self._master, line)
        except (OSError, termios.error):
            self.gone = True
        return output, await self._settle(timeout_s)

    async def interrupt(self, timeout_s: float) -> bool:
        """Ctrl-C. True when the shell is back at its prompt."""
        self._max_output = -1
        self._settled.clear()
        try:
            os.write(self._master, b"\x03")
        except OSError:
            self.gone = True
        return await self._settle(timeout_s) and not self.gone

    def shell_ended(self) -> None:
        """The supervisor saw the shell end. What it printed last may still be on its way here."""
        self._loop.call_later(0.02, self._end)

    def close(self) -> None:
        if self._master >= 0:
            self._loop.remove_reader(self._master)
            os.close(self._master)
            os.close(self._commands)
            self._master = -1
        self._end()

    async def _settle(self, timeout_s: float) -> bool:
        if self.gone:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()
        except TimeoutError:
            return False
        return self.gone or (self._output is not None and self._output.exit_code is not None)

    def _end(self) -> None:
        self.gone = True
        self._settled.set()

    def _on_readable(self) -> None:
        try:
            data = os.read(self._master, 1 << 16)
        except BlockingIOError:
            return
        except OSError:  # EIO: no process has the terminal open any more
            data = b""
        if not data:
            self._loop.remove_reader(self._master)
            self._end()
            return
        output = self._output
        if output is None or output.exit_code is not None:
            return
        output.feed(data)
        too_much = 0 <= self._max_output < output.num_bytes
        if output.exit_code is not None or too_much:
            self._settled.set()


def bash_command() -> tuple[str, ...]:
    """bash, interactive: its errors read like a user's, and Ctrl-C brings it back to its prompt."""
    return ("/bin/bash", "--noprofile", "--noediting", "--rcfile", "/etc/agentrl.bashrc", "-i")
