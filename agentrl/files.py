"""Folders that somebody named, and small files that others read while they are written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from agentrl.errors import UserError


def make_folder(path: Path) -> None:
    """Makes a folder that somebody named, with those around it. Raises UserError where there can be none."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be made ({error.strerror}): name another folder") from error


def replace_json(path: Path, data: Any) -> None:
    """Writes `data` as JSON in the place of what stands there; readers see the old file or the new one whole."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(data), encoding="utf-8")
    os.replace(part, path)
