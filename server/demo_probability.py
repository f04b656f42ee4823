"""How likely the policy is to hit upon the reachable rules, computed exactly."""

from __future__ import annotations

import math

from tokenizers import Tokenizer

from agentrl.engine.base import Engine
from agentrl.nano import weights_dir
from agentrl.nano.corpus import call
from agentrl.nano.encoding import Encoder
from agentrl.text.renderer import load_renderer
from envs.house_rules import Family, HouseRules
from envs.terminal import Terminal

NUM_TASKS = 4
"""Tasks of each rule whose chances are averaged."""


async def reachable_probabilities(engine: Engine, seed: int, rules: HouseRules) -> dict[str, float]:
    """For each reachable rule the chance, at temperature 1, that the first reply is the right command."""
    renderer = load_renderer(weights_dir())
    encoder = Encoder(Tokenizer.from_file(str(weights_dir() / "tokenizer.json")))
    env = Terminal(seed=seed, rules=rules, shell="simulated")  # noqa: S604 - the name of a setting
    chances: dict[str, list[float]] = {
        rule.key: [] for rule in rules.rules if rule.family is Family.REACHABLE
    }
    index = 0
    while any(len(found) < NUM_TASKS for found in chances.values()):
        task = env.task("train", index)
        index += 1
        found = chances.get(task.data.operation.key)
        if found is None or len(found) >= NUM_TASKS:
            continue
        observation = await env.reset(task)
        prompt = renderer.prompt(observation.messages, observation.tools, None).ids
        rule = rules.rule(task.data.operation.key)
        assert rule is not None
        reply = encoder.reply(call(task.data.operation.line(rule.new, task.data.values)))
        scores = await engine.score([*prompt, *reply], len(prompt), version=0)
        found.append(math.exp(sum(scores.logprobs)))
    await env.aclose()
    return {key: sum(found) / len(found) for key, found in chances.items()}
