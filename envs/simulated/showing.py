"""Commands that show things, as functions from a call to its outcome.

They print what the real programs print for the plain uses that tasks have; an option that is not known here is an
error, never ignored. The terminal environment also asks them what a task's command should print.
"""

from __future__ import annotations

import base64 as base64_codec
import difflib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace

from envs.simulated.call import (
    Call,
    Command,
    Outcome,
    UsageError,
    failure,
    guarded,
    joined,
    lines_of,
    over_files,
)
from envs.simulated.filetree import FileError


def cat(call: Call) -> Outcome:
    options, names = call.options("n")
    if "n" in options:
        return over_files(call, names, lambda data, _: numbered(lines_of(data)))
    return over_files(call, names, lambda data, _: data)


def numbered(lines: Sequence[bytes]) -> bytes:
    return b"".join(b"%6d\t%s\n" % (number, line) for number, line in enumerate(lines, 1))


def nl(call: Call) -> Outcome:
    """Numbers lines that are not empty."""
    _, names = call.options("")

    def number(data: bytes, _: str) -> bytes:
        out, count = [], 0
        for line in lines_of(data):
            count += bool(line)
            out.append(b"%6d\t%s" % (count, line) if line else b"       ")
        return joined(out)

    return over_files(call, names, number)


def wc(call: Call) -> Outcome:
    options, names = call.options("lwc")

    def count(data: bytes, name: str) -> bytes:
        counts = {"l": data.count(b"\n"), "w": len(data.split()), "c": len(data)}
        shown = [str(counts[letter]) for letter in counts if not options or letter in options]
        return " ".join(shown + ([] if name == "-" else [name])).encode() + b"\n"

    return over_files(call, names, count)


def _number(call: Call) -> tuple[int, list[str]]:
    arguments = [re.sub(r"^-(\d+)$", r"-n\1", argument) for argument in call.arguments]
    options, names = call.with_arguments(tuple(arguments)).options("", "n")
    text = options.get("n", "10")
    if not text.isdigit():
        raise UsageError(f"invalid number of lines: '{text}'")
    return int(text), names


def head(call: Call) -> Outcome:
    number, names = _number(call)
    return over_files(call, names, lambda data, _: joined(lines_of(data)[:number]))


def tail(call: Call) -> Outcome:
    number, names = _number(call)
    return over_files(call, names, lambda data, _: joined(lines_of(data)[-number:] if number else []))


def rev(call: Call) -> Outcome:
    _, names = call.options("")
    return over_files(
        call,
        names,
        lambda data, _: joined([line.decode(errors="replace")[::-1].encode() for line in lines_of(data)]),
    )


def tac(call: Call) -> Outcome:
    _, names = call.options("")
    return over_files(call, names, lambda data, _: joined(lines_of(data)[::-1]))


def uniq(call: Call) -> Outcome:
    options, names = call.options("cd")

    def drop(data: bytes, _: str) -> bytes:
        runs: list[tuple[bytes, int]] = []
        for line in lines_of(data):
            if runs and runs[-1][0] == line:
                runs[-1] = (line, runs[-1][1] + 1)
            else:
                runs.append((line, 1))
        kept = [(line, count) for line, count in runs if "d" not in options or count > 1]
        return joined([b"%7d %s" % (count, line) if "c" in options else line for line, count in kept])

    return over_files(call, names[:1], drop)


def grep(call: Call) -> Outcome:
    options, operands = call.options("invcFE")
    if not operands:
        raise UsageError("usage: grep [OPTION]... PATTERNS [FILE]...")
    text, *names = operands
    try:
        pattern = re.compile(re.escape(text) if "F" in options else text, re.I if "i" in options else 0)
    except re.error as error:
        raise UsageError(f"invalid pattern: {error}") from error
    found = 0

    def search(data: bytes, name: str) -> bytes:
        nonlocal found
        prefix = f"{name}:".encode() if len(names) > 1 else b""
        hits = [
            (number, line)
            for number, line in enumerate(lines_of(data), 1)
            if bool(pattern.search(line.decode(errors="replace"))) != ("v" in options)
        ]
        found += len(hits)
        if "c" in options:
            return prefix + str(len(hits)).encode() + b"\n"
        return joined([prefix + (b"%d:" % number if "n" in options else b"") + line for number, line in hits])

    outcome = over_files(call, names, search, code=2)
    return outcome if outcome.code else outcome.with_code(0 if found else 1)


def sort(call: Call) -> Outcome:
    options, names = call.options("nrfuVhMd")
    both = over_files(call, names, lambda data, _: data, code=2)
    lines = lines_of(both.out)
    months = [b"JAN", b"FEB", b"MAR", b"APR", b"MAY", b"JUN", b"JUL", b"AUG", b"SEP", b"OCT", b"NOV", b"DEC"]

    def key(line: bytes) -> object:
        if "f" in options:
            return line.upper()
        if "d" in options:
            return re.sub(rb"[^A-Za-z0-9 \t]", b"", line)
        if "M" in options:
            month = line.strip()[:3].upper()
            return months.index(month) + 1 if month in months else 0
        if "n" in options or "h" in options:
            match = re.match(rb"\s*(-?\d+(?:\.\d+)?)([KMGTPE]?)", line)
            scale = b" KMGTPE".index(match[2]) if match and match[2] and "h" in options else 0
            return (scale, float(match[1])) if match else (0, 0.0)
        if "V" in options:
            return [
                (not part.isdigit(), int(part) if part.isdigit() else 0, part)
                for part in re.split(rb"(\d+)", line)
            ]
        return line

    if "u" in options:
        unique: dict[object, bytes] = {}
        for line in lines:
            unique.setdefault(repr(key(line)), line)
        lines = list(unique.values())
    ordered = sorted(lines, key=lambda line: (key(line), line), reverse="r" in options)
    return replace(both, out=joined(ordered))


def diff(call: Call) -> Outcome:
    _, names = call.options("")
    if len(names) != 2:
        raise UsageError("missing operand")
    texts = []
    for name in names:
        try:
            texts.append(call.read(name).decode(errors="replace").splitlines())
        except FileError as error:
            return failure(call, f"{name}: {error}", 2)
    out = ""
    for tag, a, b, c, d in difflib.SequenceMatcher(None, texts[0], texts[1], autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        left = f"{a + 1},{b}" if b - a > 1 else str(b if b > a else a)
        right = f"{c + 1},{d}" if d - c > 1 else str(d if d > c else c)
        out += f"{left}{tag[0] if tag != 'replace' else 'c'}{right}\n".replace("i", "a")
        out += "".join(f"< {line}\n" for line in texts[0][a:b])
        out += "---\n" if tag == "replace" else ""
        out += "".join(f"> {line}\n" for line in texts[1][c:d])
    return Outcome(out=out.encode(), code=1 if out else 0)


def paste(call: Call) -> Outcome:
    _, names = call.options("")
    columns = [lines_of(call.read(name)) for name in names or ("-",)]
    height = max(map(len, columns))
    rows = [
        b"\t".join(column[row] if row < len(column) else b"" for column in columns) for row in range(height)
    ]
    return Outcome(out=joined(rows))


def base64(call: Call) -> Outcome:
    options, names = call.options("d")

    def change(data: bytes, _: str) -> bytes:
        if "d" not in options:
            text = base64_codec.b64encode(data)
            return joined([text[at : at + 76] for at in range(0, len(text), 76)])
        try:
            return base64_codec.b64decode(data)
        except ValueError as error:
            raise UsageError("invalid input") from error

    return over_files(call, names[:1], change)


def od(call: Call) -> Outcome:
    """Bytes in hexadecimal, sixteen a line; understands exactly `od -An -v -tx1`."""
    options, names = call.options("v", "At")
    if options.get("A") != "n" or options.get("t") != "x1":
        raise UsageError("only od -An -v -tx1 is simulated")

    def dump(data: bytes, _: str) -> bytes:
        return joined(
            [b"".join(b" %02x" % byte for byte in data[at : at + 16]) for at in range(0, len(data), 16)]
        )

    return over_files(call, names, dump)


def du(call: Call) -> Outcome:
    """Kibibytes of whole 4 KiB blocks."""
    options, names = call.options("hsb")

    def size(name: str) -> int:
        path = call.tree.resolve(call.path(name))
        inside = [path, *call.tree.below(path)] if path in call.tree.directories else [path]
        if not call.tree.exists(path):
            raise FileError("No such file or directory")
        lengths = [len(call.tree.files.get(each, b"")) for each in inside]
        return sum(lengths) if "b" in options else sum(-(-length // 4096) * 4 for length in lengths)

    out, err = "", ""
    for name in names or (".",):
        try:
            number = size(name)
            shown = (
                f"{number}.0K"
                if "h" in options and 0 < number < 10
                else f"{number}{'K' if 'h' in options else ''}"
            )
            out += f"{shown}\t{name}\n"
        except FileError as error:
            err += f"du: cannot access '{name}': {error}\n"
    return Outcome(out=out.encode(), err=err, code=1 if err else 0)


def ls(call: Call) -> Outcome:
    options, names = call.options("la1A")
    out, err = "", ""
    for name in names or (".",):
        path = call.path(name)
        if not call.tree.exists(path):
            err += f"ls: cannot access '{name}': No such file or directory\n"
            continue
        inside = call.tree.names(path) if path in call.tree.directories else [name]
        shown = [each for each in inside if "a" in options or "A" in options or not each.startswith(".")]
        if len(names) > 1 and path in call.tree.directories:
            out += ("\n" if out else "") + f"{name}:\n"
        separator = "\n" if "1" in options or "l" in options else "  "
        out += separator.join(shown) + ("\n" if shown else "")
    return Outcome(out=out.encode(), err=err, code=2 if err else 0)


def checksum(name: str) -> Command:
    def run(call: Call) -> Outcome:
        _, names = call.options("")

        def line(data: bytes, file: str) -> bytes:
            if name == "cksum":
                return f"{posix_crc(data)} {len(data)}{'' if file == '-' else ' ' + file}\n".encode()
            if name == "b2sum":
                return f"{hashlib.blake2b(data).hexdigest()}  {file}\n".encode()
            digest = hashlib.new(name.removesuffix("sum"), data, usedforsecurity=False)
            return f"{digest.hexdigest()}  {file}\n".encode()

        return over_files(call, names, line)

    return run


def posix_crc(data: bytes) -> int:
    """The CRC of POSIX cksum: polynomial 0x04C11DB7, most significant bit first, the length appended."""
    length = len(data)
    tail_bytes = bytearray()
    while length:
        tail_bytes.append(length & 0xFF)
        length >>= 8
    crc = 0
    for byte in data + bytes(tail_bytes):
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
        crc &= 0xFFFFFFFF
    return ~crc & 0xFFFFFFFF


SHOWING: dict[str, Command] = {
    name: guarded(command)
    for name, command in {
        "cat": cat, "nl": nl, "wc": wc, "head": head, "tail": tail, "rev": rev, "tac": tac, "uniq": uniq, "grep": grep,
        "sort": sort, "diff": diff, "paste": paste, "base64": base64, "od": od, "du": du, "ls": ls,
        **{name: checksum(name) for name in (
            "md5sum", "sha1sum", "sha224sum", "sha256sum", "sha384sum", "sha512sum", "b2sum", "cksum"
        )},
    }.items()
}  # fmt: skip
