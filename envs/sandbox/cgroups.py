"""Control groups around a sandbox, where this process may make them: memory, processes and CPU share of all together.

Process limits alone bound each process; what all processes of a sandbox take together is bounded by these. They are an
addition, used where a writable hierarchy (version 1 or 2) is found, and never required.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

from envs.sandbox.base import Limits

_counter = itertools.count()


class ControlGroups:
    """The groups of one sandbox; empty where none could be made."""

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self.folders = folders

    def add(self, pid: int) -> None:
        """Moves a process; its later children follow. OSError when it has gone."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> bool:
        """True once all are gone; False while a process is still ending."""
        for folder in self.folders:
            with contextlib.suppress(FileNotFoundError):
                try:
                    folder.rmdir()
                except OSError:
                    return False
        return True


def make_groups(
    limits: Limits, *, root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> ControlGroups:
    """Groups for one sandbox below the groups of this process.

    Args:
        limits: total_memory and num_processes are set; the CPU share is one processor.
        root: where the hierarchies are mounted.
        own: the kernel's list of this process's groups.
    """
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return ControlGroups(())
    name = f"agentrl-{os.getpid()}-{next(_counter)}"
    pids = str(limits.num_processes + 8)  # the supervisor and its starters are counted too
    memory = str(limits.total_memory)
    version_1 = {
        "memory": {"memory.limit_in_bytes": memory},
        "pids": {"pids.max": pids},
        "cpu": {"cpu.cfs_quota_us": "100000"},
    }
    made: list[Path] = []
    for _, controllers, path in lines:
        inside = path.lstrip("/")
        if controllers == "" and (root / "cgroup.controllers").exists():
            # A version 2 group that holds processes cannot have limited children, so its parent is tried as well.
            for base in (root / inside, (root / inside).parent):
                settings = {"memory.max": memory, "pids.max": pids, "cpu.max": "100000 100000"}
                if _enabled(base) and _make(base / name, settings):
                    made.append(base / name)
                    break
            continue
        for controller, settings in version_1.items():
            folder = root / controller / inside / name
            if controller in controllers.split(",") and _make(folder, settings):
                made.append(folder)
    return ControlGroups(tuple(made))


def _enabled(base: Path) -> bool:
    try:
        return {"memory", "pids"} <= set((base / "cgroup.subtree_control").read_text().split())
    except OSError:
        return False


def _remove_orphans(parent: Path) -> None:
    """Removes the empty groups of processes that were killed before they could."""
    for folder in parent.glob("agentrl-*-*"):
        if not Path("/proc", folder.name.split("-")[1]).exists():
            with contextlib.suppress(OSError):
                folder.rmdir()


def _make(folder: Path, settings: dict[str, str]) -> bool:
    """Makes a group; one that cannot take its memory or process limit is removed again."""
    _remove_orphans(folder.parent)
    try:
        folder.mkdir()
    except OSError:
        return False
    for name, value in settings.items():
        try:
            (folder / name).write_text(value)
        except OSError:
            if name.startswith("cpu"):  # the cpu controller is not delegated everywhere
                continue
            with contextlib.suppress(OSError):
                folder.rmdir()
            return False
    return True
