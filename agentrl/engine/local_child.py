"""The child process of `LocalProcessEngine`: a worker between two ends of a socket.

    python -m agentrl.engine.local_child FD

The first message says what to serve; the answer is the facts of the model, or the error that kept it from loading.
Then commands come in and reports go out. When the parent goes, however it goes, the socket ends and so does this
process, in the middle of a step if need be.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentrl.config import EngineConfig
from agentrl.engine.frames import frame, receive
from agentrl.engine.local_worker import Worker
from agentrl.engine.messages import Report
from agentrl.errors import AgentRLError


def main(descriptor: int) -> None:
    # A service manager's SIGTERM reaches every process of the service; the parent decides when its engine ends, after
    # the requests at hand.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    link = socket.socket(fileno=descriptor)
    try:
        first = receive(link)
    except EOFError:
        return
    # Where the parent goes while the model is being read, nobody is left to be told of it.
    with suppress(BrokenPipeError, ConnectionResetError):
        serve(link, *first)


def serve(
    link: socket.socket,
    model_path: str,
    config: dict[str, Any],
    version: int,
    path: str | None,
    held: dict[int, str],
) -> None:
    """Until the parent closes its end."""
    try:
        settings = EngineConfig.model_validate(config)
        worker = Worker(Path(model_path), settings, version, Path(path) if path else None, held)
    except AgentRLError as error:
        link.sendall(frame(error))
        return
    link.sendall(frame(worker.facts))
    threading.Thread(target=listen, args=(link, worker), name="agentrl-listen", daemon=True).start()

    def deliver(report: Report) -> None:
        link.sendall(frame(report))

    worker.run(deliver)


def listen(link: socket.socket, worker: Worker) -> None:
    """Posts commands until the parent closes its end."""
    try:
        while True:
            worker.post(receive(link))
    except EOFError:
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
