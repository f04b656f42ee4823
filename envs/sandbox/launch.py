"""The command lines that start a supervisor: in bubblewrap's namespaces, or making its own with unshare(2).

As root both give up the user first: process limits do not bind root, and a user of its own cannot touch what is root's
in /proc. bubblewrap then could no longer read an interpreter below /root, so the interpreter's folder is bound to a
place that everybody can reach, in a mount namespace of its own.
"""

from __future__ import annotations

import binascii
import functools
import itertools
import marshal
import os
import shutil
import sys
from pathlib import Path

from agentrl.errors import SandboxError
from envs.sandbox import json_text, kernel, supervisor, syscalls, tree
from envs.sandbox.base import ShellKind

_FIRST_UID = 1_879_000_000
_NUM_UIDS = 2**20
_counter = itertools.count()

INTERPRETER = Path(sys.base_prefix).resolve()


# Loads the modules in the order given; only names below `envs.sandbox` are ever imported from one another.
_BOOT = """
import binascii, marshal, sys
for name, code in marshal.loads(binascii.a2b_base64(sys.argv[2])):
    sys.modules[name] = module = type(sys)(name)
    exec(code, module.__dict__)
sys.modules["envs.sandbox.supervisor"].main()
"""
_MODULES = (json_text, kernel, tree, supervisor)


@functools.cache
def compiled() -> str:
    """The supervisor's modules as code objects: the sandbox has none of our files, and need not compile them."""
    codes = []
    for module in _MODULES:
        path = Path(str(module.__file__))
        code = compile(path.read_text(encoding="utf-8"), path.name, "exec", dont_inherit=True)
        codes.append((module.__name__, code))
    return binascii.b2a_base64(marshal.dumps(codes), newline=False).decode()


def inside_usr(path: Path) -> bool:
    return path.is_relative_to("/usr")


def fresh_uid() -> int:
    """A user that owns nothing on the host and, most likely, no other sandbox."""
    return _FIRST_UID + (os.getpid() * 61 + next(_counter)) % _NUM_UIDS


def check_machine() -> None:
    """Raises SandboxError where no kind of sandbox can work."""
    machine = os.uname()
    if machine.sysname != "Linux":
        raise SandboxError(f"sandboxes need Linux, this is {machine.sysname}")
    if not syscalls.supported(machine.machine):
        raise SandboxError(f"there is no system-call filter for {machine.machine} processors")


def command_line(kind: ShellKind, socket: int) -> list[str]:
    """The whole command. SandboxError when a needed program is not installed."""
    check_machine()
    python = [os.path.realpath(sys.executable), "-I", "-S", "-B", "-c", _BOOT, str(socket), compiled()]
    if kind is ShellKind.UNSHARE:
        return python
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxError("bubblewrap (the program bwrap) is not installed")
    as_root = os.geteuid() == 0
    interpreter = [] if inside_usr(INTERPRETER) else [str(INTERPRETER)]
    line = [bwrap, *namespaces(), *host_folders()]
    if interpreter:
        line += ["--ro-bind", "/tmp" if as_root else interpreter[0], interpreter[0]]  # noqa: S108
    line += ["--chdir", "/", "--", *python]
    if not as_root:
        return line
    uid = str(fresh_uid())
    line = ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", *line]
    if interpreter:
        # /tmp is only a mount point that is sure to exist; nobody outside this namespace sees the mount.
        script = 'mount --bind "$0" /tmp && exec "$@"'
        line = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "/bin/sh",
            "-c",
            script,
            *interpreter,
            *line,
        ]
    return line


def namespaces() -> list[str]:
    """Everything unshared; process 1 is the supervisor, root in its own user namespace to make small mounts."""
    return [
        "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        "--uid", "0", "--gid", "0", "--hostname", "sandbox", "--as-pid-1", "--new-session", "--clearenv",
        "--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_SETPCAP",
    ]  # fmt: skip


def host_folders() -> list[str]:
    """What commands see of the host: /usr and the links into it, read-only."""
    line = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            line += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            line += ["--ro-bind", str(path), str(path)]
    line += ["--ro-bind-try", "/etc/alternatives", "/etc/alternatives"]
    return [*line, "--proc", "/proc", "--dev", "/dev"]
