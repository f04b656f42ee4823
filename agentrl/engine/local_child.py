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
from pathlib import Path

from agentrl.config import EngineConfig
from agentrl.engine.frames import frame, receive
from agentrl.engine.local_worker import Worker
from agentrl.engine.messages import Report
from agentrl.errors import AgentRLError


def main(descriptor: int) -> None:
    # Ctrl-C reaches the whole process group, a service manager's SIGTERM every process of the service; the parent
    # decides when its engine ends, after the requests at hand.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    link = socket.socket(fileno=descriptor)
    model_path, config, version, path, held = receive(link)
    try:
        settings = EngineConfig.model_validate(config)
        worker = Worker(Path(model_path), settings, version, path and Path(path), held)
    except AgentRLError as error:
        link.sendall(frame(error))
        return
    link.sendall(frame(worker.facts))
    threading.Thread(target=listen, args=(link, worker), name="agentrl-listen", daemon=True).start()

    def deliver(report: Report) -> None:
        link.sendall(frame(report))

    try:
        worker.run(deliver)
    except (BrokenPipeError, ConnectionResetError):
        return


def listen(link: socket.socket, worker: Worker) -> None:
    """Posts commands until the parent closes its end."""
    try:
        while True:
            worker.post(receive(link))
    except EOFError:
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
