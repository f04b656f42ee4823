"""Procedural tasks for a terminal: what is asked, which files there are, and how to see that it was done.

Whether a task was done is decided here, from what the command printed and from a snapshot of the files, never by
anything that runs where the agent could reach it.
"""

from __future__ import annotations

import bz2
import io
import lzma
import posixpath
import random
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from agentrl.nano import vocabulary
from agentrl.nano.vocabulary import Operation
from envs.programs import alternative, usual
from envs.protocol import Split
from envs.sandbox.base import HOME, SERVER, CommandResult, Snapshot
from envs.simulated.call import Call, Outcome
from envs.simulated.filetree import FileTree

Files = dict[str, bytes | None]

HELD_OUT_SHARE = 4
"""One in this many names belongs to the held-out split."""
MISSPELT = ("aplpe", "rivver", "grean", "mondey", "wintter", "sumer", "oragne", "silvre", "gardin", "windwo")
SERVER_FOLDERS = ("www", "inbox", "printer", "packages")
MAX_UNPACKED = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalTask:
    """One task. `values` are the arguments a and b."""

    operation: Operation
    text: str
    values: dict[str, str]
    files: Files
    accepted: tuple[str, ...]
    """Commands (without arguments) that count as the way to do it; they fix what should be printed."""

    def expected(self) -> list[list[str]]:
        """The words that each accepted command prints, run on the task's files."""
        return [self._printed(command).out.decode().split() for command in self.accepted]

    def passed(self, result: CommandResult, after: Snapshot) -> bool:
        """Whether the task is done after a command."""
        a, b = self.values.get("a", ""), self.values.get("b", "")
        if self.operation.check == "state":
            untouched = {path for path in self.files if path not in (a, b) and not path.startswith(a + "/")}
            return self._all_there(untouched, after) and STATE_CHECKS[self.operation.key](self, a, b, after)
        fine = (0, 1) if self.operation.key == "compare_files" else (0,)
        return result.exit_code in fine and self._shows(result.output.split())

    def _shows(self, words: list[str]) -> bool:
        if self.operation.key == "count_lines":
            number = self.expected()[0][0]
            return words in ([number], [number, self.values["a"]])
        if self.operation.key in ("first_lines", "last_lines", "search_word"):
            # Printing the whole file shows these lines too, but does not do what was asked.
            whole = self.files[self.values["b" if self.operation.key == "search_word" else "a"]]
            assert whole is not None
            if contains(words, whole.decode().split()):
                return False
        return any(contains(words, wanted) for wanted in self.expected())

    def _all_there(self, paths: set[str], after: Snapshot) -> bool:
        for path in paths:
            content = self.files[path]
            if content is None and path not in after.directories:
                return False
            if content is not None and after.files.get(path) != content:
                return False
        return True

    def _printed(self, command: str) -> Outcome:
        tree = FileTree()
        for path, content in self.files.items():
            path = posixpath.join(HOME, path)
            tree.make_directory(path if content is None else posixpath.dirname(path), parents=True)
            if content is not None:
                tree.write(path, content)
        line = self.operation.template.format(**self.values).split()
        call = Call(
            name=command.split()[0], arguments=tuple(line), tree=tree, folder=HOME, run_script=_echo_script
        )
        operation = self.operation
        program = alternative(operation, command) if operation.alternatives else usual(operation)
        return program.run(call)


def contains(words: list[str], wanted: list[str]) -> bool:
    """Whether `wanted` stands in `words` without a gap. Nothing wanted is never shown."""
    size = len(wanted)
    return size > 0 and any(words[at : at + size] == wanted for at in range(len(words) - size + 1))


def _echo_script(text: str) -> Outcome:
    """The scripts of tasks consist of one `echo`."""
    return Outcome(out="".join(line.removeprefix("echo ") + "\n" for line in text.splitlines()).encode())


def draw_task(
    seed: int, split: Split, index: int, operation: Operation, accepted: tuple[str, ...]
) -> TerminalTask:
    """The task of a number. Its names and words occur in no task of the other split."""
    rng = random.Random(f"task {seed} {split} {index}")

    def ours(word: str) -> bool:
        return is_held_out(word) == (split == "held_out")

    values = vocabulary.arguments(rng, operation)
    while not all(ours(value) for value in values.values()):
        values = vocabulary.arguments(rng, operation)
    files: Files = {f"{SERVER}/{folder}": None for folder in SERVER_FOLDERS}
    other = vocabulary.file_name(rng)
    while other in values.values():
        other = vocabulary.file_name(rng)
    files[other] = text_file(rng, 3)
    for slot, kind in zip("ab", operation.arguments, strict=False):
        _set_up(rng, operation, kind, values, slot, files)
    return TerminalTask(
        operation=operation, text=operation.task(rng, values), values=values, files=files, accepted=accepted
    )


def is_held_out(word: str) -> bool:
    """A property of the word's letters, so that the splits are apart for every seed."""
    return zlib.crc32(b"split:" + word.encode()) % HELD_OUT_SHARE == 0


def text_file(rng: random.Random, num_lines: int) -> bytes:
    """Lines of one word, each different from the one before."""
    words = rng.sample((*vocabulary.WORDS, *vocabulary.FILE_STEMS), num_lines)
    return "".join(f"{word}\n" for word in words).encode()


def _set_up(
    rng: random.Random, operation: Operation, kind: str, values: dict[str, str], slot: str, files: Files
) -> None:
    """Puts the files there that one argument needs."""
    name = values[slot]
    if kind == "file":
        files[name] = _content(rng, operation, values)
    elif kind == "dir":
        files[name] = None
        if operation.key != "remove_directory":
            inside = sorted({vocabulary.file_name(rng) for _ in range(3)})
            files.update({f"{name}/{each}": text_file(rng, 2) for each in inside})
    elif kind == "script":
        files[name] = f"echo {' '.join(rng.sample(vocabulary.WORDS, 2))}\n".encode()
    elif kind == "source":
        word = rng.choice(vocabulary.WORDS)
        files[name] = f'#include <stdio.h>\nint main(void) {{ puts("{word}"); return 0; }}\n'.encode()
    elif kind == "page":
        files[f"{SERVER}/www/{name}"] = b"<p>" + text_file(rng, 1).strip() + b"</p>\n"


def _content(rng: random.Random, operation: Operation, values: dict[str, str]) -> bytes:
    if operation.key in ("first_lines", "last_lines"):
        return text_file(rng, 12)
    if operation.key == "count_lines":
        return text_file(rng, rng.randrange(2, 10))
    lines = text_file(rng, 3).splitlines(keepends=True)
    if operation.key == "search_word":
        lines = [line for line in lines if line.strip() != values["a"].encode()]
        lines.insert(rng.randrange(len(lines) + 1), values["a"].encode() + b"\n")
    elif operation.key == "drop_repeated":
        lines.insert(1, lines[0])
    elif operation.key == "order_lines":
        lines.append(lines[0])  # a repeated line tells `sort -u` from the others
    elif operation.key == "check_spelling":
        lines[rng.randrange(len(lines))] = rng.choice(MISSPELT).encode() + b"\n"
    return b"".join(lines)


# --- what the files must look like afterwards: (task, a, b, snapshot) -> done ---

StateCheck = Callable[[TerminalTask, str, str, Snapshot], bool]


def _kept(task: TerminalTask, name: str, after: Snapshot) -> bool:
    return after.files.get(name) == task.files[name]


def _linked(task: TerminalTask, a: str, b: str, after: Snapshot) -> bool:
    target = after.links.get(b)
    same = target is not None and posixpath.join(HOME, target) == posixpath.join(HOME, a)
    return _kept(task, a, after) and (same or after.files.get(b) == task.files[a])


def _compressed(task: TerminalTask, a: str, _: str, after: Snapshot) -> bool:
    original = task.files[a]
    made = [data for path, data in after.files.items() if path.startswith(a + ".")]
    return any(data != original and unpacked(data) == original for data in made)


def unpacked(data: bytes) -> bytes | None:
    """The content of a gzip, bzip2 or xz file, at most MAX_UNPACKED bytes of it; None when it is none of them."""
    attempts: tuple[Callable[[bytes], bytes], ...] = (
        lambda packed: zlib.decompressobj(wbits=31).decompress(packed, MAX_UNPACKED),
        lambda packed: bz2.BZ2Decompressor().decompress(packed, MAX_UNPACKED),
        lambda packed: lzma.LZMADecompressor(memlimit=2**26).decompress(packed, MAX_UNPACKED),
    )
    for attempt in attempts:
        try:
            return attempt(data)
        except (zlib.error, OSError, EOFError, lzma.LZMAError):
            continue
    return None


def _packed(task: TerminalTask, a: str, _: str, after: Snapshot) -> bool:
    wanted = {
        path: data for path, data in task.files.items() if path.startswith(a + "/") and data is not None
    }
    made = [data for path, data in after.files.items() if path.startswith(a + ".")]
    return any(members(unpacked(data) or data) == wanted for data in made)


def members(data: bytes) -> dict[str, bytes]:
    """The files in a tar archive; empty when it is none."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            found = {}
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None:
                    found[posixpath.normpath(member.name)] = file.read(MAX_UNPACKED)
            return found
    except (tarfile.TarError, OSError, EOFError, ValueError):
        return {}


def _edited(task: TerminalTask, a: str, _: str, after: Snapshot) -> bool:
    return a in after.files and after.files[a] != task.files[a] and after.files[a] != b""


def _compiled(task: TerminalTask, a: str, _: str, after: Snapshot) -> bool:
    source = task.files[a]
    assert source is not None
    word = source.split(b'"')[1]
    made = [data for path, data in after.files.items() if path not in task.files]
    return _kept(task, a, after) and any(word in data and source not in data for data in made)


STATE_CHECKS: dict[str, StateCheck] = {
    "copy_file": lambda task, a, b, after: _kept(task, a, after) and after.files.get(b) == task.files[a],
    "move_file": lambda task, a, b, after: a not in after.files and after.files.get(b) == task.files[a],
    "delete_file": lambda task, a, b, after: a not in after.files,
    "make_directory": lambda task, a, b, after: a in after.directories,
    "remove_directory": lambda task, a, b, after: a not in after.directories,
    "create_file": lambda task, a, b, after: a in after.files,
    "link_file": _linked,
    "compress_file": _compressed,
    "pack_directory": _packed,
    "edit_file": _edited,
    "fetch_page": lambda task, a, b, after: after.files.get(a) == task.files[f"{SERVER}/www/{a}"],
    "send_file": lambda task, a, b, after: after.files.get(f"{SERVER}/inbox/{a}") == task.files[a],
    "install_package": lambda task, a, b, after: f"{SERVER}/packages/{a}" in after.files,
    "print_paper": lambda task, a, b, after: after.files.get(f"{SERVER}/printer/{a}") == task.files[a],
    "compile_source": _compiled,
}
