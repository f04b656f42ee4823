"""A shell in memory with the interface of a sandbox: nothing that a command says reaches the machine."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Mapping

from envs.programs import Program
from envs.sandbox.base import (
    HOME,
    MAX_COMMAND_BYTES,
    SERVER,
    CommandResult,
    Ended,
    Files,
    Limits,
    ShellKind,
    Snapshot,
    check_files,
    printable,
)
from envs.simulated.call import Call, Outcome
from envs.simulated.changing import COMMANDS
from envs.simulated.filetree import FileError, FileTree
from envs.simulated.parse import Pipeline, ShellSyntaxError, Stage, Word, expand, parse, text_of

MAX_DEPTH = 8
"""Scripts that run scripts."""


class _ShellExitedError(Exception):
    """`exit` was called."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class SimulatedShell:
    """The simulated counterpart of `Sandbox`. Commands: the given programs, then `envs.simulated`'s own."""

    def __init__(
        self, *, limits: Limits | None = None, programs: Mapping[str, Program] | None = None
    ) -> None:
        self._limits = limits or Limits()
        self._programs = dict(programs or {})
        self._tree = FileTree()
        self._folder = HOME
        self._variables: dict[str, str] = {}
        self._depth = 0
        self._new_shell()

    @property
    def kind(self) -> ShellKind:
        return ShellKind.SIMULATED

    async def reset(self, files: Files) -> None:
        check_files(files)
        self._tree = FileTree()
        for name, content in files.items():
            path = posixpath.normpath(posixpath.join(HOME, name))
            self._tree.make_directory(path if content is None else posixpath.dirname(path), parents=True)
            if content is not None:
                self._tree.write(path, content)
        self._new_shell()

    async def run(self, command: str) -> CommandResult:
        began = time.perf_counter()
        if len(command.encode(errors="replace")) > MAX_COMMAND_BYTES:
            text = f"bash: the command is longer than {MAX_COMMAND_BYTES} bytes"
            return CommandResult(output=text, exit_code=126, num_bytes=len(text))
        ended, printed = Ended.EXITED, bytearray()
        try:
            code = self._run_lines(command.replace("\0", ""), printed)
        except _ShellExitedError as error:
            code, ended = error.code, Ended.SHELL_GONE
            self._new_shell()
        self._variables["?"] = str(code)
        return CommandResult(
            output=printable(bytes(printed[: self._limits.kept_output])),
            exit_code=code,
            ended=ended,
            num_bytes=len(printed),
            restarted=ended is Ended.SHELL_GONE,
            elapsed_s=time.perf_counter() - began,
        )

    async def snapshot(self) -> Snapshot:
        def shown(path: str) -> str | None:
            if path.startswith(HOME + "/"):
                return path[len(HOME) + 1 :]
            return path if path.startswith(SERVER + "/") else None

        tree = self._tree
        return Snapshot(
            files={name: data for path, data in tree.files.items() if (name := shown(path)) is not None},
            directories=frozenset(name for path in tree.directories if (name := shown(path)) is not None),
            links={name: target for path, target in tree.links.items() if (name := shown(path)) is not None},
        )

    async def aclose(self) -> None:
        self._tree = FileTree()

    def _new_shell(self) -> None:
        self._folder = HOME
        self._variables = {"HOME": HOME, "USER": "agent", "?": "0"}

    def _run_lines(self, text: str, printed: bytearray) -> int:
        """Runs lines, appends what they print, returns the last exit code."""
        code = int(self._variables["?"])
        try:
            pipelines = parse(text)
        except ShellSyntaxError as error:
            printed += f"bash: {error}\n".encode()
            return 2
        for pipeline in pipelines:
            if pipeline.follows != ";" and (code == 0) != (pipeline.follows == "&&"):
                continue
            code = self._run_pipeline(pipeline, printed)
            self._variables["?"] = str(code)
            if len(printed) > self._limits.max_output:
                return 124
        return code

    def _run_pipeline(self, pipeline: Pipeline, printed: bytearray) -> int:
        stdin, code = b"", 0
        for place, stage in enumerate(pipeline.stages):
            try:
                outcome = self._run_stage(stage, stdin)
            except FileError as error:
                outcome = Outcome(err=f"bash: {error}\n", code=1)
            stdin, code = outcome.out, outcome.code
            printed += outcome.err.encode(errors="replace")
            if place == len(pipeline.stages) - 1:
                printed += outcome.out
        return code

    def _run_stage(self, stage: Stage, stdin: bytes) -> Outcome:
        if stage.stdin is not None:
            stdin = self._tree.read(self._path(self._text(stage.stdin)))
        target = self._target(stage.stdout)
        if target is not None:
            # As in bash the target is opened, and so emptied, before the command runs.
            self._tree.write(target, self._content(target) if stage.append else b"")
        words = [text for word in stage.words for text in expand(word, self._variables, self._names)]
        outcome = self._run_command(words, stdin)
        out, err = outcome.out, outcome.err
        if stage.join_stderr:
            out, err = out + err.encode(errors="replace"), ""
        elif stage.stderr is not None:
            errors = self._target(stage.stderr)
            if errors is not None:
                self._tree.write(errors, err.encode(errors="replace"))
            err = ""
        if target is not None:
            self._tree.write(target, (self._content(target) if stage.append else b"") + out)
        return Outcome(out=b"" if stage.stdout is not None else out, err=err, code=outcome.code)

    def _text(self, word: Word) -> str:
        return text_of(word, self._variables)

    def _target(self, word: Word | None) -> str | None:
        """The file that a redirection writes; None without one and for /dev/null."""
        name = "/dev/null" if word is None else self._text(word)
        return None if name == "/dev/null" else self._path(name)

    def _run_command(self, words: list[str], stdin: bytes) -> Outcome:
        while words and (mark := words[0].find("=")) > 0 and words[0][:mark].isidentifier():
            self._variables[words[0][:mark]] = words[0][mark + 1 :]
            words = words[1:]
        if not words:
            return Outcome()
        name, arguments = words[0], tuple(words[1:])
        if name == "exit":
            raise _ShellExitedError(int(arguments[0]) & 255 if arguments and arguments[0].isdigit() else 0)
        if name in ("true", ":"):
            return Outcome()
        if name == "false":
            return Outcome(code=1)
        if name == "pwd":
            return Outcome(out=f"{self._folder}\n".encode())
        if name == "cd":
            return self._change_folder(arguments)
        command = self._programs[name].run if name in self._programs else None
        command = command or COMMANDS.get(name.removeprefix("/usr").removeprefix("/bin/"))
        if command is None:
            return Outcome(err=f"bash: {name}: command not found\n", code=127)
        return command(
            Call(
                name=name,
                arguments=arguments,
                tree=self._tree,
                folder=self._folder,
                stdin=stdin,
                run_script=self._run_script,
            )
        )

    def _run_script(self, text: str) -> Outcome:
        """A shell of its own: its directory and variables end with it."""
        if self._depth >= MAX_DEPTH:
            return Outcome(err="bash: too many shells in one another\n", code=126)
        kept = (self._folder, dict(self._variables))
        printed = bytearray()
        self._depth += 1
        try:
            code = self._run_lines(text, printed)
        except _ShellExitedError as error:
            code = error.code
        finally:
            self._depth -= 1
            self._folder, self._variables = kept
        return Outcome(out=bytes(printed), code=code)

    def _change_folder(self, arguments: tuple[str, ...]) -> Outcome:
        path = self._path(arguments[0] if arguments else HOME)
        if path not in self._tree.directories:
            reason = "Not a directory" if self._tree.exists(path) else "No such file or directory"
            return Outcome(err=f"bash: cd: {arguments[0]}: {reason}\n", code=1)
        self._folder = path
        return Outcome()

    def _path(self, name: str) -> str:
        if name == "~" or name.startswith("~/"):
            name = HOME + name[1:]
        return posixpath.normpath(posixpath.join(self._folder, name))

    def _content(self, path: str) -> bytes:
        return self._tree.read(path) if self._tree.exists(path) else b""

    def _names(self, folder: str) -> list[str]:
        path = self._path(folder or ".")
        return self._tree.names(path) if path in self._tree.directories else []
