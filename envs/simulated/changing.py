"""Commands that change files, and those that run others."""

from __future__ import annotations

import posixpath

from envs.simulated.call import Call, Command, Outcome, UsageError, failure, guarded
from envs.simulated.filetree import FileError
from envs.simulated.showing import SHOWING


def cp(call: Call) -> Outcome:
    _, names = call.options("p")
    if len(names) != 2:
        raise UsageError("missing destination file operand")
    source, target = names
    try:
        data = call.read(source)
    except FileError as error:
        return failure(call, f"cannot stat '{source}': {error}")
    try:
        write_into(call, target, source, data)
    except FileError as error:
        return failure(call, f"cannot create regular file '{target}': {error}")
    return Outcome()


def write_into(call: Call, target: str, source: str, data: bytes) -> None:
    """Writes a file, or one of the source's name where the target is a directory."""
    path = call.path(target)
    if path in call.tree.directories:
        path = posixpath.join(path, posixpath.basename(source.rstrip("/")))
    call.tree.write(path, data)


def mv(call: Call) -> Outcome:
    _, names = call.options("f")
    if len(names) != 2:
        raise UsageError("missing destination file operand")
    source, target = names
    path = call.path(source)
    if path in call.tree.directories:
        raise UsageError("directories are not moved in this shell")
    try:
        data = call.tree.read(path)
    except FileError as error:
        return failure(call, f"cannot stat '{source}': {error}")
    if call.path(target) == path:
        return failure(call, f"'{source}' and '{target}' are the same file")
    write_into(call, target, source, data)
    call.tree.remove(path)
    return Outcome()


def rm(call: Call) -> Outcome:
    options, names = call.options("rf")
    if not names:
        raise UsageError("missing operand")
    err = ""
    for name in names:
        path = call.path(name)
        try:
            if path in call.tree.directories and "r" in options:
                call.tree.remove_tree(path)
            else:
                call.tree.remove(path)
        except FileError as error:
            if not ("f" in options and "No such" in str(error)):
                err += f"rm: cannot remove '{name}': {error}\n"
    return Outcome(err=err, code=1 if err else 0)


def mkdir(call: Call) -> Outcome:
    options, names = call.options("p")
    if not names:
        raise UsageError("missing operand")
    for name in names:
        try:
            call.tree.make_directory(call.path(name), parents="p" in options)
        except FileError as error:
            return failure(call, f"cannot create directory ‘{name}’: {error}")
    return Outcome()


def rmdir(call: Call) -> Outcome:
    _, names = call.options("")
    if not names:
        raise UsageError("missing operand")
    for name in names:
        try:
            call.tree.remove_directory(call.path(name))
        except FileError as error:
            return failure(call, f"failed to remove '{name}': {error}")
    return Outcome()


def touch(call: Call) -> Outcome:
    _, names = call.options("")
    if not names:
        raise UsageError("missing file operand")
    for name in names:
        path = call.path(name)
        if not call.tree.exists(path):
            try:
                call.tree.write(path, b"")
            except FileError as error:
                return failure(call, f"cannot touch '{name}': {error}")
    return Outcome()


def ln(call: Call) -> Outcome:
    options, names = call.options("s")
    if len(names) != 2:
        raise UsageError("missing file operand")
    target, name = names
    try:
        if "s" in options:
            call.tree.make_link(call.path(name), target)
        else:
            if call.tree.exists(call.path(name)):
                raise FileError("File exists")
            call.tree.write(call.path(name), call.read(target))
    except FileError as error:
        return failure(
            call, f"failed to create {'symbolic' if 's' in options else 'hard'} link '{name}': {error}"
        )
    return Outcome()


def echo(call: Call) -> Outcome:
    newline = "" if call.arguments[:1] == ("-n",) else "\n"
    words = call.arguments[1:] if not newline else call.arguments
    return Outcome(out=(" ".join(words) + newline).encode(errors="replace"))


def sh(call: Call) -> Outcome:
    """Runs a script file, or the text after -c."""
    if call.arguments[:1] == ("-c",):
        return call.run_script(" ".join(call.arguments[1:2]))
    name = call.arguments[0] if call.arguments else "-"
    try:
        return call.run_script(call.read(name).decode(errors="replace"))
    except FileError as error:
        return failure(call, f"{name}: {error}", 127)


COMMANDS: dict[str, Command] = SHOWING | {
    name: guarded(command)
    for name, command in {
        "cp": cp, "mv": mv, "rm": rm, "mkdir": mkdir, "rmdir": rmdir, "touch": touch, "ln": ln, "echo": echo, "sh": sh,
        "bash": sh,
    }.items()
}  # fmt: skip
