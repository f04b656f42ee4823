"""What a supervisor asks of the kernel: mounts, capabilities, filters, namespaces, and a root of its own.

Runs inside the sandbox, so only modules that the interpreter has built in or loads quickly are used (see `launch`).
"""

from __future__ import annotations

import _socket
import ctypes
import os
import struct

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 4, 22, 24, 38, 47
CAP_SETPCAP, CAP_SYS_ADMIN = 8, 21

libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def check(result: int, doing: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    result = libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode() or None
    )
    check(result, f"mounting {target}")


def unmount(target: str) -> None:
    check(libc.umount2(target.encode(), MNT_DETACH), f"unmounting {target}")


def make_read_only(target: str) -> None:
    """Remounts one mount read-only; flags that a parent namespace has locked are kept."""
    have = os.statvfs(target).f_flag
    keep = have & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for flag, bit in ((1024, 1 << 10), (2048, 1 << 11), (4096, 1 << 21)):  # noatime, nodiratime, relatime
        keep |= bit if have & flag else 0
    mount("", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY | keep)


def keep_capabilities(*kept: int) -> None:
    """Gives up every other effective, permitted and inheritable capability."""
    mask = sum(1 << capability for capability in kept)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header, data = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", low, low, 0, high, high, 0)
    check(libc.capset(header, data), "dropping capabilities")


# --- namespaces and a root of our own (where bubblewrap does not do it) ----------------------------------------------


def enter_namespaces(uid: int | None) -> None:
    """Becomes process 1 of new namespaces; the calling process waits for it and ends with its status."""
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        # Changing the user makes a process undumpable, and its /proc files root's.
        set_dumpable(1)
    own_uid, own_gid = os.getuid(), os.getgid()
    spaces = (
        CLONE_NEWUSER
        | CLONE_NEWNS
        | CLONE_NEWPID
        | CLONE_NEWNET
        | CLONE_NEWIPC
        | CLONE_NEWUTS
        | CLONE_NEWCGROUP
    )
    check(libc.unshare(spaces), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {own_uid} 1"), ("gid_map", f"0 {own_gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    child = os.fork()
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)


def build_root() -> None:
    """A root of tmpfs with the host's /usr read-only, new /proc and /dev, and nothing else of the host."""
    mount("", "/", "", MS_REC | MS_PRIVATE)
    base = "/tmp"  # noqa: S108 - any directory serves: the mount is visible in this namespace only
    mount("tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for name in ("usr", "etc", "proc", "dev", "old"):
        os.mkdir(f"{base}/{name}")
    binds = ["/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{base}/{name}")
        elif os.path.isdir(f"/{name}"):
            os.mkdir(f"{base}/{name}")
            binds.append(f"/{name}")
    if os.path.isdir("/etc/alternatives"):
        os.mkdir(f"{base}/etc/alternatives")
        binds.append("/etc/alternatives")
    for path in binds:
        mount(path, base + path, "", MS_BIND | MS_REC)
    with open("/proc/self/mountinfo") as file:
        points = [line.split()[4] for line in file]
    for point in points:
        # The kernel writes a space in a mount point as \040.
        point = point.replace("\\040", " ")
        if any(point == base + path or point.startswith(f"{base}{path}/") for path in binds):
            make_read_only(point)
    mount("proc", f"{base}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("tmpfs", f"{base}/dev", "tmpfs", MS_NOSUID, "mode=755")
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        os.close(os.open(f"{base}/dev/{name}", os.O_CREAT | os.O_WRONLY))
        mount(f"/dev/{name}", f"{base}/dev/{name}", "", MS_BIND)
    os.mkdir(f"{base}/dev/pts")
    os.mkdir(f"{base}/dev/shm")  # noqa: S108
    mount("devpts", f"{base}/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    for name, target in (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0")):
        os.symlink(target, f"{base}/dev/{name}")
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{base}/dev/{name}")
    os.chdir(base)
    check(libc.pivot_root(b".", b"old"), "pivot_root")
    os.chdir("/")
    unmount("/old")
    os.rmdir("/old")
    _socket.sethostname("sandbox")


def install_filter(code: bytes) -> None:
    """Puts a system-call filter (see `syscalls`) over this process and its descendants, for good."""
    instructions = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions and where they are.
    packed = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(instructions))
    program = ctypes.create_string_buffer(packed, len(packed))
    check(libc.prctl(PR_SET_SECCOMP, 2, ctypes.addressof(program), 0, 0), "installing the system-call filter")


def give_up_privileges() -> None:
    """No capability now or after any later exec."""
    check(libc.prctl(PR_CAP_AMBIENT, 4, 0, 0, 0), "clearing ambient capabilities")
    capability = 0
    while libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    keep_capabilities()
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def set_dumpable(dumpable: int) -> None:
    """0 keeps processes of the same user from looking into this one."""
    check(libc.prctl(PR_SET_DUMPABLE, dumpable, 0, 0, 0), "prctl")
