"""The secret of a run: the key of every keyed hash in its log."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

SECRET_NAME = "secret.key"  # noqa: S105 - the name of the file, not what is in it
NUM_SECRET_BYTES = 32


def run_secret(run_dir: Path) -> bytes:
    """Made once a run, readable by its owner only. The caller holds the run's log, so nobody else makes one."""
    known = read_secret(run_dir)
    if known is not None:
        return known
    secret = secrets.token_bytes(NUM_SECRET_BYTES)
    # The mode is given at creation: between a creation and a chmod anybody could open the file.
    handle = os.open(run_dir / SECRET_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secret.hex() + "\n")
    return secret


def read_secret(run_dir: Path) -> bytes | None:
    """The secret of a run folder; None where none was made yet."""
    try:
        return bytes.fromhex((run_dir / SECRET_NAME).read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
