"""Start, supervision and stop."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_house import BASH, MODEL, SteppedEngine, calls, eventually, says, serving, soon

from agentrl.config import load_config
from agentrl.engine.scripted import ScriptedEngine
from agentrl.errors import ConfigError, JudgeError, StoreError
from agentrl.learner.journal import MAX_BYTES
from agentrl.signals.judge import Judgement, ScriptedJudge
from agentrl.types import NextState, Turn
from server.learner_child import LearnerChild
from server.listener import Listener
from server.model_folder import model_folder
from server.runtime import Runtime

REPOSITORY = MODEL.parents[3]


async def test_a_run_leaves_its_settings_and_no_key_in_its_folder(tmp_path: Path) -> None:
    async with serving(tmp_path, [], server__api_keys=[{"key": "very-secret-key"}]):
        assert (tmp_path / "config.json").is_file()
        assert (tmp_path / "server.json").is_file()
        assert "very-secret-key" not in (tmp_path / "config.json").read_text()
    assert not (tmp_path / "server.json").exists()


async def test_the_run_keeps_its_secret(tmp_path: Path) -> None:
    async with serving(tmp_path, []):
        first = (tmp_path / "secret.key").read_text()
    async with serving(tmp_path, []):
        assert (tmp_path / "secret.key").read_text() == first


async def test_one_folder_has_one_server(tmp_path: Path) -> None:
    async with serving(tmp_path, []):
        with pytest.raises(StoreError, match="stop the server of this run folder"):
            async with serving(tmp_path, []):
                pass


async def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    config = load_config(
        model=str(MODEL), name="nano", run_dir=str(tmp_path), server__port=0, learn__enabled=False
    )

    async def broken(*_: Any) -> ScriptedEngine:
        raise ConfigError("no such device")

    with pytest.raises(ConfigError, match="no such device"):
        await Runtime(config, make_engine=broken).start()
    async with serving(tmp_path, [says("Ok.")]) as house:
        assert (await house.ask("Hi")).status_code == 200


async def test_a_taken_port_is_refused_with_the_remedy(tmp_path: Path) -> None:
    async with serving(tmp_path / "a", []) as house:
        port = int(house.runtime.base_url.rpartition(":")[2])
        with pytest.raises(ConfigError, match="0 takes any free one"):
            async with serving(tmp_path / "b", [], server__port=port):
                pass


def test_a_missing_model_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        model_folder(str(tmp_path / "nothing"))


async def test_a_recipe_that_does_not_exist_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nope"):
        async with serving(tmp_path, [], learn__enabled=True, learn__recipe="nope"):
            pass


async def test_an_open_address_without_a_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="api_keys"):
        async with serving(tmp_path, [], server__host="0.0.0.0"):
            pass


async def test_a_failed_command_becomes_a_hint_without_being_asked(tmp_path: Path) -> None:
    """The signal loop runs beside the gateway; law 5: what it finds stays out of served prompts."""
    hint = "cat is not installed. Use show instead."
    async with serving(tmp_path, [calls("cat a"), says("Ok."), says("Ok.")]) as house:
        first = (await house.ask("Show a.", tools=[BASH])).json()
        call = first["choices"][0]["message"]["tool_calls"][0]
        said = {"role": "assistant", "content": None, "tool_calls": [call]}
        result = {"role": "tool", "tool_call_id": call["id"], "content": hint + "\n[exit code 127]"}
        await house.ask({"role": "user", "content": "Show a."}, said, result, tools=[BASH])
        turn_id = first["id"].removeprefix("chatcmpl-")
        (signal_,) = await eventually(lambda: house.runtime.log.signals(turn_id))

        assert (signal_.reward, signal_.hint) == (-1.0, f'The tool said: "{hint}"')
        before = house.engine.requests[0].prompt_ids
        await house.ask("Show a.", tools=[BASH])
        assert house.engine.requests[-1].prompt_ids == before
        assert (await house.turn(turn_id)).block_spans == ()


async def test_evaluations_are_never_judged(tmp_path: Path) -> None:
    seen: list[str] = []

    def judge(turn: Turn, state: NextState) -> Judgement:
        seen.append(turn.session)
        return Judgement(reward=1.0)

    async with serving(tmp_path, lambda *_: says("Ok."), judge=ScriptedJudge(judge)) as house:
        for path in ("/s/e/eval", "/s/t"):
            said = {"role": "assistant", "content": "Ok."}
            await house.ask("Hi", path=path)
            await house.ask({"role": "user", "content": "Hi"}, said, "Thanks.", path=path)

        async def judged() -> bool:
            return bool(seen)

        await eventually(judged)
        assert set(seen) == {"t"}


async def test_a_judge_that_fails_fails_no_request(tmp_path: Path) -> None:
    def judge(turn: Turn, state: NextState) -> Judgement:
        raise JudgeError("cannot say")

    async with serving(tmp_path, lambda *_: says("Ok."), judge=ScriptedJudge(judge)) as house:
        await house.ask("Hi", path="/s/a")
        await house.ask(
            {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ok."}, "No.", path="/s/a"
        )
        turn = (await house.turns("a"))[0]

        async def given_up() -> bool:
            return (await house.runtime.log.counts()).get("judgements.failed") == 3

        await eventually(given_up)
        assert await house.runtime.log.signals(turn.id) == []
        assert (await house.ask("Hi")).status_code == 200


async def test_a_stop_lets_open_requests_finish(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("One two.")], engine_class=SteppedEngine) as house:
        assert isinstance(house.engine, SteppedEngine)
        asking = asyncio.create_task(house.ask("Hi"))
        await soon(house.engine.arrived.acquire())
        stopping = asyncio.create_task(house.runtime.stop())
        for _ in range(20):
            house.engine.permits.release()
        reply = await asking
        await stopping

        assert reply.status_code == 200
        assert reply.json()["choices"][0]["message"]["content"] == "One two."


async def test_a_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("One two three.")], engine_class=SteppedEngine) as house:
        assert isinstance(house.engine, SteppedEngine)
        house.engine.permits.release()
        asking = asyncio.create_task(house.ask("Hi", path="/s/a"))
        await soon(house.engine.arrived.acquire())

        async def one_sampled() -> bool:
            assert isinstance(house.engine, SteppedEngine)
            return house.engine.permits.locked()

        await eventually(one_sampled)
        await house.runtime.gateway.aclose()
        reply = await asking
        (turn,) = await house.turns("a")

        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "server_stopping")
        assert turn.error == "ServerStopping: the server is shutting down"
        assert (await house.ask("Hi")).status_code == 503


async def test_a_client_that_does_not_read_cannot_hold_up_the_stop() -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    cut = asyncio.Event()

    async def cutting() -> None:
        cut.set()

    config = load_config(server__port=0).server
    listener = Listener(endless, config, cut=cutting, drain_s=0.1, leave_s=0.1)
    await listener.start()
    port = int(listener.base_url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await writer.drain()
    async with asyncio.timeout(10):
        await listener.stop()
    writer.close()
    assert cut.is_set()


async def test_sigterm_stops_a_server_cleanly(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from server_house import says, serving\n"
        "async def main():\n"
        "    async with serving(Path(sys.argv[2]), lambda *_: says('Ok.')) as house:\n"
        "        waiting = asyncio.create_task(house.runtime.wait())\n"
        "        await asyncio.sleep(0)  # so the handlers of signals stand before the address is told\n"
        "        print(house.runtime.base_url, flush=True)\n"
        "        await waiting\n"
        "    print('stopped', flush=True)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        str(Path(__file__).parent),
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout is not None
    base_url = (await process.stdout.readline()).decode().strip()
    async with httpx.AsyncClient(base_url=base_url) as http:
        assert (await http.get("/healthz")).status_code == 200
    process.send_signal(signal.SIGTERM)

    assert (await process.stdout.read()).decode().strip() == "stopped"
    assert await process.wait() == 0
    assert not (tmp_path / "server.json").exists()


# the learner's process


def learner(run_dir: Path, program: str, crashed: list[int]) -> LearnerChild:
    return LearnerChild(
        run_dir,
        crashed=lambda: crashed.append(1),
        command=(sys.executable, "-c", program),
        first_pause_s=0.01,
    )


async def test_a_learner_that_crashes_is_started_again(tmp_path: Path) -> None:
    crashed: list[int] = []
    mark = tmp_path / "mark"
    program = (
        "import pathlib, sys\n"
        f"mark = pathlib.Path({str(mark)!r})\n"
        "tries = int(mark.read_text()) if mark.exists() else 0\n"
        "mark.write_text(str(tries + 1))\n"
        "print('try', tries)\n"
        "sys.exit(1 if tries < 2 else 0)\n"
    )
    child = learner(tmp_path, program, crashed)
    await child.run()

    assert (len(crashed), child.num_crashes, child.state) == (2, 2, "finished")
    assert (tmp_path / "learner.log").read_text() == "try 0\ntry 1\ntry 2\n"


async def test_a_learner_that_never_gets_to_its_journal_does_not_fill_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "learner.log"
    path.write_bytes(b"x" * MAX_BYTES)
    child = learner(tmp_path, "print('new')", [])
    await child.run()

    assert path.read_text() == "new\n"
    assert (tmp_path / "learner.log.1").stat().st_size == MAX_BYTES


async def test_a_learner_that_refuses_its_settings_is_not_started_again(tmp_path: Path) -> None:
    crashed: list[int] = []
    child = learner(tmp_path, "import sys; sys.exit(2)", crashed)
    await child.run()

    assert (crashed, child.state) == ([], "refused its settings")


async def test_a_learner_that_does_not_end_is_ended(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    program = (
        "import pathlib, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(600)  # what is tested: a process that does not end\n"
    )
    child = LearnerChild(
        tmp_path, crashed=lambda: None, command=(sys.executable, "-c", program), stop_timeout_s=0.2
    )
    running = asyncio.create_task(child.run())

    async def started() -> bool:
        return ready.exists()

    await eventually(started)
    running.cancel()
    await child.stop()
    assert child.state == "stopped"


async def test_ctrl_c_in_a_terminal_does_not_reach_the_learner(tmp_path: Path) -> None:
    program = f"import os, pathlib; pathlib.Path({str(tmp_path / 'group')!r}).write_text(str(os.getpgid(0)))"
    await soon(learner(tmp_path, program, []).run(), timeout_s=60)

    assert int((tmp_path / "group").read_text()) != os.getpgid(0)


async def test_the_gateway_serves_while_its_learner_crashes(tmp_path: Path) -> None:
    """Law 4: serving does not depend on learning. The model folder here has no weights, so the learner cannot start."""
    async with serving(tmp_path, lambda *_: says("Ok."), learn__enabled=True) as house:
        assert (await house.ask("Hi")).status_code == 200

        async def gone() -> bool:
            status = (await house.http.get("/v1/status")).json()["learner"]
            return bool(status["state"] != "running" and status["state"] != "starting")

        await eventually(gone, timeout_s=60)
        assert (await house.ask("Hi")).status_code == 200
    assert (tmp_path / "learner.log").read_text()


# torch


TURN = """
import sys

if sys.argv[3] == "blocked":
    sys.modules["torch"] = None
sys.path.insert(0, sys.argv[1])
import asyncio
from pathlib import Path
from server_house import BASH, calls, eventually, says, serving

async def main():
    async with serving(Path(sys.argv[2]), [calls("cat a"), says("Ok.")]) as house:
        first = (await house.ask("Show a.", tools=[BASH])).json()
        call = first["choices"][0]["message"]["tool_calls"][0]
        said = {"role": "assistant", "content": None, "tool_calls": [call]}
        result = {"role": "tool", "tool_call_id": call["id"], "content": "cat: use show instead\\n[exit code 1]"}
        await house.ask({"role": "user", "content": "Show a."}, said, result, tools=[BASH])
        signals = await eventually(lambda: house.runtime.log.signals(first["id"].removeprefix("chatcmpl-")))
        assert signals[0].reward == -1.0
    assert sys.modules.get("torch") is None
    print("served")

asyncio.run(main())
"""


@pytest.mark.parametrize("torch", ["blocked", "there"])
async def test_gateway_store_and_judge_never_load_torch(tmp_path: Path, torch: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", TURN, str(Path(__file__).parent), str(tmp_path), torch),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    out, err = await process.communicate()

    assert out.decode().strip() == "served", err.decode()
