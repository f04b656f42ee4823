"""The served model as the writer of skills: asked over the server's own door, and what it is asked is never trained."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from skills_episodes import BASH, REFUSED, episode
from tokenizers import Tokenizer

from agentrl.config import Config, load_config
from agentrl.engine.base import Engine, Priority
from agentrl.engine.scripted import ScriptedEngine
from agentrl.errors import ConfigError
from agentrl.nano import evaluate, weights_dir
from agentrl.types import Sampling
from server.runtime import Runtime
from skills.llm import draft_of, prompt

TOKENIZER = Tokenizer.from_file(str(weights_dir() / "tokenizer.json"))
SKILL = {
    "name": "use-zorp",
    "description": "To show a file.",
    "success_analysis": "",
    "mistake_analysis": ["Do not use cat."],
    "golden_workflow": ["Run zorp."],
}


def ids(text: str) -> list[int]:
    return list(TOKENIZER.encode(text + "<|im_end|>", add_special_tokens=False).ids)


def agent_and_writer(prompt: tuple[int, ...], sampling: Sampling) -> list[int]:
    """A model that runs a command, and that writes a skill where it is asked for one."""
    text = TOKENIZER.decode(list(prompt), skip_special_tokens=False)
    if "You write skills for an agent" in text:
        return ids(json.dumps(SKILL))
    call = json.dumps({"name": "bash", "arguments": {"command": "cat notes.txt"}})
    return ids(f"<tool_call>\n{call}\n</tool_call>" if REFUSED not in text else "Done.")


async def play(http: httpx.AsyncClient) -> None:
    """One episode of a refused command, closed without a reward."""
    messages = [{"role": "user", "content": "Show the file notes.txt."}]
    body = {"model": "nano", "messages": messages, "tools": [BASH]}
    reply = (await http.post("/s/one/v1/chat/completions", json=body)).json()["choices"][0]["message"]
    call = reply["tool_calls"][0]["id"]
    messages += [reply, {"role": "tool", "tool_call_id": call, "content": REFUSED}]
    (await http.post("/s/one/v1/chat/completions", json=body)).raise_for_status()
    (
        await http.post("/v1/feedback", json={"session": "one", "end_session": True, "reward": 0.0})
    ).raise_for_status()


def settings(run_dir: Path, summariser: str) -> Config:
    return load_config(
        model="nano",
        run_dir=str(run_dir),
        server__port=0,
        learn__enabled=False,
        skills__write="always",
        skills__summariser=summariser,
    )


@pytest.mark.parametrize("summariser", ["self", "self@0"])
async def test_the_served_model_writes_a_skill_of_an_episode_and_its_own_turn_stays_apart(
    tmp_path: Path, summariser: str
) -> None:
    engine = ScriptedEngine(agent_and_writer, vocab_size=TOKENIZER.get_vocab_size())

    async def make_engine(model_path: Path, config: Config, number: int, path: Path) -> Engine:
        return engine

    config = settings(tmp_path, summariser)
    async with (
        Runtime(config, make_engine=make_engine) as runtime,
        httpx.AsyncClient(base_url=runtime.base_url, timeout=20) as http,
    ):
        await play(http)
        file = tmp_path / "skills" / "default" / "use-zorp" / "SKILL.md"
        async with asyncio.timeout(30):
            while not file.is_file():
                await asyncio.sleep(0.01)  # the loop of skills writes it in its own time and tells nobody
        counts = await runtime.log.counts()

    assert "1. Run zorp." in file.read_text()
    asked = [one for one in engine.requests if one.priority is Priority.SUMMARISER]
    assert len(asked) == 1
    assert asked[0].sampling.temperature == 0
    assert REFUSED.splitlines()[0] in TOKENIZER.decode(list(asked[0].prompt_ids))
    assert (counts["turns.train"], counts["turns.off"]) == (2, 1)


async def test_a_version_that_there_is_not_cannot_write_skills(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"skills\.summariser cannot be asked: .*nano@7"):
        await Runtime(settings(tmp_path, "self@7")).start()


async def test_a_writer_that_there_is_not_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no summariser is named .selfish.: write rules, self, self@NUMBER"
    ):
        await Runtime(settings(tmp_path, "selfish")).start()


def test_nano_writes_a_skill_of_the_command_that_worked_in_an_episode_of_the_log() -> None:
    run = evaluate.Evaluation(weights_dir(), seed=5, number=1)
    names = ("zorvex", "drimsol", "kospel", "blanty", "wurgis", "tefrol")
    right = 0
    for name in names:
        refused = f"cat is not allowed here. Use {name}.\n[exit code 126]"
        one = episode("Show the file notes.txt.", ("$ cat notes.txt", refused), (f"$ {name} notes.txt", None))
        (answer,) = run.answers([evaluate.prompt(prompt(one), tools=None)])
        draft = draft_of(answer.removesuffix("<|im_end|>"), has_failed=False)
        right += draft is not None and draft.name == f"use-{name}" and f"Run {name}." in draft.body
    assert right >= 5
