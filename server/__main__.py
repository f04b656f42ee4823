"""The command `agentrl`. The commands' module is imported within: that takes long enough to be interrupted."""

from __future__ import annotations

import sys


def main() -> None:
    try:
        from server.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
