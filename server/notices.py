"""What `agentrl serve` says besides its address: where settings do less than one who gave them may think."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from agentrl.config import Config
from agentrl.errors import StoreError
from agentrl.recipes.recipe import load_recipe, preset_names
from agentrl.store.database import LEARNING_NAME
from agentrl.store.learning_log import LearningLog
from server.typed import command

NANO: Final = {"optim.lr": 7e-4, "batch.turns_per_step": 16}
"""What a model of two million parameters learns at, the recipes' own rates are for large ones; fewer turns of a step
garble it at that rate."""
NANO_PERSONAL: Final = {"optim.lr": 4e-3, "optim.eps": 1e-2}
"""The same for the recipe `personal`, chosen with dev users of `bench.personalisation`: its steps hold few turns. A
wish changes few of a note's ids, and AdamW makes the noise of the others as large as the lesson: so its eps is
large."""


def notices(config: Config) -> list[str]:
    """A sentence each, with the remedy. The settings are those of a server that has started."""
    found = (_slow(config), _not_learned(config), _other_recipe(config))
    return [text for text in found if text]


def _slow(config: Config) -> str:
    """Nobody chose how fast the model that ships learns."""
    learn = config.learn
    if config.model != "nano" or not learn.enabled or {"optim.lr", "optim"} & learn.overrides.keys():
        return ""
    rate = load_recipe(learn.recipe, learn.overrides).optim.lr
    if rate > NANO["optim.lr"] / 10:
        return ""
    who, known = ("bench-personalisation", NANO_PERSONAL) if learn.recipe == "personal" else ("demo", NANO)
    sets = " ".join(f"--set learn.overrides.{name}={value:g}" for name, value in known.items())
    return (
        f"nano learns at optim.lr = {rate:g}, the rate of recipe {learn.recipe!r} for large models: little will be "
        f"seen to move. `make {who}` teaches it with {sets}"
    )


def _other_recipe(config: Config) -> str:
    """A run's folder goes on with the settings of its newest start."""
    folder = Path(config.run_dir)
    if not config.learn.enabled or not (folder / LEARNING_NAME).is_file():
        return ""
    try:
        with LearningLog(folder, read_only=True) as log:
            before = log.last_recipe(config.policy)
    except StoreError:
        # The learner and `agentrl store verify` say what is wrong with the file; serving goes on without it.
        return ""
    now = load_recipe(config.learn.recipe, config.learn.overrides).name
    if before in (None, now):
        return ""
    again = f"; `--recipe {before}` goes on as before" if before in preset_names() else ""
    return (
        f"so far this run was taught by recipe {before!r}, from here on by {now!r}: settings are given at each start"
        f"{again}"
    )


def _not_learned(config: Config) -> str:
    """Lessons are shown until they are learned, and nothing is learned here."""
    if not config.learn.show_lessons or config.learn.enabled:
        return ""
    which = (
        "prompts begin with lessons that were approved and with what users say in words, and these stay there"
        if (Path(config.run_dir) / LEARNING_NAME).is_file()
        else "no lesson stands in a prompt, for no learner has worked in this run"
    )
    return (
        f"learn.show_lessons without a learner: {which}. Start it without --no-learn, or beside it "
        f"{command('learner', Path(config.run_dir))}"
    )
