"""The hour of a run's judge goes on where the server was started anew."""

import json
from pathlib import Path

from server_house import House, eventually, says, serving

from agentrl.types import Sampling

VERDICT = {"evidence": "in order of age", "kind": "correction", "fault": "agent", "reward": -1, "hint": None}
SILENT = "Hm. My aunt would read a list in order of age."
"""Words of a user on which the rules are silent."""


def reply(prompt: tuple[int, ...], sampling: Sampling) -> list[int]:
    return says("Ok." if sampling.grammar is None else json.dumps(VERDICT))


async def talk(house: House, session: str) -> None:
    """A conversation whose first turn the judge is asked about, until it has been judged."""
    first = {"role": "user", "content": f"List the cousins of {session}."}
    await house.ask(first, path=f"/s/{session}")
    more = ({"role": "assistant", "content": "Ok."}, {"role": "user", "content": SILENT})
    await house.ask(first, *more, path=f"/s/{session}")
    turn = (await house.turns(session))[0]

    async def judged() -> bool:
        return bool((await house.runtime.log.explain(turn.id))["judgements"])

    await eventually(judged)


async def test_calls_of_before_a_restart_count_against_the_hour_and_then_the_rules_judge_alone(
    tmp_path: Path,
) -> None:
    settings = {"judge__backend": "self", "judge__max_calls_per_hour": 2}
    hours, overs = [], []
    for number in range(2):
        async with serving(tmp_path, reply, **settings) as house:
            for name in ("a", "b")[: 1 + number]:
                await talk(house, f"{name}{number}")
            judge = (await house.http.get("/v1/status")).json()["judge"]
            hours.append(judge["hour"]["calls"])
            overs.append(judge["counts"].get("over_budget", 0))

    # one call, and after the restart one more of the two that are asked for
    assert (hours, overs) == ([1, 2], [0, 1])
