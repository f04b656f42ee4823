"""Which sandbox starts on this machine: bubblewrap, else unshare, else the simulated shell.

A kind counts as starting only when a command has run in it, found the programs that tasks need, and could not reach the
network. Commands never run outside a sandbox: where none starts, they are simulated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from agentrl.errors import ConfigError, SandboxError
from envs.programs import Program
from envs.sandbox.base import Limits, Shell, ShellKind
from envs.sandbox.sandbox import PROGRAMS, Sandbox
from envs.simulated.shell import SimulatedShell

NEEDED = (
    "cat wc cp mv rm mkdir rmdir head tail rev tac touch grep ls nl diff uniq ln base64 paste du sort tr sed gzip tar "
    "od md5sum sha1sum sha224sum sha256sum sha384sum sha512sum b2sum cksum"
)
_SAY_MISSING = f"for p in {NEEDED}; do [ -x /usr/bin/$p ] || echo $p; done"
_REACH_NETWORK = "cat < /dev/null > /dev/tcp/127.0.0.1/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What was found."""

    kind: ShellKind
    reasons: Mapping[ShellKind, str]
    """Why each better kind does not start."""


_known: Probe | None = None
_probing = asyncio.Lock()


async def probe() -> Probe:
    """Tries the kinds in order, once per process."""
    global _known
    async with _probing:
        if _known is None:
            _known = await _try_kinds()
    return _known


async def _try_kinds() -> Probe:
    reasons: dict[ShellKind, str] = {}
    for kind in (ShellKind.BUBBLEWRAP, ShellKind.UNSHARE):
        reason = await try_kind(kind)
        if reason is None:
            return Probe(kind=kind, reasons=reasons)
        reasons[kind] = reason
    return Probe(kind=ShellKind.SIMULATED, reasons=reasons)


async def try_kind(kind: ShellKind) -> str | None:
    """None when a sandbox of this kind starts and holds, else why not."""
    try:
        sandbox = await Sandbox.open(kind)
    except SandboxError as error:
        return str(error).splitlines()[-1]
    try:
        missing = await sandbox.run(_SAY_MISSING)
        network = await sandbox.run(_REACH_NETWORK)
    finally:
        await sandbox.aclose()
    if missing.exit_code != 0 or missing.output.strip():
        return f"programs that tasks need are missing: {' '.join(missing.output.split()) or 'no shell'}"
    if "unreachable" not in network.output and "refused" not in network.output:
        return f"the network test ended with {network.output.strip()!r}"
    return None


async def open_shell(
    kind: str = "auto",
    *,
    limits: Limits | None = None,
    programs: Mapping[str, Program] | None = None,
    data: Mapping[str, str] | None = None,
) -> Shell:
    """A shell of the best kind that starts, or of the kind asked for.

    Args:
        kind: "auto", "bubblewrap", "unshare" or "simulated".
        limits: bounds of the shell.
        programs: own commands by name, found before the machine's.
        data: texts by absolute path that the programs read.

    Raises:
        ConfigError: no such kind.
        SandboxError: the kind asked for does not start; the message says why.
    """
    limits, programs, data = limits or Limits(), programs or {}, data or {}
    if kind != "auto" and kind not in list(ShellKind):
        raise ConfigError(f"there is no shell of kind {kind!r}; use auto, {', '.join(ShellKind)}")
    chosen = (await probe()).kind if kind == "auto" else ShellKind(kind)
    if chosen is ShellKind.SIMULATED:
        return SimulatedShell(limits=limits, programs=programs)
    scripts = {f"{PROGRAMS}/{name}": program.script for name, program in programs.items()}
    return await Sandbox.open(chosen, limits, scripts | dict(data))
