"""Small files that others read while they are written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def replace_json(path: Path, data: Any) -> None:
    """Writes `data` as JSON in the place of what stands there; readers see the old file or the new one whole."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(data), encoding="utf-8")
    os.replace(part, path)
