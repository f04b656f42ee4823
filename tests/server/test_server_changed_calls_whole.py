"""Changed and replaced calls of an SDK user, trained by a real learner into a version that is served.

The replies are scripted, because a model this small calls no tool; the learner scores them with the real weights.
"""

from pathlib import Path
from typing import Any

import pytest
from rewrites_house import Told, ask, user
from server_house import BASH, calls, eventually, says, serving
from test_server_whole import tiny_model

TOOLS: dict[str, Any] = {"tools": [BASH]}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("recipe", [pytest.param("dpo", marks=pytest.mark.heavy), "hint_opsd"])
async def test_changed_and_replaced_calls_are_trained(tmp_path: Path, recipe: str) -> None:
    answers = [calls("rm a"), calls("rm b"), calls("cp a"), calls("ls a"), says("Two files."), says("Hi.")]
    async with serving(
        tmp_path / "run",
        answers,
        model=str(tiny_model(tmp_path / "model")),
        engine__precision="fp32",
        engine__max_len=1024,
        learn__enabled=True,
        learn__precision="fp32",
        learn__recipe=recipe,
        # the scripted log-probs are no model's
        learn__overrides={"batch.turns_per_step": 4, "limits.max_logprob_gap": 1e9},
    ) as house:
        client = house.client("/s/a/v1")
        said: list[Any] = [user("How many files are here?")]
        edited: list[Told] = []
        for number in range(2):
            told = await ask(client, *said, **TOOLS)
            edited.append(told)
            said += [told.changed(f'{{"command":"ls {number}"}}'), told.result("exit code 1")]
        replaced, kept = [await ask(client, *said, **TOOLS) for _ in range(2)]
        await ask(client, *said, kept.message, kept.result("a b"), **TOOLS)

        taught = edited if recipe == "hint_opsd" else [*edited, replaced, kept]

        async def learned() -> Any:
            account = (await house.http.get("/v1/status")).json()["account"]
            if not account or not account["trained"]:
                return False
            explained = [await house.runtime.log.explain(told.turn_id) for told in taught]
            return {str(told["fate"]) for told in explained} == {"trained"}

        await eventually(learned, timeout_s=120)
        account = (await house.http.get("/v1/status")).json()["account"]
        assert account["accepted"] == 5
        assert (await ask(client, user("Hi"))).text == "Hi."
