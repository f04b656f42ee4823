"""docs/new_method.md does what it says."""

import math
import re
from pathlib import Path

import pytest
from presets_cases import MU, PI, Q, Sampled, on_f

from agentrl.errors import ConfigError
from agentrl.recipes.recipe import load_recipe
from agentrl.recipes.schedules import Schedules

PAGE = Path(__file__).parents[2] / "docs" / "new_method.md"


@pytest.fixture
def method(tmp_path: Path) -> Path:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    path = tmp_path / "sharpen.toml"
    path.write_text(block)
    return path


def test_the_method_of_the_tutorial_has_the_loss_that_its_words_say(method: Path) -> None:
    recipe = load_recipe(method, {"limits.max_logprob_gap": 9.0})
    result = on_f(recipe, [Sampled(ids=(1, 0), reward=1.0)])

    # Every position has the same distributions, so the first of both is the half that is kept, with weight 2.
    fkl = sum(q * math.log(q / p) for q, p in zip(Q, PI, strict=True))
    ratios = [PI[i] / MU[i] for i in (1, 0)]
    ppo = -sum(min(r, min(max(r, 0.8), 1.2)) for r in ratios) / 2
    assert result.loss == pytest.approx((2 * fkl + 0 * fkl) / 2 + 0.1 * ppo)


def test_its_divergence_switches_after_two_hundred_steps(method: Path) -> None:
    schedules = Schedules(load_recipe(method))
    assert schedules.current().divergence.name == "fkl"
    schedules.step = 200
    assert schedules.current().divergence.name == "rkl"


def test_without_its_correction_it_is_refused_as_the_page_says(method: Path) -> None:
    with pytest.raises(ConfigError, match="does not correct for turns that an older policy sampled"):
        load_recipe(method, {"offpolicy": "none"})
