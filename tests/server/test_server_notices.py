"""What a server says when it has started, where its settings do less than one may think."""

from pathlib import Path

import pytest
from server_house import serving

from agentrl.config import Config, load_config
from agentrl.store.learning_log import LearningLog
from bench import personalisation
from server.demo import OVERRIDES
from server.notices import NANO, NANO_PERSONAL, notices


def config(*overrides: str, **settings: object) -> Config:
    return load_config(None, overrides, **settings)


def test_who_serves_nano_at_the_rate_of_large_models_is_told_the_demos() -> None:
    [said] = notices(config())

    assert said.startswith("nano learns at optim.lr = 1e-05, the rate of recipe 'hint_opsd' for large models")
    sets = "--set learn.overrides.optim.lr=0.0007 --set learn.overrides.batch.turns_per_step=16"
    assert said.endswith(sets)
    assert {name: OVERRIDES[name] for name in NANO} == NANO == {"optim.lr": 7e-4, "batch.turns_per_step": 16}


def test_who_teaches_nano_one_users_wishes_is_told_the_rate_that_suits_steps_of_few_turns() -> None:
    [said] = notices(config("learn.recipe=personal"))

    sets = "--set learn.overrides.optim.lr=0.004 --set learn.overrides.optim.eps=0.01"
    assert said.endswith(f"`make bench-personalisation` teaches it with {sets}")
    assert personalisation.OVERRIDES == NANO_PERSONAL


@pytest.mark.parametrize(
    "overrides",
    [
        ("learn.overrides.optim.lr=1e-5",),
        ("learn.overrides.optim={lr=1e-5}",),
        ("learn.enabled=false",),
        ("model=models/Qwen3-0.6B",),
    ],
)
def test_a_rate_that_was_chosen_or_suits_is_not_spoken_of(overrides: tuple[str, ...]) -> None:
    assert notices(config(*overrides)) == []


async def test_who_shows_lessons_without_a_learner_is_told_what_stands_in_prompts(tmp_path: Path) -> None:
    async with serving(tmp_path, [], learn__show_lessons=True) as house:
        [fresh] = notices(house.runtime.config)
        with LearningLog(tmp_path) as log:
            log.ensure_base("default", "base")
        [learned] = notices(house.runtime.config)

    assert "no lesson stands in a prompt, for no learner has worked in this run" in fresh
    assert "prompts begin with lessons that were approved and with what users say in words" in learned
    assert fresh.endswith(f"`agentrl learner --run-dir {tmp_path}`")


async def test_who_goes_on_by_another_recipe_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path, []):
        with LearningLog(tmp_path) as log:
            log.ensure_base("default", "base")
            log.record_step([], recipe="openclaw_rl", seed=0, metrics={}, version_parent=0, policy="default")
    rate = "learn.overrides.optim.lr=1e-5"
    [other] = notices(config(rate, run_dir=str(tmp_path)))

    assert other.startswith("so far this run was taught by recipe 'openclaw_rl', from here on by 'hint_opsd'")
    assert other.endswith("`--recipe openclaw_rl` goes on as before")
    assert notices(config(rate, "learn.recipe=openclaw_rl", run_dir=str(tmp_path))) == []
    assert notices(config("learn.enabled=false", run_dir=str(tmp_path))) == []
    assert notices(config(rate, "policy=mine", run_dir=str(tmp_path))) == [], "another line was never taught"

    (tmp_path / "learning.db").write_bytes(b"SQLite format 3\0" + b"\0" * 5000)
    assert notices(config(rate, run_dir=str(tmp_path))) == []


def test_lessons_that_are_learned_need_no_word() -> None:
    assert notices(config("learn.show_lessons=true", "learn.overrides.optim.lr=1e-5")) == []
