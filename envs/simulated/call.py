"""One command of the simulated shell: what it is given, what comes of it, and what all commands share."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from envs.simulated.filetree import FileError, FileTree


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    out: bytes = b""
    err: str = ""
    code: int = 0

    def with_code(self, code: int) -> Outcome:
        return replace(self, code=code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One command as the shell hands it over."""

    name: str
    arguments: tuple[str, ...]
    tree: FileTree
    folder: str
    """The working directory."""
    stdin: bytes = b""
    run_script: Callable[[str], Outcome] = field(default=lambda text: Outcome(err="sh: not here\n", code=126))
    """Runs lines of shell in a shell of their own."""

    def with_arguments(self, arguments: tuple[str, ...]) -> Call:
        return replace(self, arguments=arguments)

    def path(self, name: str) -> str:
        return posixpath.normpath(posixpath.join(self.folder, name))

    def read(self, name: str) -> bytes:
        return self.stdin if name == "-" else self.tree.read(self.path(name))

    def options(self, known: str, with_value: str = "") -> tuple[dict[str, str], list[str]]:
        """Splits short options from operands. UsageError for an unknown one."""
        options: dict[str, str] = {}
        operands: list[str] = []
        arguments = list(self.arguments)
        while arguments:
            argument = arguments.pop(0)
            if argument == "--":
                operands += arguments
                break
            if not argument.startswith("-") or argument == "-":
                operands.append(argument)
                continue
            letters = argument[1:]
            while letters:
                letter, letters = letters[0], letters[1:]
                if letter in with_value:
                    if not letters and not arguments:
                        raise UsageError(f"option requires an argument -- '{letter}'")
                    options[letter] = letters or arguments.pop(0)
                    break
                if letter not in known:
                    raise UsageError(f"invalid option -- '{letter}'")
                options[letter] = ""
        return options, operands


class UsageError(Exception):
    """A call that the program does not understand."""


Command = Callable[[Call], Outcome]


def guarded(command: Command) -> Command:
    """Turns errors of files and usage into what the program would print."""

    def run(call: Call) -> Outcome:
        try:
            return command(call)
        except UsageError as error:
            return failure(call, str(error), 2 if call.name in ("ls", "grep", "sort", "diff") else 1)
        except FileError as error:
            return failure(call, str(error))

    return run


def failure(call: Call, text: str, code: int = 1) -> Outcome:
    return Outcome(err=f"{call.name}: {text}\n", code=code)


def over_files(
    call: Call, names: Sequence[str], change: Callable[[bytes, str], bytes], code: int = 1
) -> Outcome:
    """Concatenates what `change` makes of every file (standard input without any)."""
    out, err = bytearray(), ""
    for name in names or ("-",):
        try:
            out += change(call.read(name), name)
        except FileError as error:
            err += f"{call.name}: {name}: {error}\n"
    return Outcome(out=bytes(out), err=err, code=code if err else 0)


def lines_of(data: bytes) -> list[bytes]:
    return data.splitlines()


def joined(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)
