"""`make bench`: every benchmark that this machine can run, one after the other, each a table on standard output."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from importlib.metadata import version

BENCHMARKS = ("engine", "hot_path", "losses", "store")


def main() -> int:
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {version('torch')}"
    )
    failed = []
    for name in sys.argv[1:] or BENCHMARKS:
        print(f"\n## {name}\n", flush=True)
        start = time.monotonic()
        # A process of its own: thread counts and allocator state of one benchmark do not reach the next.
        if subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode != 0:
            failed.append(name)
        print(f"({time.monotonic() - start:.0f} s)")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
