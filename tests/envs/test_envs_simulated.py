"""The simulated shell against real bash: what both understand, both do alike."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from envs.sandbox import probe
from envs.sandbox.base import Ended, Limits, Shell, ShellKind
from envs.simulated.filetree import MAX_ENTRIES
from envs.simulated.shell import SimulatedShell

FILES = {
    "a.txt": b"pear\napple\napple\nfig\n",
    "b.txt": b"pear\ngrape\napple\nfig\nkiwi\n",
    "n.txt": b"10\n9\n2K\n\n1M\n",
    "long.txt": b"".join(b"line %d\n" % n for n in range(20)),
    "docs/x.md": b"x\n",
    "docs/y.md": b"y\n",
    "empty": None,
}
LINES = (
    "cat a.txt", "cat -n a.txt", "cat a.txt none b.txt", "cat docs", "cat < a.txt", "nl n.txt", "wc -l a.txt",
    "wc -l < a.txt", "head long.txt", "head -n 2 long.txt", "head -3 long.txt", "tail long.txt", "tail -n2 long.txt",
    "rev a.txt", "tac a.txt", "uniq a.txt", "uniq -c a.txt", "uniq -d a.txt", "grep app a.txt",
    "grep -n app a.txt b.txt", "grep -v app a.txt", "grep -c app a.txt", "grep nothing a.txt", "grep -i APP a.txt",
    "grep x none", "sort a.txt", "sort -r a.txt", "sort -u a.txt", "sort -n n.txt", "sort -h n.txt", "sort -f a.txt",
    "sort -V long.txt", "sort -d a.txt", "sort -M a.txt", "diff a.txt b.txt", "diff a.txt a.txt", "diff a.txt none",
    "paste a.txt b.txt", "base64 a.txt", "base64 a.txt | base64 -d", "od -An -v -tx1 b.txt", "ls", "ls docs",
    "ls -1 docs", "ls none", "ls docs empty", "md5sum a.txt", "sha224sum a.txt", "b2sum a.txt", "cksum a.txt b.txt",
    "du a.txt", "du -h a.txt", "cp a.txt c.txt; cat c.txt", "cp a.txt docs; ls docs", "cp none c", "cp a.txt none/c",
    "mv a.txt z; ls", "mv none z", "mv a.txt docs/q; ls docs", "rm a.txt; ls", "rm none", "rm -f none", "rm docs",
    "rm -r docs; ls", "mkdir new; ls", "mkdir docs", "mkdir p/q", "mkdir -p p/q; ls p", "rmdir empty; ls",
    "rmdir docs", "rmdir none", "touch t; ls", "touch none/t", "ln a.txt l; cat l",
    "ln -s a.txt s; cat s; rm s; cat a.txt", "ln a.txt b.txt", "echo a  'b  c' \"$HOME\"", "echo -n x",
    "echo 'it is' \\* * d*", "echo *.txt | cat", "x=5; echo $x ${x}y '$x'", "false; echo $?", "true && echo yes",
    "false && echo no", "false || echo or", "false || true && echo both", "echo a; echo b",
    "echo a > f; echo b >> f; cat f", "cat none 2> /dev/null", "cat none 2>&1 | wc -l", "cat none 2> e; cat e",
    "cd docs; pwd; cat x.md; cd; pwd", "cd none", "cd a.txt", "nope", "nope; echo $?", "cat a.txt | grep app | wc -l",
    "echo 'unfinished", "# only a comment", "echo a # rest", "sh -c 'echo inside; false'",
    "echo 'echo script' > s.sh; sh s.sh; bash s.sh", "sh none.sh", "cat a.txt > a.txt; wc -l a.txt",
    "> made; ls made", "echo \"a 'b'\" 'c \"d\"'", "echo a\\ b", "cat /srv/none", "/bin/cat a.txt",
    "/usr/bin/wc -l a.txt", "echo a |", "&& echo", "cat -Z a.txt", "echo a\necho b", "ls *.none", "exit 3",
)  # fmt: skip
NAMED_DIFFERENTLY = ("cat -Z a.txt", "sh none.sh", "exit 3")


@pytest.fixture
async def real(best_kind: ShellKind) -> AsyncIterator[Shell]:
    shell = await probe.open_shell(best_kind)
    yield shell
    await shell.aclose()


async def test_it_prints_and_changes_what_bash_does(real: Shell) -> None:
    simulated = SimulatedShell()
    different = []
    for line in LINES:
        await real.reset(FILES)
        await simulated.reset(FILES)
        wanted, got = await real.run(line), await simulated.run(line)
        here, there = await simulated.snapshot(), await real.snapshot()
        same = (here.files, here.directories, here.links) == (there.files, there.directories, there.links)
        if line in NAMED_DIFFERENTLY:
            same &= (got.exit_code == 0) == (wanted.exit_code == 0)
        else:
            # Errors stand before the output here, in the order of time there.
            same &= words(got.output) == words(wanted.output) and got.exit_code == wanted.exit_code
        if not same:
            different.append((line, wanted.output, got.output, wanted.exit_code, got.exit_code))
    assert different == []


def words(output: str) -> list[list[str]]:
    return sorted(line.split() for line in output.splitlines())


@pytest.mark.parametrize(
    "line",
    [
        "echo $(cat a)",
        "echo `ls`",
        "cat <<E\nx\nE",
        "for x in a; do echo; done",
        "sleep 5 &",
        "(ls)",
        'echo "$(ls)"',
    ],
)
async def test_what_is_not_simulated_is_refused_by_name_and_does_nothing(line: str) -> None:
    shell = SimulatedShell()
    result = await shell.run(line)
    assert result.exit_code == 2
    assert "not simulated here" in result.output
    assert not (await shell.snapshot()).files


async def test_directory_and_variables_last_and_a_reset_forgets_them() -> None:
    shell = SimulatedShell()
    await shell.reset({"d": None})
    await shell.run("cd d; x=1; touch /srv/s")
    assert (await shell.run("pwd; echo $x")).output == "/home/agent/d\n1\n"
    await shell.reset({})
    assert (await shell.run("pwd; echo [$x]; ls /srv")).output == "/home/agent\n[]\n"


async def test_exit_ends_the_shell_and_keeps_the_files() -> None:
    shell = SimulatedShell()
    gone = await shell.run("echo bye > f; cd /tmp; exit 3")
    assert (gone.ended, gone.exit_code, gone.restarted) == (Ended.SHELL_GONE, 3, True)
    assert (await shell.run("pwd; cat f")).output == "/home/agent\nbye\n"


async def test_files_and_output_are_bounded() -> None:
    shell = SimulatedShell(limits=Limits(kept_output=100, max_output=5000))
    await shell.reset({"big": b"x" * 1000})
    for _ in range(20):
        result = await shell.run("cat big big big big > bigger && mv bigger big")
    assert result.exit_code != 0
    assert "No space left on device" in result.output
    endless = await shell.run("echo 'cat big; sh s' > s; sh s")
    assert len(endless.output) <= 100
    names = " ".join(f"f{n}" for n in range(4000))
    assert (await shell.run(f"touch {names}")).exit_code == 0
    assert (await shell.run(f"mkdir m; cd m; touch {names}")).exit_code == 1
    assert len((await shell.snapshot()).files) <= MAX_ENTRIES


async def test_a_script_that_runs_itself_ends() -> None:
    shell = SimulatedShell()
    assert "too many shells" in (await shell.run("echo 'sh s' > s; sh s")).output
