"""What the stand-ins of `envs.programs` do, for the simulated shell."""

from __future__ import annotations

import gzip
import io
import posixpath
import re
import tarfile
from collections.abc import Callable

from agentrl.nano import vocabulary
from envs.simulated.call import Call, Outcome, UsageError, guarded
from envs.simulated.showing import od

SERVER = "/srv"
KNOWN_WORDS = tuple(sorted({*vocabulary.WORDS, *vocabulary.FILE_STEMS, *vocabulary.PACKAGES}))
"""The dictionary of the spelling checkers."""

StandIn = Callable[[Call, str, str], Outcome]
"""(call, name of the program, ending of the files it makes) -> outcome."""


def _file(call: Call) -> tuple[str, bytes]:
    name = call.arguments[0] if call.arguments else ""
    path = call.path(name)
    if not name or call.tree.resolve(path) not in call.tree.files:
        raise UsageError(f"{name}: No such file or directory")
    return name, call.tree.read(path)


def _compress(call: Call, _: str, ending: str) -> Outcome:
    name, data = _file(call)
    call.tree.write(call.path(f"{name}.{ending}"), gzip.compress(data, mtime=0))
    call.tree.remove(call.path(name))
    return Outcome()


def _page(call: Call, _: str, __: str) -> Outcome:
    return Outcome(out=_file(call)[1])


def _pack(call: Call, name: str, ending: str) -> Outcome:
    folder = call.arguments[0].rstrip("/") if call.arguments else ""
    path = call.path(folder)
    if not folder or path not in call.tree.directories:
        raise UsageError(f"{folder}: No such directory")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for inside in sorted(each for each in call.tree.below(path) if each in call.tree.files):
            member = tarfile.TarInfo(folder + inside[len(path) :])
            member.size = len(call.tree.files[inside])
            archive.addfile(member, io.BytesIO(call.tree.files[inside]))
    call.tree.write(f"{path}.{ending}", buffer.getvalue())
    return Outcome()


def _edit(call: Call, _: str, __: str) -> Outcome:
    name, data = _file(call)
    call.tree.write(call.path(name), data + b"edited\n")
    return Outcome()


def _fetch(call: Call, _: str, __: str) -> Outcome:
    name = call.arguments[0] if call.arguments else ""
    page = call.tree.files.get(f"{SERVER}/www/{name}")
    if page is None:
        raise UsageError(f"{name}: not found on the server")
    call.tree.write(call.path(name), page)
    return Outcome()


def _dump(call: Call, _: str, __: str) -> Outcome:
    _file(call)
    return od(call.with_arguments(("-An", "-v", "-tx1", call.arguments[0])))


def _copy_to(folder: str) -> StandIn:
    def run(call: Call, _: str, __: str) -> Outcome:
        name, data = _file(call)
        call.tree.write(f"{SERVER}/{folder}/{posixpath.basename(name)}", data)
        return Outcome()

    return run


def _install(call: Call, name: str, _: str) -> Outcome:
    if len(call.arguments) < 2 or call.arguments[0] != "install":
        return Outcome(err=f"usage: {name} install PACKAGE\n", code=1)
    call.tree.write(f"{SERVER}/packages/{posixpath.basename(call.arguments[1])}", b"installed\n")
    return Outcome()


def _spelling(call: Call, _: str, __: str) -> Outcome:
    words = re.findall(r"[a-z]+", _file(call)[1].decode(errors="replace"))
    return Outcome(out="".join(f"{word}\n" for word in words if word not in KNOWN_WORDS).encode())


def _compile(call: Call, _: str, __: str) -> Outcome:
    _, data = _file(call)
    said = re.findall(r'puts\("([a-z ]*)"\)', data.decode(errors="replace"))
    call.tree.write(
        call.path("a.out"), "".join(["#!/bin/sh\n", *(f"echo {text}\n" for text in said)]).encode()
    )
    return Outcome()


def _guarded_stand_in(stand_in: StandIn) -> StandIn:
    def run(call: Call, name: str, ending: str) -> Outcome:
        return guarded(lambda inner: stand_in(inner, name, ending))(call)

    return run


STAND_INS: dict[str, StandIn] = {
    key: _guarded_stand_in(stand_in)
    for key, stand_in in {
        "compress_file": _compress, "page_file": _page, "pack_directory": _pack, "edit_file": _edit,
        "fetch_page": _fetch, "dump_bytes": _dump, "send_file": _copy_to("inbox"), "install_package": _install,
        "print_paper": _copy_to("printer"), "check_spelling": _spelling, "compile_source": _compile,
    }.items()
}  # fmt: skip
