"""A whole server for tests: the real gateway, log and web server before a scripted engine, on a free port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from openai import AsyncOpenAI
from tokenizers import Tokenizer

from agentrl.config import Config, load_config
from agentrl.engine.base import Engine, Finished, Sampled
from agentrl.engine.scripted import Script, ScriptedEngine
from agentrl.signals.judge import Judge
from agentrl.store.signal_log import SignalLog
from agentrl.types import Turn
from server.runtime import Runtime

T = TypeVar("T")
DATA = Path(__file__).parent / "data"
MODEL = DATA / "nano_tokenizer"
TOKENIZER = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
BASH = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Run a command in the shell.",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string"}},
            "required": ["command"],
        },
    },
}


def ids(text: str) -> list[int]:
    """Ids of text in which control tokens mean themselves."""
    return list(TOKENIZER.encode(text, add_special_tokens=False).ids)


def says(text: str) -> list[int]:
    return ids(text + "<|im_end|>")


def calls(*commands: str, text: str = "") -> list[int]:
    """A reply that calls bash once a command."""
    blocks = [
        f'<tool_call>\n{{"name": "bash", "arguments": {{"command": "{command}"}}}}\n</tool_call>'
        for command in commands
    ]
    return ids("\n".join(([text] if text else []) + blocks) + "<|im_end|>")


async def soon(awaitable: Awaitable[T], timeout_s: float = 60.0) -> T:
    """Bounds the wait for an event that only broken code would keep from coming."""
    async with asyncio.timeout(timeout_s):
        return await awaitable


async def eventually(check: Callable[[], Awaitable[T | None]], timeout_s: float = 60.0) -> T:
    """The first result of `check` that is not None or False: for what happens behind a reply."""
    async with asyncio.timeout(timeout_s):
        while True:
            found = await check()
            if found:
                return found
            await asyncio.sleep(
                0.005
            )  # what is asked for stands in files or another process: no event tells of it


def decode(token_ids: Sequence[int]) -> str:
    return str(TOKENIZER.decode(list(token_ids), skip_special_tokens=False))


class SteppedEngine(ScriptedEngine):
    """Hands out one id a permit; `arrived` counts the requests."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.permits = asyncio.Semaphore(0)
        self.arrived = asyncio.Semaphore(0)

    async def generate(self, *args: Any, **options: Any) -> AsyncIterator[Sampled | Finished]:
        self.arrived.release()
        async for event in super().generate(*args, **options):
            await self.permits.acquire()
            yield event


class GatedLog(SignalLog):
    """Commits turns once the gate is open."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gate = asyncio.Event()
        self.reached = asyncio.Event()

    async def record_turn(self, *args: Any, **options: Any) -> None:
        self.reached.set()
        await self.gate.wait()
        await super().record_turn(*args, **options)


@dataclass
class House:
    runtime: Runtime
    engine: ScriptedEngine
    http: httpx.AsyncClient
    clients: list[AsyncOpenAI] = field(default_factory=list)

    def client(self, path: str = "/v1", *, key: str = "any", **options: Any) -> AsyncOpenAI:
        """The SDK that users have; closed with the house."""
        options = {"max_retries": 0, **options}
        client = AsyncOpenAI(base_url=self.runtime.base_url + path, api_key=key, **options)
        self.clients.append(client)
        return client

    async def turn(self, turn_id: str) -> Turn:
        turn = await self.runtime.log.turn(turn_id)
        assert turn is not None, f"{turn_id} is not in the log"
        return turn

    async def turns(self, session: str, scope: str = "default") -> list[Turn]:
        return await self.runtime.log.turns_of(session, scope)

    async def ask(
        self,
        *messages: dict[str, Any] | str,
        path: str = "",
        headers: dict[str, str] | None = None,
        **body: Any,
    ) -> httpx.Response:
        """One plain request; strings are user messages."""
        said = [{"role": "user", "content": one} if isinstance(one, str) else one for one in messages]
        return await self.http.post(
            f"{path}/v1/chat/completions", json={"model": "nano", "messages": said, **body}, headers=headers
        )


@asynccontextmanager
async def serving(
    run_dir: Path,
    replies: Script,
    *,
    judge: Judge | None = None,
    log_class: type[SignalLog] = SignalLog,
    engine_class: type[ScriptedEngine] = ScriptedEngine,
    engine_options: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[House]:
    """A server with settings by dotted names (`server__idle_s=1.0`)."""
    config: Config = load_config(
        **({"model": str(MODEL), "name": "nano", "run_dir": str(run_dir), "server__port": 0} | settings),
        **({} if "learn__enabled" in settings else {"learn__enabled": False}),
    )
    engine = engine_class(replies, vocab_size=TOKENIZER.get_vocab_size(), **(engine_options or {}))

    async def make_engine(model_path: Path, config: Config, number: int, path: Path) -> Engine:
        return engine

    async with (
        Runtime(config, make_engine=make_engine, open_log=log_class.open, judge=judge) as runtime,
        httpx.AsyncClient(base_url=runtime.base_url, timeout=20) as http,
    ):
        house = House(runtime, engine, http)
        try:
            yield house
        finally:
            for client in house.clients:
                await client.close()
