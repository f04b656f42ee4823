"""A system-call filter (classic BPF) for the commands of a sandbox.

Namespaces and dropped capabilities already keep a command from the host. The filter closes what they leave open:
 - a user namespace of its own would give a command mounts without limits: `unshare`, `setns` and `clone` with
   namespace flags are refused, `clone3` (whose flags a filter cannot read) is "not implemented", so libc uses `clone`;
 - memory that no process limit counts: memfd, System V and POSIX message objects, keys, io_uring;
 - sockets that a network namespace does not confine (vsock reaches the machine's hypervisor): only Unix and IP ones;
 - interfaces with a history of kernel faults that no task needs: bpf, perf events, userfaultfd, ptrace, mount calls.
"""

from __future__ import annotations

import errno
import struct

_LOAD_WORD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_ARGUMENT = 0, 4, 16
_NAMESPACE_FLAGS = 0x7E020000
_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
_X32 = 0x40000000

# Since Linux 5.1 new system calls have one number everywhere.
_REFUSED_EVERYWHERE = (
    425, 426, 427,  # io_uring
    428, 429, 430, 431, 432, 433, 442,  # the newer mount calls
    447,  # memfd_secret
)  # fmt: skip
_REFUSED = {
    "x86_64": (
        272, 308, 165, 166, 155, 161,  # unshare setns mount umount2 pivot_root chroot
        319, 29, 64, 68, 240,  # memfd_create shmget semget msgget mq_open
        248, 249, 250,  # add_key request_key keyctl
        321, 298, 323, 101, 303, 304,  # bpf perf_event_open userfaultfd ptrace name_to_handle_at open_by_handle_at
    ),
    "aarch64": (
        97, 268, 40, 39, 41, 51,
        279, 194, 190, 186, 180,
        217, 218, 219,
        280, 241, 282, 117, 264, 265,
    ),
}  # fmt: skip
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_SOCKETS = {"x86_64": (41, 53), "aarch64": (198, 199)}  # socket, socketpair
_CLONE3 = 435


def supported(machine: str) -> bool:
    """Whether the filter knows the system calls of this kind of processor (`os.uname().machine`)."""
    return machine in _ARCHITECTURES


def build_filter(machine: str) -> bytes:
    """The filter as an array of `struct sock_filter`. KeyError for an unknown kind of processor."""
    program: list[tuple[int, int, int, int]] = []

    def emit(code: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        program.append((code, if_true, if_false, value))

    def refuse(number: int, error: int) -> None:
        emit(_JUMP_EQUAL, number, 0, 1)
        emit(_RETURN, _ERRNO | error)

    emit(_LOAD_WORD, _OFFSET_ARCH)
    emit(_JUMP_EQUAL, _ARCHITECTURES[machine], 1, 0)
    emit(_RETURN, _KILL_PROCESS)
    emit(_LOAD_WORD, _OFFSET_NUMBER)
    if machine == "x86_64":
        emit(_JUMP_GREATER_EQUAL, _X32, 0, 1)
        emit(_RETURN, _ERRNO | errno.ENOSYS)
    for number in _REFUSED[machine] + _REFUSED_EVERYWHERE:
        refuse(number, errno.EPERM)
    refuse(_CLONE3, errno.ENOSYS)
    # Each block below overwrites the loaded number, so it must end in a return.
    emit(_JUMP_EQUAL, _CLONE[machine], 0, 4)
    emit(_LOAD_WORD, _OFFSET_ARGUMENT)
    emit(_JUMP_ANY_BIT, _NAMESPACE_FLAGS, 0, 1)
    emit(_RETURN, _ERRNO | errno.EPERM)
    emit(_RETURN, _ALLOW)
    for number in _SOCKETS[machine]:
        emit(_JUMP_EQUAL, number, 0, len(_FAMILIES) + 3)
        emit(_LOAD_WORD, _OFFSET_ARGUMENT)
        for left, family in enumerate(_FAMILIES):
            emit(_JUMP_EQUAL, family, len(_FAMILIES) - left, 0)
        emit(_RETURN, _ERRNO | errno.EAFNOSUPPORT)
        emit(_RETURN, _ALLOW)
    emit(_RETURN, _ALLOW)
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)
