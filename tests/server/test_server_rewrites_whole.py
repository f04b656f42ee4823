"""Edits and replaced answers of an SDK user, trained by a real learner into a version that is served."""

from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI
from rewrites_house import ask, reply, user
from server_house import eventually
from test_server_whole import tiny_model

from agentrl.config import load_config
from server.runtime import Runtime

NUM_TURNS = 4


async def test_rewritten_and_replaced_replies_are_trained_as_pairs(tmp_path: Path) -> None:
    config = load_config(
        model=str(tiny_model(tmp_path / "model")),
        name="nano",
        run_dir=str(tmp_path / "run"),
        server__port=0,
        engine__precision="fp32",
        engine__max_len=512,
        learn__precision="fp32",
        learn__recipe="dpo",
        learn__overrides={"batch.turns_per_step": NUM_TURNS},
    )
    async with (
        Runtime(config) as runtime,
        httpx.AsyncClient(base_url=runtime.base_url, timeout=60) as http,
        AsyncOpenAI(base_url=runtime.base_url + "/v1", api_key="any", max_retries=0) as unnamed,
        AsyncOpenAI(base_url=runtime.base_url + "/s/a/v1", api_key="any", max_retries=0) as named,
    ):

        async def told(client: AsyncOpenAI, *messages: Any) -> Any:
            return await ask(client, *messages, max_tokens=6)

        begins = user("A note about the sofa.")
        edited = [await told(named, begins)]
        await told(named, begins, reply("The sofa weighs 3 kg."), user("And the bed?"))
        # nobody named this one: it is known by its first reply, which stays as it is
        said = [user("Hello."), (await told(unnamed, user("Hello."))).message, begins]
        edited.append(await told(unnamed, *said))
        said += [reply("The sofa weighs 3 kg."), user("Name a colour.")]
        replaced, kept = await told(unnamed, *said), await told(unnamed, *said)
        await told(unnamed, *said, kept.message, user("Thanks."))

        async def learned() -> Any:
            account = (await http.get("/v1/status")).json()["account"] or {}
            return account if account.get("trained") == NUM_TURNS else None

        account = await eventually(learned, timeout_s=90)
        assert account["accepted"] == 7
        explained = [await runtime.log.explain(turn.turn_id) for turn in (*edited, replaced, kept)]
        assert {str(told["fate"]) for told in explained} == {"trained"}
        assert (await told(unnamed, user("Hi"))).text is not None
