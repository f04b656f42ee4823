"""Every preset that can run learns from a recorded log: turns in, a step taken, a version served, all accounted for."""

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learner_models import write_model
from learner_run import NOW, Learner, Run, write_base

from agentrl.learner.external_teacher import score_turns
from agentrl.recipes.recipe import Recipe, load_recipe, preset_names, read_recipe
from agentrl.store.signal_log import SignalLog
from agentrl.types import Signal, SignalSource, Skill, Turn

RUNNABLE = [name for name in preset_names() if not read_recipe(name).lacks]
REWARDS = (1.0, 0.0, 0.0, 1.0)


class OneSkill:
    """A skill library with one skill in it."""

    def begin(self) -> None:
        """The same skill in every step."""

    def skills(self, turn: Turn) -> tuple[Skill, ...]:
        return (Skill(name="letters", description="how to answer", body="answer with letters"),)


def overrides_of(recipe: Recipe, teacher: Path, folder: Path) -> dict[str, Any]:
    """What a user adds to a preset so that it runs on a log of made-up log-probs, with files where it reads some."""
    lines = [
        {"messages": [{"role": "user", "content": f"file {i}"}], "reply": "so", "reward": 1.0}
        for i in range(4)
    ]
    if recipe.uses_pairs or recipe.name == "redi":
        lines = [
            {"messages": [{"role": "user", "content": f"file {i}"}], "chosen": "so", "rejected": "no"}
            for i in range(4)
        ]
    file = folder / "answers.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found: dict[str, Any] = {"limits.max_logprob_gap": 50.0, "batch.turns_per_step": 4}
    if recipe.group_size > 1:
        found["rollout.group_size"] = 2
    if "path" in recipe.rollout.params:
        found["rollout.path"] = str(file)
    if recipe.transform.params.get("source") == "teacher_trace":
        found["transform.path"] = str(file)
    if any("soup" in item.params for item in recipe.regularisers):
        souped = [
            item.model_dump() | ({"soup": str(teacher)} if item.params.get("soup") else {})
            for item in recipe.regularisers
        ]
        found["regularisers"] = souped
    if recipe.transform.generates and "max_tokens" in recipe.transform.params:
        found["transform.max_tokens"] = 4
    if "max_entropy" in recipe.advantage.params:
        found["advantage.max_entropy"] = 10.0  # a random model is nearly uniform
    if "token_weight.reference" in recipe.references:
        found["token_weight.reference"] = str(teacher)
    if recipe.teacher.name == "external":
        found["teacher.path"] = str(teacher)
    if recipe.teacher.name == "cached":
        found |= {"teacher.path": str(folder / "scores.db"), "teacher.model": str(teacher)}
    return found


def recorded(run: Run) -> list[Turn]:
    """Two tasks of two episodes each, one of them a success, with every kind of signal on each turn."""
    turns = [
        run.turn(f"task {i // 2}", "Confidence: 90%" if i % 2 else "abc", session=f"run1~g{i // 2}~{i % 2}")
        for i in range(4)
    ]
    # Raw log-probs as a sampler gives them: without, every method with a ratio would refuse the turns.
    turns = [
        replace(turn, completion=replace(turn.completion, raw_logprobs=turn.completion.logprobs))
        for turn in turns
    ]
    signals = [
        signal
        for turn, reward in zip(turns, REWARDS, strict=True)
        for signal in (
            Signal(turn_id=turn.id, source=SignalSource.ENVIRONMENT, reward=reward, created_at=NOW),
            Signal(
                turn_id=turn.id,
                source=SignalSource.RULE,
                hint="say xyz",
                preferred="xyz",
                evidence="- [ ] short",
                created_at=NOW,
            ),
        )
    ]
    asyncio.run(run._log(turns, signals))
    asyncio.run(ended(run, turns))
    return turns


async def ended(run: Run, turns: list[Turn]) -> None:
    async with await SignalLog.open(run.path) as log:
        assert len(await log.turns_of(turns[0].session, "default")) == 1


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_preset_learns_from_a_recorded_log(name: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    other = write_base(tmp_path / "other")
    write_model(other, vocab_size=260, seed=5)
    plain = load_recipe(name)
    changes = overrides_of(plain, other, tmp_path)
    settings = {key.replace(".", "__"): value for key, value in changes.items()}
    run = Run(tmp_path / "run", base, recipe=name, **settings)
    turns = recorded(run)
    if plain.teacher.name == "cached":
        score_turns(tmp_path / "scores.db", turns, teacher_path=other, policy_path=base, precision="fp32")

    with Learner(run) as learner:
        if plain.context.name == "skill":
            object.__setattr__(learner.loop._builder, "skills", OneSkill())
        before = {key: value.detach().clone() for key, value in learner.trainer.policy.trained.items()}
        learner.loop.start()
        learner.work()
        steps = [event for event in learner.journal.of("step") if event["step"] is not None]
        after = learner.trainer.policy.trained
        assert steps, learner.journal.events
        assert all(math.isfinite(value) for value in steps[0]["metrics"].values())  # type: ignore[attr-defined]
        assert any(not torch.equal(before[key], after[key]) for key in before)
        assert learner.log.serving().number > 0
    accepted, trained, rejected, pending = run.account()
    assert accepted == 4
    assert trained + sum(rejected.values()) + sum(pending.values()) == 4
