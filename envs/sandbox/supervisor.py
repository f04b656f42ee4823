"""The first process of a sandbox: it owns the mounts, starts the shells and reports on the files.

Runs inside bubblewrap's namespaces or, with `build_root`, makes its own (see `launch`). It talks to the host over an
inherited Unix socket: frames of a 4-byte length and a body, marshalled towards here, JSON towards the host, which must
not trust what comes out of a sandbox. The first frame is the configuration; then the host asks

    {"op": "fresh", "files": {path: bytes | None}}    all processes ended, new empty mounts, files written, new shell
    {"op": "shell"}                                   all processes ended, new shell in the same files
    {"op": "snapshot"}                                what lies in the watched directories

and gets {"ok": ...} or {"error": text}; a new shell's terminal and command pipe come with the answer as file
descriptors. {"exited": shell number, "status": n} is sent unasked when a shell ends. When the host goes away the
socket closes, this process ends, and as it is process 1 of its namespace the kernel ends all others.

Commands cannot reach it: a process 1 takes no signals from inside, and it holds capabilities that they lack, which
forbids them to trace it or to read its memory.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself imports enum, which is slow
import _socket
import array
import fcntl
import marshal
import os
import resource
import select
import struct
import sys
import termios

from envs.sandbox.json_text import to_json
from envs.sandbox.kernel import (
    CAP_SETPCAP,
    CAP_SYS_ADMIN,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    build_root,
    enter_namespaces,
    give_up_privileges,
    install_filter,
    keep_capabilities,
    make_read_only,
    mount,
    set_dumpable,
    unmount,
)
from envs.sandbox.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing takes longer than all else here
    from typing import Any

COMMAND_FD = 99

ETC = {
    "passwd": "agent:x:0:0::/home/agent:/bin/bash\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n",
    "group": "agent:x:0:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


def receive(host: _socket.socket) -> dict[str, Any] | None:
    """The next frame; None when the host has gone."""
    header = read_exactly(host, 4)
    body = read_exactly(host, struct.unpack(">I", header)[0]) if header else None
    return marshal.loads(body) if body else None  # noqa: S302 - from the host that started this


def read_exactly(host: _socket.socket, length: int) -> bytes | None:
    data = bytearray()
    while len(data) < length:
        part = host.recv(length - len(data))
        if not part:
            return None
        data += part
    return bytes(data)


class Supervisor:
    def __init__(self, config: dict[str, Any], host: _socket.socket) -> None:
        self.config = config
        self.host = host
        self.shell: int | None = None
        self.number = 0

    def prepare_root(self) -> None:
        """Fixes everything that commands may not change; only the four small mounts stay writable."""
        os.umask(0o022)
        os.makedirs("/etc", exist_ok=True)
        os.chmod("/etc", 0o755)  # noqa: S103 - bubblewrap makes it unreadable for others
        for name, text in ETC.items() | {("agentrl.bashrc", self.config["bashrc"])}:
            with open(f"/etc/{name}", "w") as file:
                file.write(text)
        for path, text in self.config["programs"].items():
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(text)
            os.chmod(path, 0o755)  # noqa: S103 - a program
        for path in self.config["writable"]:
            os.makedirs(path, exist_ok=True)
            self.mount_writable(path)
        detach = self.config["detach"]
        if detach is not None:
            # The interpreter's files were needed to get here; nothing is imported from now on.
            unmount(detach)
            os.removedirs(detach)
        mount("/proc/sys", "/proc/sys", "", MS_BIND)
        for path in ("/proc/sys", "/dev", "/"):
            make_read_only(path)

    def mount_writable(self, path: str) -> None:
        options = f"size={self.config['mount_size']},nr_inodes={self.config['mount_inodes']},mode=755"
        mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, options)

    def serve(self) -> None:
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        _signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(self.host, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        self.send({"ok": True})
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if wake_read in ready:
                try:  # noqa: SIM105 - contextlib is slow to import
                    os.read(wake_read, 4096)
                except BlockingIOError:
                    pass
                self.reap()
            if self.host.fileno() in ready:
                request = receive(self.host)
                if request is None:
                    return
                try:
                    self.answer(request)
                except OSError as error:
                    self.send({"error": str(error)})

    def send(self, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        body = to_json(message).encode()
        frame = struct.pack(">I", len(body)) + body
        if descriptors:
            note = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", descriptors))
            frame = frame[self.host.sendmsg([frame], [note]) :]
        self.host.sendall(frame)

    def answer(self, request: dict[str, Any]) -> None:
        if request["op"] == "snapshot":
            self.send({"ok": self.snapshot()})
            return
        self.end_processes()
        if request["op"] == "fresh":
            for path in self.config["writable"]:
                unmount(path)
                self.mount_writable(path)
            self.write_files(request["files"])
        self.start_shell()

    def write_files(self, files: dict[str, bytes | None]) -> None:
        for name, content in files.items():
            path = os.path.join(self.config["home"], name)
            os.makedirs(path if content is None else os.path.dirname(path), exist_ok=True)
            if content is not None:
                with open(path, "wb") as file:
                    file.write(content)

    def reap(self) -> None:
        """Collects ended processes (orphans become children of process 1) and reports the shell's end."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.shell:
                self.shell = None
                self.send({"exited": self.number, "status": os.waitstatus_to_exitcode(status)})

    def end_processes(self) -> None:
        self.shell = None
        while True:
            try:  # noqa: SIM105
                os.kill(-1, _signal.SIGKILL)  # everything in this namespace but process 1
            except ProcessLookupError:
                pass
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return

    def start_shell(self) -> None:
        """OSError when the child could not become a shell: it says why through a pipe that a successful exec closes."""
        terminal, slave = os.openpty()
        # What is typed is not echoed and what is printed not altered. Bash goes back to the modes that it finds now.
        modes = termios.tcgetattr(slave)
        modes[0], modes[1], modes[3] = termios.ICRNL, 0, termios.ISIG | termios.ICANON
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        commands, host_end = os.pipe()
        failure, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                self.become_shell(slave, commands)
            except BaseException as error:  # noqa: BLE001 - a forked child must never return
                os.write(tell, str(error).encode())
            finally:
                os._exit(126)
        self.shell = pid
        self.number += 1
        os.close(tell)
        reason = os.read(failure, 1000)
        if not reason:
            self.send({"ok": self.number}, (terminal, host_end))
        for descriptor in (terminal, slave, commands, host_end, failure):
            os.close(descriptor)
        if reason:
            raise OSError(f"cannot start a shell: {reason.decode()}")

    def become_shell(self, slave: int, commands: int) -> None:
        """The child's way to bash: terminal, limits, then every privilege dropped for good."""
        os.setsid()
        _signal.set_wakeup_fd(-1)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        # Python ignores the first two; the others a shell ignores for what it starts in the background, and bash
        # would pass all of them on: Ctrl-C would end nothing then.
        for number in (
            _signal.SIGPIPE,
            _signal.SIGXFSZ,
            _signal.SIGINT,
            _signal.SIGQUIT,
            _signal.SIGHUP,
            _signal.SIGTERM,
        ):
            _signal.signal(number, _signal.SIG_DFL)
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for descriptor in (0, 1, 2):
            os.dup2(slave, descriptor)
        os.dup2(commands, COMMAND_FD)
        os.nice(10)
        for name, value in self.config["limits"].items():
            resource.setrlimit(getattr(resource, name), (value, value))
        os.chdir(self.config["home"])
        give_up_privileges()
        install_filter(self.config["filter"])
        os.execve(self.config["shell"][0], self.config["shell"], self.config["environment"])  # noqa: S606

    def snapshot(self) -> dict[str, Any]:
        """Files, directories and links in the watched directories; contents as base64."""
        found = Tree()
        for root in self.config["watched"]:
            descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            found.add_folder(descriptor, "" if root == self.config["home"] else root + "/", 0)
        return {
            "files": found.files,
            "directories": found.directories,
            "links": found.links,
            "complete": found.complete,
        }


def main() -> None:
    host = _socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(host.fileno(), False)  # noqa: FBT003 - takes no keyword
    config = receive(host)
    if config is None:
        return
    try:
        if config["build_root"]:
            enter_namespaces(config["uid"])
            build_root()
            keep_capabilities(CAP_SYS_ADMIN, CAP_SETPCAP)
        # When the machine runs out of memory a sandbox goes first, not what it was started by.
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        set_dumpable(0)
        supervisor = Supervisor(config, host)
        supervisor.prepare_root()
    except OSError as error:
        sys.exit(str(error))
    supervisor.serve()
