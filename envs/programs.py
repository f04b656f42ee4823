"""Programs in two forms: a script for the sandbox and a function for the simulated shell, with the same effect.

Most are stand-ins for programs that a bare machine lacks or that would need a network: they do something small that
can be checked afterwards. Scripts name what they call by absolute path, because a house rule may have replaced it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from agentrl.nano import vocabulary
from envs.simulated.call import Call, Outcome
from envs.simulated.changing import COMMANDS
from envs.simulated.stand_ins import STAND_INS

WORDS_FILE = "/opt/agentrl/words"

COMPRESSED = {
    "gzip": "gz", "bzip2": "bz2", "xz": "xz", "zstd": "zst", "lz4": "lz4", "compress": "Z", "lzip": "lz",
    "brotli": "br",
}  # fmt: skip
PACKED = {"tar": "tar", "zip": "zip", "7z": "7z", "rar": "rar", "cpio": "cpio", "ar": "ar"}

_NEEDS_FILE = '[ -f "$1" ] || {{ echo "{name}: $1: No such file or directory" >&2; exit 1; }}\n'
_SCRIPTS = {
    "compress_file": '/usr/bin/gzip -nc -- "$1" > "$1.{ending}" && exec /usr/bin/rm -- "$1"',
    "page_file": 'exec /usr/bin/cat -- "$1"',
    "edit_file": 'echo edited >> "$1"',
    "dump_bytes": 'exec /usr/bin/od -An -v -tx1 -- "$1"',
    "send_file": 'exec /usr/bin/cp -- "$1" /srv/inbox/',
    "print_paper": 'exec /usr/bin/cp -- "$1" /srv/printer/',
    "check_spelling": f'/usr/bin/tr -cs a-z "\\n" < "$1" | /usr/bin/grep -vxF -f {WORDS_FILE}\nexit 0',
    "compile_source": (
        '{{ echo "#!/bin/sh"; /usr/bin/sed -n \'s/.*puts("\\([a-z ]*\\)").*/echo \\1/p\' "$1"; }} > a.out'
        " && exec /usr/bin/chmod 755 a.out"
    ),
}
_FREE_SCRIPTS = {
    "pack_directory": (
        '[ -d "$1" ] || {{ echo "{name}: $1: No such directory" >&2; exit 1; }}\n'
        'exec /usr/bin/tar -cf "${{1%/}}.{ending}" -- "$1"'
    ),
    "fetch_page": (
        '[ -f "/srv/www/$1" ] || {{ echo "{name}: $1: not found on the server" >&2; exit 1; }}\n'
        'exec /usr/bin/cp -- "/srv/www/$1" "$1"'
    ),
    "install_package": (
        '[ "$1" = install ] && [ -n "$2" ] || {{ echo "usage: {name} install PACKAGE" >&2; exit 1; }}\n'
        'echo installed > "/srv/packages/${{2##*/}}"'
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A command of our own."""

    script: str
    """For the sandbox, `#!` line included."""
    run: Callable[[Call], Outcome]
    """For the simulated shell."""


def real(command: str, *, accepts: int = 0) -> Program:
    """A program of the machine with fixed options, for example "wc -l"; exit codes up to `accepts` count as success."""
    name, *options = command.split()
    line = " ".join([f"/usr/bin/{name}", *options, '"$@"'])
    script = f"#!/bin/sh\nexec {line}\n" if accepts == 0 else f"#!/bin/sh\n{line}\n[ $? -le {accepts} ]\n"
    simulated = COMMANDS[name]

    def run(call: Call) -> Outcome:
        outcome = simulated(call.with_arguments((*options, *call.arguments)))
        return outcome.with_code(0) if outcome.code <= accepts else outcome

    return Program(script=script, run=run)


def usual(operation: vocabulary.Operation) -> Program:
    """What the usual command of an unknown operation does. That files differ is no failure here."""
    return real(operation.command, accepts=1 if operation.key == "compare_files" else 0)


def alternative(operation: vocabulary.Operation, command: str) -> Program:
    """One of the known ways of a reachable operation."""
    name = command.split()[0]
    if operation.key in ("checksum_file", "order_lines"):
        return real(command)
    if operation.key == "run_script":
        shell = name if name == "bash" else "sh"
        return Program(script=f'#!/bin/sh\nexec /bin/{shell} "$@"\n', run=COMMANDS["sh"])
    ending = COMPRESSED.get(name) or PACKED.get(name) or ""
    if operation.key in _FREE_SCRIPTS:
        body = _FREE_SCRIPTS[operation.key].format(name=name, ending=ending)
    else:
        body = (_NEEDS_FILE + _SCRIPTS[operation.key]).format(name=name, ending=ending)
    stand_in = STAND_INS[operation.key]
    return Program(
        script=f"#!/bin/sh\n# A stand-in: {operation.doing}.\n{body}\n",
        run=lambda call: stand_in(call, name, ending),
    )


def refusal(name: str, wording: str, new: str, code: int) -> Program:
    """A program that only says what to use instead. An option given first is named with it ("sort -n")."""
    say = _say(wording, new)

    def run(call: Call) -> Outcome:
        return Outcome(err=wording.format(old=called(name, call.arguments), new=new) + "\n", code=code)

    return Program(script=f"#!/bin/sh\n{_old(name)}{say}\nexit {code}\n", run=run)


def only_with(option: str, works: Program, refused: Program) -> Program:
    """A program that works with one option as its first argument and is refused otherwise."""
    body = works.script.removeprefix("#!/bin/sh\n").strip()
    rest = refused.script.removeprefix("#!/bin/sh\n")
    quoted = shlex.quote(option)

    def run(call: Call) -> Outcome:
        if call.arguments[:1] == (option,):
            return works.run(call.with_arguments(call.arguments[1:]))
        return refused.run(call)

    return Program(script=f'#!/bin/sh\nif [ "$1" = {quoted} ]; then\n  shift\n  {body}\nfi\n{rest}', run=run)


def called(name: str, arguments: tuple[str, ...]) -> str:
    """How an error names what was called: the options of sort tell its ways apart, other programs go by name."""
    if name == "sort" and arguments and arguments[0].startswith("-"):
        return f"{name} {arguments[0]}"
    return name


def _old(name: str) -> str:
    if name != "sort":
        return f"old={name}\n"
    return 'case "$1" in -*) old="sort $1";; *) old=sort;; esac\n'


def _say(wording: str, new: str) -> str:
    """A printf of the wording in which only $old is expanded."""
    parts = [shlex.quote(part.format(new=new)) for part in wording.split("{old}")]
    return "printf '%s\\n' " + '"$old"'.join(parts) + " >&2"
