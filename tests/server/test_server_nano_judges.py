"""The model that ships judges turns over the door of the server that serves it, its answers bound to the schema."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from agentrl.config import load_config
from agentrl.nano import judging
from server.auth import judge_key
from server.demo_judges import SETTINGS
from server.judges import make_bench
from server.run_folder import run_secret
from server.runtime import Runtime

NUM_CASES = 16


async def test_nano_says_of_a_refused_command_that_it_was_wrong_and_what_to_use(tmp_path: Path) -> None:
    config = load_config(
        model="nano",
        run_dir=str(tmp_path),
        server__port=0,
        learn__enabled=False,
        engine__max_len=1024,
        engine__precision="fp32",
        **SETTINGS,
    )
    rng = random.Random(11)
    cases = [judging.directed(rng, held_out=True) for _ in range(NUM_CASES)]
    async with Runtime(config) as runtime:
        bench = make_bench(
            config,
            own_url=lambda: runtime.base_url + "/v1",
            own_key=judge_key(run_secret(tmp_path)),
            with_rules=False,
        )
        try:
            said = await asyncio.gather(*(bench.judge.judge(*judging.records(case)) for case in cases))
        finally:
            await bench.aclose()
        counts = await runtime.log.counts()

    assert sum(one.reward == -1 for one in said) >= 0.8 * NUM_CASES
    assert (
        sum(one.hint == case.answer["hint"] for one, case in zip(said, cases, strict=True)) >= 0.7 * NUM_CASES
    )
    assert bench.meter is not None
    assert bench.meter.counts["requests"] == NUM_CASES
    assert counts["turns"] == counts["turns.off"] == NUM_CASES
