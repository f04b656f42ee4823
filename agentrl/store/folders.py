"""Folders that somebody named."""

from __future__ import annotations

from pathlib import Path

from agentrl.errors import UserError


def make_folder(path: Path) -> None:
    """Makes a folder that somebody named, with those around it. Raises UserError where there can be none."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be made ({error.strerror}): name another folder") from error
