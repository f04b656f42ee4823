"""What holds of every preset with a teacher: identities I32 and, where teacher and policy are one, I33."""

from collections.abc import Callable, Sequence
from math import log

import pytest
import torch
from presets_cases import MU, PI, Q, Sampled, check, on_f

from agentrl.losses.batch import LossBatch
from agentrl.losses.positions import Positions
from agentrl.recipes import axes
from agentrl.recipes.recipe import Recipe, load_recipe, preset_names, read_recipe


def holds_still(recipe: Recipe) -> bool:
    """Whether there is a teacher, and its weights are not the ones that learn."""
    return recipe.uses_kd and not isinstance(recipe.teacher, axes.NoTeacher | axes.JointTeacher)


def batch_on_f(recipe: Recipe, teacher: Sequence[float]) -> tuple[LossBatch, torch.Tensor]:
    eye = torch.eye(3, dtype=torch.float64)
    states = (
        torch.tensor([log(q) for q in teacher], dtype=torch.float64).expand(3, 3).clone().requires_grad_()
    )
    given = {
        "hidden": torch.tensor([log(p) for p in PI], dtype=torch.float64)
        .expand(3, 3)
        .clone()
        .requires_grad_()
    }
    batch = LossBatch(
        hidden=given["hidden"],
        head=eye,
        token_ids=torch.arange(3),
        sequence=torch.arange(3),
        teacher_hidden=states,
        teacher_head=eye,
        ref_hidden=given["hidden"].detach(),
        ref_head=eye,
        behavior_logprobs=torch.tensor([log(m) for m in MU], dtype=torch.float64),
        advantages=torch.ones(3, dtype=torch.float64),
    )
    return batch, states


@pytest.mark.parametrize("name", preset_names())
def test_a_context_changes_what_the_teacher_says_and_nothing_of_the_policy(name: str) -> None:
    """I32: log π, H(π), μ and so ρ stay; log q moves; no gradient reaches the teacher."""
    recipe = read_recipe(name)
    if not holds_still(recipe):
        return
    first, states = batch_on_f(recipe, Q)
    second, _ = batch_on_f(recipe, (0.3, 0.3, 0.4))
    one, two = (Positions.of(recipe, batch, None) for batch in (first, second))
    for feature in ("logprob", "entropy"):
        assert torch.equal(one.out[feature], two.out[feature])
    assert torch.equal(one.behavior_logprobs, two.behavior_logprobs)
    assert not torch.allclose(one.out["teacher_logprob"], two.out["teacher_logprob"])
    total = sum(value.sum() for value in one.out.values() if value.requires_grad)
    assert isinstance(total, torch.Tensor)
    (reached,) = torch.autograd.grad(total, states, allow_unused=True)
    assert reached is None or not bool(reached.any())


DISTILS: dict[str, Callable[[], Recipe]] = {
    "hint_opsd": lambda: load_recipe("hint_opsd"),
    "openclaw_rl_hint": lambda: load_recipe("openclaw_rl_hint"),
    "skill_sd": lambda: load_recipe("skill_sd", {"mix": "kd", "advantage": "none", "offpolicy": "none"}),
    "sdpo": lambda: load_recipe("sdpo"),
    "paced": lambda: load_recipe("paced", {"route": "has_context"}),
}


@pytest.mark.parametrize("name", DISTILS)
def test_a_teacher_that_is_the_policy_teaches_nothing(name: str) -> None:
    """I33: without a context and with live weights ℓ, the divergences and their gradients are 0."""
    found = on_f(DISTILS[name](), [Sampled(ids=(0, 1, 2))], teacher=PI)
    check(found, 0.0, [[0.0] * 3] * 3)
