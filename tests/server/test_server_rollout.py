"""Rollouts against a server: what their summary says."""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from server_house import House, says, serving

from agentrl.types import Sampling
from server.rollout import run_rollout


async def play(house: House, env: str, num_episodes: int) -> dict[str, Any]:
    return await run_rollout(
        env=env,
        base_url=house.runtime.base_url,
        model="nano",
        api_key="k",
        num_agents=1,
        num_episodes=num_episodes,
        group_size=1,
        temperature=1.0,
        purpose="train",
        split=None,
        seed=0,
    )


async def test_an_environment_that_rewards_nothing_has_no_success(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda ids, sampling: says("The lamp is fine.")) as house:
        found = await play(house, "personal", 2)

    assert (found["num_episodes"], found["success"], found["interrupted"]) == (2, None, False)


async def test_a_rollout_that_was_interrupted_says_so_and_one_that_was_told_to_end_does_not(
    tmp_path: Path,
) -> None:
    for number, is_interrupted in ((signal.SIGINT, True), (signal.SIGTERM, False)):

        def reply(ids: tuple[int, ...], sampling: Sampling, number: signal.Signals = number) -> list[int]:
            os.kill(os.getpid(), number)
            return says("The task is finished.")

        async with serving(tmp_path / number.name, reply) as house:
            found = await play(house, "terminal", 500)

        assert found["interrupted"] is is_interrupted
        assert found["num_episodes"] < 500
        assert found["success"] is not None


@pytest.mark.parametrize(("num_answered", "code"), [(4, 1), (6, 0)])
def test_a_rollout_of_which_most_could_not_be_played_ends_as_a_failure(
    num_answered: int, code: int, tmp_path: Path
) -> None:
    """Ten episodes of one turn, against a server that breaks among them."""
    asked = iter(range(1000))

    class Breaks(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status = 200 if not self.path.endswith("/completions") or next(asked) < num_answered else 400
            message = {"role": "assistant", "content": "The task is finished."}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": "nano",
                "choices": [choice],
            }
            said = json.dumps(body if status == 200 else {"error": {"message": "broken"}}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Breaks) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/v1"
            options = ("--num-episodes", "10", "--num-agents", "1", "--json")
            done = run("rollout", "--base-url", url, *options, cwd=tmp_path)
        finally:
            server.shutdown()

    assert done.returncode == code
    assert json.loads(done.stdout)["num_failed_episodes"] == 10 - num_answered
    assert ("6 of 10 episodes could not be played" in done.stderr) is (code == 1)
