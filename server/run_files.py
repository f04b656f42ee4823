"""What a run leaves on disk for the commands that look at it: where the server listens, and who may ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from agentrl.config import Config
from agentrl.errors import UserError

SERVER_FILE = "server.json"


def write_server_file(run_dir: Path, *, base_url: str, pid: int, key: str | None) -> None:
    """Says where the running server listens; readable by its owner only, since it may hold a key."""
    path = run_dir / SERVER_FILE
    path.touch(mode=0o600)
    path.write_text(json.dumps({"base_url": base_url, "pid": pid, "key": key}), encoding="utf-8")


def remove_server_file(run_dir: Path) -> None:
    (run_dir / SERVER_FILE).unlink(missing_ok=True)


def existing_run(run_dir: Path) -> Path:
    """The run folder, or an error that says how to make one."""
    if not (run_dir / "config.json").is_file():
        raise UserError(
            f"{run_dir} holds no run; start one with `agentrl serve MODEL --run-dir {run_dir}`, "
            "or name another with --run-dir"
        )
    return run_dir


def settings_of(run_dir: Path) -> Config:
    """The settings that the run was started with."""
    return Config.model_validate_json((existing_run(run_dir) / "config.json").read_text(encoding="utf-8"))


def ask_server(run_dir: Path, path: str) -> dict[str, Any] | None:
    """GETs `path` from the run's server over loopback; None where no server is running."""
    try:
        where = json.loads((existing_run(run_dir) / SERVER_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    headers = {"Authorization": f"Bearer {where['key']}"} if where.get("key") else {}
    try:
        answer = httpx.get(where["base_url"] + path, headers=headers, timeout=10)
    except httpx.TransportError:
        return None
    answer.raise_for_status()
    body: dict[str, Any] = answer.json()
    return body
