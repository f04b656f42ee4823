"""The command `agentrl` in this process: as one of its own, without what starting one takes."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from server.cli import main


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What a process with these arguments returns and prints."""
    code: str | int | None = 0
    with (
        contextlib.chdir(cwd),
        mock.patch.object(sys, "argv", ["agentrl", *arguments]),
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    said = err.getvalue()
    if isinstance(code, str):  # which Python prints when it ends
        code, said = 1, f"{said}{code}\n"
    return subprocess.CompletedProcess(arguments, code or 0, out.getvalue(), said)


def lessons(*arguments: str, cwd: Path) -> dict[str, Any]:
    """What `agentrl lessons` says as JSON."""
    done = run("lessons", *arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
