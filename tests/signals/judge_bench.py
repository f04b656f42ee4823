"""A judge behind a scripted endpoint, and turns on which the rules are silent or speak."""

from typing import Any

from judge_endpoint import Endpoint
from judge_turns import followed, make_turn, user

from agentrl.config import load_config
from agentrl.signals.llm import LlmJudge, RulesFirst
from agentrl.signals.rules import RuleJudge
from server.judges import Bench, make_bench

TURN = make_turn("Ok.")
SILENT = followed(user("Hm. My aunt would read a list in order of age."))
"""Words on which the rules are silent."""
CORRECTED = followed(user("No, that's wrong. Use a table instead."))


class Pauses:
    """How long was waited for, without waiting."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def made(served: Endpoint, pauses: Pauses | None = None, **settings: Any) -> Bench:
    given = {f"judge__{name}": value for name, value in settings.items()}
    config = load_config(judge__backend="openai", judge__base_url=served.base_url, judge__model="m", **given)
    bench = make_bench(config)
    if pauses is not None:
        assert bench.asker is not None
        assert bench.meter is not None
        model = LlmJudge(bench.asker, config.judge, meter=bench.meter, pause=pauses)
        bench = Bench(
            judge=RulesFirst(RuleJudge(), model, when=config.judge.when), meter=bench.meter, asker=bench.asker
        )
    return bench
