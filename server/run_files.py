"""What a run leaves on disk for the commands that look at it: where the server listens, and who may ask."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx

from agentrl.config import Config, read_config
from agentrl.errors import UserError
from server.typed import command

SERVER_FILE = "server.json"


def write_server_file(run_dir: Path, *, base_url: str, pid: int, key: str | None) -> None:
    """Says where the running server listens; readable by its owner only, since it may hold a key."""
    path = run_dir / SERVER_FILE
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    # Readable by its owner from its first moment on, and never to be seen half-written.
    with os.fdopen(
        os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        json.dump({"base_url": base_url, "pid": pid, "key": key}, file)
    fresh.replace(path)


def remove_server_file(run_dir: Path) -> None:
    (run_dir / SERVER_FILE).unlink(missing_ok=True)


def existing_run(run_dir: Path) -> Path:
    """The run folder, or an error that says how to make one."""
    if not (run_dir / "config.json").is_file():
        raise UserError(
            f"{run_dir} holds no run; start one with {command('serve MODEL', run_dir)}, "
            "or name another with --run-dir"
        )
    return run_dir


def settings_of(run_dir: Path) -> Config:
    """The settings that the run was started with."""
    return read_config(existing_run(run_dir) / "config.json")


def server_url(run_dir: Path) -> str:
    """Where the run's server listens, as it wrote when it started. Raises FileNotFoundError where none has."""
    where = json.loads((existing_run(run_dir) / SERVER_FILE).read_text(encoding="utf-8"))
    return str(where["base_url"])


def ask_server(run_dir: Path, path: str) -> dict[str, Any] | None:
    """GETs `path` from the run's server over loopback; None where none is running, or another run's has its port."""
    try:
        where = json.loads((existing_run(run_dir) / SERVER_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    headers = {"Authorization": f"Bearer {where['key']}"} if where.get("key") else {}
    try:
        answer = httpx.get(where["base_url"] + path, headers=headers, timeout=10)
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError):
        return None
    same = Path(str(body.get("run_dir"))).resolve() == run_dir.resolve()
    return body if same else None
