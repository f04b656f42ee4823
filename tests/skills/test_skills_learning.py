"""From recorded episodes to a step of Skill-SD: the model that ships, its renderer, the learner's own process."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from skills_episodes import REFUSED, WORKED, episode, record, recovered, sampled_by_nano
from tokenizers import Tokenizer

from agentrl.config import Config, LearnConfig, write_config
from agentrl.learner.build import Builder
from agentrl.nano import weights_dir
from agentrl.recipes.recipe import load_recipe
from agentrl.store.episodes import Episode
from agentrl.store.learning_log import LearningLog
from agentrl.text.renderer import load_renderer
from server.inspect import explain_turn
from server.skills_loop import skill_loop, writes_skills
from skills.source import BankSource

SKILL = f"Skill: use-zorp\n{WORKED}"


def group(number: int, file: str) -> list[Episode]:
    """One episode that found the way and one that did not."""
    name = f"run~g{number}"
    found = recovered(file, session=f"{name}~0", task=f"task-{number}")
    lost = episode(
        f"Show the file {file}.",
        (f"$ cat {file}", REFUSED),
        ("I could not do it.", None),
        session=f"{name}~1",
        task=f"task-{number}",
        reward=0.0,
    )
    return [sampled_by_nano(one) for one in (found, lost)]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of Skill-SD in which a first group has become a skill and a second one waits for the learner."""
    overrides = {
        "rollout.group_size": 2,
        "batch.turns_per_step": 4,
        "batch.max_wait_s": 0.0,
        "limits.max_logprob_gap": 50.0,
    }
    config = Config(
        model="nano",
        run_dir=str(tmp_path / "run"),
        learn=LearnConfig(recipe="skill_sd", overrides=overrides, precision="fp32", nice=0, max_age_s=1e9),
    )
    path = Path(config.run_dir)
    asyncio.run(record(path, *group(0, "notes.txt")))
    write_config(config, path / "config.json")
    assert writes_skills(config)
    assert asyncio.run(skill_loop(path, config).once()) == 2
    asyncio.run(record(path, *group(1, "plan.md")))
    return path


def test_a_skill_written_from_episodes_stands_in_the_teachers_context(run_dir: Path) -> None:
    config = Config.model_validate_json((run_dir / "config.json").read_text())
    recipe = load_recipe(config.learn.recipe, config.learn.overrides)
    tokenizer = Tokenizer.from_file(str(weights_dir() / "tokenizer.json"))
    with (
        LearningLog(run_dir) as log,
        BankSource(run_dir, policy="default", settings=config.skills) as skills,
    ):
        log.ensure_base("default", str(weights_dir()))
        claims = log.claim(limit=8, needs=recipe.needs, max_age_s=1e9, group_size=2, group_timeout_s=1e9)
        builder = Builder(recipe=recipe, renderer=load_renderer(weights_dir()), max_len=2048, skills=skills)
        built = builder.build(claims, newest_version=0)

    shown = {}
    for sample in built.samples:
        (turn_id,) = sample.turn_ids
        view = sample.teacher
        texts = [] if view is None else [view.token_ids[a:b] for a, b in view.inserted_spans]
        shown[turn_id] = "".join(tokenizer.decode(list(ids), skip_special_tokens=True) for ids in texts)
    assert len(shown) == 8
    for turn_id, text in shown.items():
        # The first group is not taught with what it alone has taught.
        assert (SKILL in text) == turn_id.startswith("run~g1"), turn_id


def until(process: subprocess.Popen[str], event: str) -> Iterator[dict[str, object]]:
    assert process.stdout is not None
    for line in process.stdout:
        found = json.loads(line)
        yield found
        if found["event"] == event:
            return
    pytest.fail(f"the learner ended without {event}")


def test_the_learners_process_takes_a_step_with_it_and_explain_names_it(run_dir: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "server.learner_main", str(run_dir)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        seen = [*until(process, "version"), *until(process, "version")]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.communicate()
    steps = [item["metrics"] for item in seen if item["event"] == "step"]
    assert len(steps) == 2
    assert all(isinstance(step, dict) and step["loss/rl"] is not None for step in steps)
    assert any(isinstance(step, dict) and step.get("loss/kd", 0.0) > 0 for step in steps)

    told = asyncio.run(explain_turn(run_dir, "run~g1~0-default-0"))
    (taught,) = told["skills"]["taught_with"]
    assert (taught["name"], taught["body"]) == ("use-zorp", WORKED)
    assert told["steps"][0]["version"] in (1, 2)
    first = asyncio.run(explain_turn(run_dir, "run~g0~0-default-0"))
    assert first["skills"]["taught_with"] == []
    assert [one["name"] for one in first["skills"]["written_from"]] == ["use-zorp"]


def test_a_bank_that_cannot_be_opened_is_tried_again_and_other_recipes_need_none(run_dir: Path) -> None:
    from server.learner_main import main

    (run_dir / "skills" / "skills.db").write_text("no database, but long enough to be read as if it were one")
    assert main([str(run_dir)]) == 1

    config = Config.model_validate_json((run_dir / "config.json").read_text())
    plain = config.model_copy(update={"learn": LearnConfig(recipe="hint_opsd")})
    assert not writes_skills(plain)
    assert writes_skills(
        plain.model_copy(update={"skills": config.skills.model_copy(update={"write": "always"})})
    )
    assert main([]) == 2
