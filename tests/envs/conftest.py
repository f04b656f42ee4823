"""Which sandboxes this machine allows at all."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from envs.sandbox.base import ShellKind

STARTERS = {
    ShellKind.BUBBLEWRAP: ("bwrap", "--unshare-all", "--ro-bind", "/", "/"),
    ShellKind.UNSHARE: ("unshare", "-Urmnpf"),
}


@pytest.fixture(scope="session")
def skip_unless_possible() -> Callable[[ShellKind], None]:
    """Skips where the machine denies what a kind is made of; a fault of ours is no reason to skip."""

    def skip(kind: ShellKind) -> None:
        if kind is ShellKind.SIMULATED:
            return
        try:
            done = subprocess.run([*STARTERS[kind], "true"], capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            pytest.skip(f"{kind} is not installed: {error}")
        if done.returncode != 0:
            pytest.skip(f"{kind} does not start here: {done.stderr.strip()}")

    return skip


@pytest.fixture
def best_kind(skip_unless_possible: Callable[[ShellKind], None]) -> ShellKind:
    """A kind of sandbox that starts here."""
    try:
        skip_unless_possible(ShellKind.BUBBLEWRAP)
    except pytest.skip.Exception:
        skip_unless_possible(ShellKind.UNSHARE)
        return ShellKind.UNSHARE
    return ShellKind.BUBBLEWRAP


@pytest.fixture(params=tuple(ShellKind))
def kind(request: pytest.FixtureRequest, skip_unless_possible: Callable[[ShellKind], None]) -> str:
    """Every kind of shell that starts here, one test each."""
    skip_unless_possible(request.param)
    return str(request.param)
