"""What an agent's commands may do to a sandbox, and what they may not do to the machine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agentrl.errors import SandboxError
from envs.sandbox.base import CommandResult, Ended, Limits, ShellKind
from envs.sandbox.cgroups import make_groups
from envs.sandbox.sandbox import Sandbox

LIMITS = Limits(command_s=5.0, max_output=2**20)


@pytest.fixture(params=[ShellKind.BUBBLEWRAP, ShellKind.UNSHARE])
async def sandbox(
    request: pytest.FixtureRequest, skip_unless_possible: Callable[[ShellKind], None]
) -> AsyncIterator[Sandbox]:
    skip_unless_possible(request.param)
    made = await Sandbox.open(request.param, LIMITS)
    yield made
    await made.aclose()


async def still_works(sandbox: Sandbox) -> bool:
    await sandbox.reset({"a.txt": b"hello\n"})
    return (await sandbox.run("cat a.txt")).output == "hello\n"


async def until(holds: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Waits for what other processes of the machine do: no event tells of it."""
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)


def runs(command: str) -> bool:
    """Whether a process of the machine has this command line."""
    text = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True).stdout
    return command in text.splitlines()


def own_processes() -> set[str]:
    """All processes of the machine, but for what has ended."""
    text = subprocess.run(
        ["ps", "-eo", "pid=,stat=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    return {line.split()[0] for line in text.splitlines() if "Z" not in line.split()[1]}


async def test_directory_variables_and_exit_code_last_from_command_to_command(sandbox: Sandbox) -> None:
    await sandbox.run("mkdir d; cd d; x=3; declare -A m=([k]=v); f() { echo f; }")
    result = await sandbox.run("pwd; echo $x ${m[k]}; f; (exit 7)")
    assert (result.output, result.exit_code) == ("/home/agent/d\n3 v\nf\n", 7)
    assert (await sandbox.run("echo $?")).output == "7\n"


async def test_commands_of_many_lines_and_broken_ones_do_not_confuse_the_shell(sandbox: Sandbox) -> None:
    assert (await sandbox.run("cat <<END\none\ntwo\nEND")).output == "one\ntwo\n"
    assert (await sandbox.run("for i in 1 2; do\n echo $i\ndone")).output == "1\n2\n"
    broken = await sandbox.run("echo 'x")
    assert broken.exit_code == 2
    assert "matching" in broken.output
    assert (await sandbox.run("")).exit_code == 0
    assert (await sandbox.run("echo é; echo 'a!b' | cat")).output == "é\na!b\n"
    assert (await sandbox.run("nope")).output == "bash: nope: command not found\n"
    long = "x" * 20_000
    assert (await sandbox.run(f"echo {long} | wc -c")).output == "20001\n"
    refused = await sandbox.run("echo " + "x" * 40_000)
    assert (refused.exit_code, refused.ended) == (126, Ended.EXITED)


async def test_a_reset_leaves_nothing_of_what_was(sandbox: Sandbox) -> None:
    await sandbox.run(
        "touch a /tmp/b /srv/c /dev/shm/d; nohup setsid sleep 1000 & sleep 2000 & cd /tmp; trap '' INT HUP"
    )
    await sandbox.run("PATH=/nowhere; alias ls=false; f() { :; }; x=1")
    await sandbox.reset({"new/x": b"1", "empty": None})
    assert (await sandbox.run("pwd; jobs; declare -F f; echo [$x]")).output == "/home/agent\n[]\n"
    found = await sandbox.run("find /home/agent /tmp /srv /dev/shm -mindepth 1 | sort")
    assert found.output.split() == ["/home/agent/empty", "/home/agent/new", "/home/agent/new/x"]
    assert (await sandbox.run("ps -e -o args= | grep -c '^sleep'")).output == "0\n"


async def test_a_snapshot_shows_files_and_follows_no_link(sandbox: Sandbox) -> None:
    await sandbox.run(
        "printf '\\0\\377' > a; mkdir -p d/e; ln -s /etc/passwd l; mkfifo p; echo s > /srv/s; ln -s / r"
    )
    seen = await sandbox.snapshot()
    assert seen.files == {"a": b"\0\xff", "/srv/s": b"s\n"}
    assert seen.directories == {"d", "d/e"}
    assert seen.links == {"l": "/etc/passwd", "r": "/"}
    assert seen.complete


async def test_a_snapshot_of_too_much_is_bounded_and_says_so(sandbox: Sandbox) -> None:
    for command in (
        "head -c 100000 /dev/zero > big",
        "for i in $(seq 1500); do : > f$i; done",
        "p=d; for i in $(seq 60); do mkdir $p; p=$p/d; done",
        "mkdir x; echo 1 > x/y; chmod 000 x",
    ):
        await sandbox.reset({})
        await sandbox.run(command)
        seen = await sandbox.snapshot()
        assert not seen.complete, command
        assert len(seen.files) + len(seen.directories) <= 1000
    assert await still_works(sandbox)


async def test_paths_that_leave_home_are_refused(sandbox: Sandbox) -> None:
    for path in ("/etc/passwd", "../x", "a/../../x", "", "/srv", "/srv/../etc/x"):
        with pytest.raises(ValueError, match="neither"):
            await sandbox.reset({path: b""})


async def test_it_has_no_network_and_sees_nothing_of_the_host(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        reached = await sandbox.run(f"(echo hi > /dev/tcp/127.0.0.1/{port}) 2>&1")
    assert reached.exit_code != 0
    assert "refused" in reached.output or "unreachable" in reached.output
    for path in (
        "/root",
        "/work",
        "/etc/shadow",
        "/var",
        str(secret),
        "/sys/fs",
        "/home/agent/../../root",
        "/boot",
    ):
        assert (await sandbox.run(f"ls {path}")).exit_code != 0, path
    pids = await sandbox.run("ls /proc | grep -c '^[0-9]'")
    assert int(pids.output) <= 5
    for path in (
        "/usr/x",
        "/x",
        "/etc/x",
        "/dev/x",
        "/proc/sys/kernel/hostname",
        "/proc/sysrq-trigger",
        "/opt/x",
    ):
        assert (await sandbox.run(f"echo 1 > {path}")).exit_code != 0, path
    for path in ("/proc/1/fd/0", "/proc/1/mem", "/proc/1/environ"):
        assert (await sandbox.run(f"cat {path}")).exit_code != 0, path
    for path in ("/proc/1/root/", "/proc/1/cwd/"):
        assert (await sandbox.run(f"ls {path}")).exit_code != 0, path


async def test_it_cannot_get_privileges_namespaces_or_other_kinds_of_sockets_back(sandbox: Sandbox) -> None:
    status = (await sandbox.run("cat /proc/self/status")).output
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert "Operation not permitted" in (await sandbox.run("unshare -Ur true")).output
    assert (await sandbox.run("mount -t tmpfs x /tmp")).exit_code != 0
    assert (await sandbox.run("umount /tmp")).exit_code != 0
    assert (await sandbox.run("kill -9 1; kill -TERM 1; kill -STOP 1; echo here")).output.endswith("here\n")
    python = (await sandbox.run("command -v /usr/bin/python3")).exit_code == 0
    if python:
        for text, answer in (
            ("import socket; socket.socket(40, 1, 0)", "not supported"),  # AF_VSOCK
            ("import socket; socket.socket(16, 3, 0)", "not supported"),  # AF_NETLINK
            ("import os; os.memfd_create('x')", "not permitted"),
            ("import ctypes; l=ctypes.CDLL(None, use_errno=True); l.shmget(0, 4096, 0o1600); "
             "import os; print(os.strerror(ctypes.get_errno()))", "not permitted"),
        ):  # fmt: skip
            assert answer in (await sandbox.run(f'/usr/bin/python3 -c "{text}"')).output, text
        threads = "import threading as t; x=t.Thread(target=print,args=(5,)); x.start(); x.join()"
        assert (await sandbox.run(f'/usr/bin/python3 -c "{threads}"')).output == "5\n"


async def test_no_writable_mount_takes_more_than_its_size(sandbox: Sandbox) -> None:
    mounts = (await sandbox.run("awk '$4 ~ /^rw/ && $3 == \"tmpfs\" {print $2}' /proc/mounts")).output.split()
    assert sorted(mounts) == ["/dev/shm", "/home/agent", "/srv", "/tmp"]
    for folder in mounts:
        filled = await sandbox.run(
            f"for i in 1 2 3; do cat /dev/zero > {folder}/big$i; done; du -sb {folder} | cut -f1",
        )
        size = int(filled.output.split()[-1])
        assert LIMITS.mount_size // 2 < size <= LIMITS.mount_size + 8192, (folder, filled)
    for folder in ("/", "/dev", "/etc", "/home", "/dev/pts", "/proc", "/usr", "/opt", "/run", "/var/tmp"):
        assert (await sandbox.run(f": > {folder}/x")).exit_code != 0, folder
    assert await still_works(sandbox)


async def test_a_million_files_are_not_to_be_made(sandbox: Sandbox) -> None:
    sandbox._limits = Limits(command_s=60)
    for folder in ("/home/agent", "/tmp", "/srv", "/dev/shm"):
        result = await sandbox.run(
            f"cd {folder}; seq 1000000 | xargs sh -c 'touch \"$@\" || exit 255' 2> /dev/null; ls -f | wc -l; touch x"
        )
        number = int(result.output.split()[0])
        assert 1000 < number <= LIMITS.mount_inodes + 2
        assert "No space left on device" in result.output
    assert await still_works(sandbox)


async def test_a_fork_bomb_ends_in_a_result_and_the_sandbox_goes_on(sandbox: Sandbox) -> None:
    before = own_processes()
    sandbox._limits = Limits(command_s=1.5)
    for bomb in (":(){ :|:& };:; sleep 3", "while :; do sleep 100 & done"):
        result = await sandbox.run(bomb)
        assert isinstance(result, CommandResult)
        assert await still_works(sandbox)
    await until(lambda: len(own_processes() - before) < 20)


async def test_the_number_of_processes_is_limited(sandbox: Sandbox) -> None:
    sandbox._limits = Limits(command_s=1.5)
    result = await sandbox.run("for i in $(seq 200); do sleep 50 & done 2>&1; jobs -r | wc -l")
    assert "Resource temporarily unavailable" in result.output
    assert await still_works(sandbox)


async def test_memory_and_cpu_of_a_process_are_limited(best_kind: ShellKind) -> None:
    sandbox = await Sandbox.open(best_kind, Limits(command_s=10, cpu_s=1, memory=64 * 2**20))
    eaten = await sandbox.run("x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}")
    assert "200000000" not in eaten.output
    spun = await sandbox.run("bash -c 'while :; do :; done'; echo $?")
    assert spun.output.split()[-1] == "137"
    await sandbox.aclose()


async def test_a_command_that_never_ends_is_interrupted_and_its_shell_stays(sandbox: Sandbox) -> None:
    sandbox._limits = Limits(command_s=0.3)
    await sandbox.run("x=5")
    for command in ("sleep 1000", "cat", "while :; do :; done", "read y", "sleep 1000 | cat; echo after"):
        result = await sandbox.run(command)
        assert (result.ended, result.exit_code, result.restarted) == (Ended.TIMED_OUT, 124, False), command
        assert "after" not in result.output
    sandbox._limits = LIMITS
    assert (await sandbox.run("echo $x")).output == "5\n"


async def test_a_command_that_ignores_the_interrupt_loses_its_shell_and_keeps_the_files(
    sandbox: Sandbox,
) -> None:
    sandbox._limits = Limits(command_s=1)
    result = await sandbox.run("echo kept > a; trap '' INT; echo before; sleep 1000; sleep 1000")
    assert (result.ended, result.exit_code, result.restarted) == (Ended.TIMED_OUT, 137, True)
    assert result.output == "before\n"
    sandbox._limits = LIMITS
    assert (await sandbox.run("cat a; ps -e | grep -c sleep")).output == "kept\n0\n"


async def test_ending_the_shell_is_a_result_and_the_next_command_gets_a_new_one(sandbox: Sandbox) -> None:
    gone = await sandbox.run("echo bye; touch a; exit 3")
    assert (gone.ended, gone.exit_code, gone.restarted) == (Ended.SHELL_GONE, 3, True)
    assert gone.output.startswith("bye\n")
    assert (await sandbox.run("ls")).output == "a\n"
    for command in ("kill -9 $$", "exec true", "/usr/bin/kill -9 -1", "set -e; false", "exec sleep 0"):
        result = await sandbox.run(command)
        assert result.ended is Ended.SHELL_GONE, (command, result)
        assert (await sandbox.run("echo again")).output == "again\n"
    everybody = await sandbox.run("kill -9 -1; echo alive")
    assert everybody.exit_code in (0, 137)
    assert await still_works(sandbox)


async def test_binary_output_is_made_printable(sandbox: Sandbox) -> None:
    result = await sandbox.run("head -c 3000 /dev/urandom; printf '\\0\\1\\033[31mred\\033[0m\\r\\n\\tx'")
    assert result.exit_code == 0
    assert all(
        char.isprintable() or char in "\n\t\u00a0\u00ad\ufffd" or ord(char) > 0x9F for char in result.output
    )
    assert result.output.endswith("red\n\tx")
    assert await still_works(sandbox)


async def test_endless_output_is_stopped_and_kept_to_its_bound(sandbox: Sandbox) -> None:
    result = await sandbox.run("yes")
    assert (result.ended, result.exit_code) == (Ended.TOO_MUCH_OUTPUT, 124)
    assert len(result.output) == LIMITS.kept_output
    assert result.truncated
    assert result.elapsed_s < LIMITS.command_s
    large = await sandbox.run("yes | head -c 500000; exit_code=$?; echo; echo end")
    assert (large.ended, large.num_bytes) == (Ended.EXITED, 500_005)


async def test_background_output_and_forged_ends_do_not_reach_the_next_command(sandbox: Sandbox) -> None:
    forged = await sandbox.run("printf '\\036E%s:0\\036' $__agentrl_tag; echo lost; sleep 0.1; echo more")
    assert forged.ended is Ended.EXITED
    assert (await sandbox.run("sleep 0.2; echo real")).output == "real\n"
    await sandbox.run("exec > /dev/null 2>&1")
    silent = await sandbox.run("echo nothing; false")
    assert (silent.output, silent.exit_code) == ("", 1)
    await sandbox.reset({})
    await sandbox.run("(sleep 0.1; echo late) &")
    await asyncio.sleep(0.2)  # what is tested: output that comes while no command runs
    assert (await sandbox.run("echo now")).output.splitlines()[-1] == "now"


async def test_a_spoilt_terminal_or_prompt_is_mended_or_replaced(sandbox: Sandbox) -> None:
    sandbox._limits = Limits(command_s=1.5)
    for command in (
        "stty -a; stty raw; stty sane echo",
        "PROMPT_COMMAND=; unset PROMPT_COMMAND; PS1=xxx",
        "__agentrl_next() { :; }; unset -f __agentrl_end",
        "__agentrl_tag=x; builtin() { :; }; printf() { :; }",
        "exec 99<&-",
        "exec 0<&-",
        "kill -STOP $$",
        "printf '\\033c\\033[2J'; set -o vi; set -u; set -x",
        "exec < /dev/null",
    ):
        assert isinstance(await sandbox.run(command), CommandResult)
        for _ in range(3):
            result = await sandbox.run("echo alive")
            if result.ended is Ended.EXITED:
                break
        assert result.output.splitlines()[-1] == "alive", command
        await sandbox.reset({})


async def test_a_sandbox_that_dies_is_replaced(sandbox: Sandbox) -> None:
    assert sandbox._channel is not None
    assert sandbox._channel.peer is not None
    running = asyncio.ensure_future(sandbox.run("sleep 98.76"))
    await until(lambda: runs("sleep 98.76"))
    os.kill(sandbox._channel.peer, signal.SIGKILL)
    result = await running
    assert (result.ended, result.exit_code, result.restarted) == (Ended.SANDBOX_GONE, 137, True)
    assert (await sandbox.run("echo again")).output == "again\n"


async def test_sixteen_sandboxes_run_at_once_and_closing_leaves_no_process(best_kind: ShellKind) -> None:
    before = own_processes()
    sandboxes = await asyncio.gather(*(Sandbox.open(best_kind) for _ in range(16)))
    results = await asyncio.gather(*(each.run(f"sleep 0.2; echo {n}") for n, each in enumerate(sandboxes)))
    assert [result.output for result in results] == [f"{n}\n" for n in range(16)]
    folders = [folder for each in sandboxes for folder in each._groups.folders]
    await asyncio.gather(*(each.aclose() for each in sandboxes))
    await sandboxes[0].aclose()
    assert not [folder for folder in folders if folder.exists()]
    with pytest.raises(SandboxError, match="closed"):
        await sandboxes[0].reset({})
    assert len(own_processes() - before) < 8  # other programs of the machine come and go


def test_control_groups_are_made_where_they_can_be_and_never_required(tmp_path: Path) -> None:
    own = tmp_path / "own"
    assert make_groups(LIMITS, root=tmp_path, own=own).folders == ()
    (tmp_path / "memory/x").mkdir(parents=True)
    own.write_text("4:cpu,cpuacct:/nowhere\n3:memory:/x\n2:pids:/y\n")
    groups = make_groups(LIMITS, root=tmp_path, own=own)
    assert [folder.parent for folder in groups.folders] == [tmp_path / "memory/x"]
    assert (groups.folders[0] / "memory.limit_in_bytes").read_text() == str(LIMITS.total_memory)

    unified = tmp_path / "two"
    (unified / "a/b").mkdir(parents=True)
    (unified / "cgroup.controllers").write_text("memory pids cpu")
    (unified / "a/b/cgroup.subtree_control").write_text("")
    (unified / "a/cgroup.subtree_control").write_text("memory pids")
    own.write_text("0::/a/b\n")
    groups = make_groups(LIMITS, root=unified, own=own)
    assert [folder.parent for folder in groups.folders] == [unified / "a"]
    assert (groups.folders[0] / "pids.max").read_text() == str(LIMITS.num_processes + 8)


async def test_all_processes_together_are_held_to_their_memory_where_a_group_can_be_made(
    best_kind: ShellKind,
) -> None:
    sandbox = await Sandbox.open(best_kind, Limits(memory=2**30, total_memory=64 * 2**20))
    try:
        limits = [
            folder / name
            for folder in sandbox._groups.folders
            for name in ("memory.limit_in_bytes", "memory.max")
        ]
        if not any(limit.exists() for limit in limits):
            pytest.skip("no memory control group can be made here")
        result = await sandbox.run("x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}")
        assert "200000000" not in result.output
        assert await still_works(sandbox)
    finally:
        await sandbox.aclose()
