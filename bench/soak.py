"""Memory over a long run: RSS of the server's processes (gateway, engine, learner) while agents play and it learns.

    python -m bench.soak [--first 5000] [--last 20000] [--agents 8]

Prints the RSS at both numbers of turns and their ratio; exit status 1 above 1.05.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

MAX_RATIO = 1.05


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found


def rss_mib(pid: int) -> dict[str, float]:
    """RSS by role, in MiB."""
    roles = {"agentrl.engine.local_child": "engine", "server.learner_main": "learner"}
    result: dict[str, float] = {}
    for each in tree(pid):
        try:
            words = Path(f"/proc/{each}/cmdline").read_bytes().decode().split("\0")
            pages = int(Path(f"/proc/{each}/statm").read_text().split()[1])
        except OSError:
            continue
        role = next((name for module, name in roles.items() if module in words), "gateway")
        result[role] = result.get(role, 0.0) + pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return {role: round(value, 1) for role, value in result.items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=5000)
    parser.add_argument("--last", type=int, default=20000)
    parser.add_argument("--agents", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder)
        agentrl = [sys.executable, "-P", "-m", "server.cli"]
        # A high learning rate would teach the agents all there is to learn, and then nothing would be trained.
        serve = subprocess.Popen([*agentrl, "serve", "nano", "--port", "0", "--run-dir", folder])
        while not (run_dir / "server.json").exists():
            assert serve.poll() is None, "the server did not start"
            time.sleep(0.2)
        where = json.loads((run_dir / "server.json").read_text())
        headers = {"Authorization": f"Bearer {where['key']}"} if where["key"] else {}
        agents = subprocess.Popen(
            [
                *agentrl,
                "rollout",
                "--base-url",
                where["base_url"],
                "--num-agents",
                str(arguments.agents),
                "--num-episodes",
                str(arguments.last),
                "--env-set",
                'shell="simulated"',
            ],
            stdout=subprocess.DEVNULL,
        )
        seen: dict[str, dict[str, float]] = {}
        try:
            for goal, name in ((arguments.first, "first"), (arguments.last, "last")):
                while True:
                    counts = httpx.get(f"{where['base_url']}/v1/status", headers=headers, timeout=60).json()[
                        "counts"
                    ]
                    if counts["turns"] >= goal:
                        break
                    assert agents.poll() is None, "the agents ended early"
                    time.sleep(1)
                seen[name] = rss_mib(serve.pid)
                print(json.dumps({"turns": counts["turns"], "rss_mib": seen[name]}), flush=True)
        finally:
            agents.terminate()
            agents.wait(timeout=60)
            serve.terminate()
            serve.wait(timeout=60)
    ratio = sum(seen["last"].values()) / sum(seen["first"].values())
    print(json.dumps({"ratio": round(ratio, 3), "bound": MAX_RATIO}))
    return 0 if ratio <= MAX_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
