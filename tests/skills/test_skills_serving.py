"""The loop beside the gateway: an agent plays, its episode becomes a skill while the server goes on serving."""

import asyncio
import json
from pathlib import Path

import httpx
from skills_episodes import BASH, REFUSED, WORKED
from tokenizers import Tokenizer

from agentrl.config import Config, load_config
from agentrl.engine.base import Engine
from agentrl.engine.scripted import ScriptedEngine
from agentrl.nano import weights_dir
from server.runtime import Runtime

TOKENIZER = Tokenizer.from_file(str(weights_dir() / "tokenizer.json"))


def calls(command: str) -> list[int]:
    shown = json.dumps({"name": "bash", "arguments": {"command": command}})
    text = f"<tool_call>\n{shown}\n</tool_call><|im_end|>"
    return list(TOKENIZER.encode(text, add_special_tokens=False).ids)


async def play(http: httpx.AsyncClient, path: str) -> None:
    """One episode of two calls, rewarded and closed."""
    messages = [{"role": "user", "content": "Show the file notes.txt."}]
    for output in (REFUSED, None):
        answer = await http.post(
            f"{path}/v1/chat/completions", json={"model": "nano", "messages": messages, "tools": [BASH]}
        )
        reply = answer.raise_for_status().json()["choices"][0]["message"]
        if output is not None:
            call = reply["tool_calls"][0]["id"]
            messages += [reply, {"role": "tool", "tool_call_id": call, "content": output}]
    session = path.split("/")[2]
    ended = {"session": session, "reward": 1.0, "end_session": True, "source": "environment"}
    (await http.post("/v1/feedback", json=ended)).raise_for_status()


async def test_an_agents_episode_becomes_a_skill_and_an_evaluation_does_not(tmp_path: Path) -> None:
    config = load_config(
        model="nano",
        run_dir=str(tmp_path / "run"),
        server__port=0,
        learn__enabled=False,
        skills__write="always",
    )
    replies = [calls("cat notes.txt"), calls("zorp notes.txt")]
    engine = ScriptedEngine(replies * 2, vocab_size=TOKENIZER.get_vocab_size())

    async def make_engine(model_path: Path, config: Config, number: int, path: Path) -> Engine:
        return engine

    async with (
        Runtime(config, make_engine=make_engine) as runtime,
        httpx.AsyncClient(base_url=runtime.base_url, timeout=20) as http,
    ):
        await play(http, "/s/first/eval")
        await play(http, "/s/second")
        file = tmp_path / "run" / "skills" / "default" / "use-zorp" / "SKILL.md"
        async with asyncio.timeout(30):
            while not file.is_file():
                await asyncio.sleep(0.01)  # the loop of skills writes it in its own time and tells nobody
        turns = [turn.id for turn in await runtime.log.turns_of("second", "default")]

    text = file.read_text()
    assert WORKED in text
    assert all(turn in text for turn in turns)
    assert len(text.split("agentrl-turns: ")[1].split("agentrl-version")[0].split()) == 2
