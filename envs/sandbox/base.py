"""What every shell offers, whether a sandbox runs it or it is simulated, and the limits it keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Protocol

HOME = "/home/agent"
SERVER = "/srv"
"""A second tree that tasks use as "the server": pages to fetch, uploads, the printer, installed packages."""

MAX_COMMAND_BYTES = 32 * 1024
"""A longer command is answered with an error text and exit code 126. It has to fit into an empty pipe."""


class ShellKind(StrEnum):
    BUBBLEWRAP = "bubblewrap"
    UNSHARE = "unshare"
    SIMULATED = "simulated"


class Ended(StrEnum):
    """How a command ended."""

    EXITED = "exited"
    TIMED_OUT = "timed_out"
    """Stopped after the time limit, by Ctrl-C or with its shell."""
    TOO_MUCH_OUTPUT = "too_much_output"
    """Stopped because it would not stop printing."""
    SHELL_GONE = "shell_gone"
    """The command ended its shell; the next one gets a new shell in the same files."""
    SANDBOX_GONE = "sandbox_gone"
    """The sandbox broke; a new one with empty files is started for the next command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one sandbox. Sizes in bytes."""

    command_s: float = 10.0
    """Wall seconds of one command."""
    cpu_s: int = 20
    """CPU seconds of one process."""
    memory: int = 512 * 2**20
    """Address space of one process."""
    total_memory: int = 1024 * 2**20
    """All processes and files together, where a memory control group is writable."""
    num_processes: int = 64
    num_open_files: int = 256
    """Of one process."""
    mount_size: int = 16 * 2**20
    """Of each writable mount: home, /srv, /tmp, /dev/shm."""
    mount_inodes: int = 4096
    """Files, directories and links on each writable mount."""
    kept_output: int = 64 * 1024
    """Bytes of a command's output that are kept; later ones are counted and dropped."""
    max_output: int = 4 * 2**20
    """A command that prints more than this is stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """What one command did. A result always comes; nothing that a command does raises."""

    output: str
    """stdout and stderr as printed, printable characters, newlines and tabs only."""
    exit_code: int
    """As the shell reports it; 124 for a command that was stopped, 137 when its shell or sandbox went with it."""
    ended: Ended = Ended.EXITED
    num_bytes: int = 0
    """Bytes printed in all, kept or not."""
    restarted: bool = False
    """The shell was replaced: directory, variables and background processes are gone."""
    elapsed_s: float = 0.0

    @property
    def truncated(self) -> bool:
        return self.num_bytes > len(self.output.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The files under home (relative paths) and under /srv (absolute paths). Links are never followed."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    directories: frozenset[str] = frozenset()
    links: Mapping[str, str] = field(default_factory=dict)
    """Symbolic links and their targets."""
    complete: bool = True
    """False when there was more than a snapshot takes (1,000 entries, 64 KiB a file, 1 MiB in all)."""


Files = Mapping[str, bytes | None]
"""Paths, relative to home or below /srv, with the content of each file; None makes a directory."""


class Shell(Protocol):
    """A bash that keeps its directory and variables from command to command."""

    @property
    def kind(self) -> ShellKind: ...

    async def reset(self, files: Files) -> None:
        """Ends every process, empties every writable place, puts `files` there and starts a new shell in home.

        Raises:
            SandboxError: the sandbox cannot be (re)started.
        """
        ...

    async def run(self, command: str) -> CommandResult: ...

    async def snapshot(self) -> Snapshot: ...

    async def aclose(self) -> None:
        """Ends every process; may be called twice."""
        ...


def check_files(files: Files) -> None:
    """Raises ValueError for a path that would leave home or /srv."""
    for path in files:
        parts = PurePosixPath(path).parts
        absolute_ok = parts[:2] == ("/", "srv") and len(parts) > 2
        if not parts or ".." in parts or (parts[0] == "/" and not absolute_ok):
            raise ValueError(f"{path!r} is neither relative to the home nor below {SERVER}")


_CSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Z0-9])")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def printable(data: bytes) -> str:
    """Bytes as text: terminal escapes dropped, CR LF as a newline, other control characters and bad UTF-8 as U+FFFD."""
    text = _CSI.sub("", data.decode("utf-8", errors="replace")).replace("\r\n", "\n")
    return _UNPRINTABLE.sub("\ufffd", text)
