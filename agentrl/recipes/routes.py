"""Which losses a sample takes, and how much of each: (α_i, κ_i) of the algebra, one pair a sample.

A route looks at records alone. Weights that need the model's own log-probs (`ppl_softmax`) stand in
`agentrl.losses.whole_routes`; here they change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteWeights:
    """Weights of a sample's losses; 0 keeps it out of a loss and its denominator. They become
    `TrainingSample.weights["kd"]` and `["rl"]`."""

    kd: float
    rl: float
    held: bool = False
    """Whether the distillation only keeps what the teacher would say too; the sample's source is then "held"."""

    def only(self, loss: Literal["kd", "rl"] | None) -> RouteWeights:
        """With the other loss at 0; None keeps both."""
        return replace(self, kd=self.kd if loss != "rl" else 0.0, rl=self.rl if loss != "kd" else 0.0)

    @property
    def trains(self) -> bool:
        """Whether anything is left to train; if not, the turn is rejected with `why_not`."""
        return self.kd != 0 or self.rl != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a route may look at."""

    has_context: bool = False
    """Whether the teacher sees a block that the policy does not."""
    advantage: float | None = None
    """None when there is nothing to learn from the sample's reward (law 6)."""
    reward: float | None = None
    """None where the sample was not judged."""
    own_reward: float | None = None
    """None where the turn itself was not judged: `reward` may then be its episode's."""
    group_rewards: tuple[float, ...] = ()
    """Rewards of the group's judged episodes, the sample's own with them."""

    @property
    def rl(self) -> float:
        """1 where there is an advantage, else 0."""
        return float(self.advantage is not None)

    def is_right(self, threshold: float) -> bool | None:
        """None where nobody knows: a turn that was not judged is neither right nor wrong (law 6)."""
        return None if self.reward is None else self.reward >= threshold

    def pass_rate(self, threshold: float) -> float | None:
        """The share of the group's judged episodes that are right; None without any."""
        if not self.group_rewards:
            return None
        return sum(reward >= threshold for reward in self.group_rewards) / len(self.group_rewards)


class Named(Protocol):
    """The route axis of a recipe."""

    @property
    def name(self) -> str: ...
    @property
    def params(self) -> dict[str, Any]: ...
    @property
    def parts(self) -> Sequence[Named]:
        """The routes that it is made of; itself where it is one."""
        ...


class RecipeLike(Protocol):
    @property
    def route(self) -> Named: ...
    @property
    def uses_kd(self) -> bool: ...
    @property
    def uses_rl(self) -> bool: ...
    @property
    def uses_pairs(self) -> bool: ...
    @property
    def kd_needs_reward(self) -> bool: ...


BY_CONTEXT = frozenset({"has_context", "context_or_held", "wrong_with_context"})
"""Routes that ask whether the teacher sees more than the policy."""
NO_REWARD = frozenset({"all", "has_context", "context_or_held"})
"""Routes that send what was not judged somewhere too."""


def weights(recipe: RecipeLike, case: Case) -> RouteWeights:
    """The weights of one sample; a loss that the recipe does not have gets 0.

    Args:
        recipe: with its route axis.
        case: what is known of the sample.
    """
    if recipe.uses_pairs:
        return RouteWeights(kd=0.0, rl=1.0)
    routed = _routed(recipe.route, case)
    rl = routed.rl if recipe.uses_rl else 0.0
    distils = recipe.uses_kd and not (recipe.kd_needs_reward and rl == 0)
    return replace(routed, kd=routed.kd if distils else 0.0, rl=rl)


def why_not(recipe: RecipeLike, case: Case) -> str:
    """The reason for rejecting a sample that no loss of the recipe takes."""
    names = {route.name for route in recipe.route.parts}
    missing = ["context"] * (not case.has_context and bool(names & BY_CONTEXT) and not recipe.kd_needs_reward)
    no_reward = recipe.uses_rl and case.advantage is None
    missing += ["reward"] * (no_reward or (case.reward is None and bool(names - NO_REWARD)))
    return "no " + " and no ".join(missing or ["weight"])


def everything(case: Case) -> RouteWeights:
    """κ = 1; α = 1 where there is an advantage. Without context the teacher still holds its own weights."""
    return RouteWeights(kd=1.0, rl=case.rl)


def has_context(case: Case) -> RouteWeights:
    """κ = 1 where the teacher sees more than the policy; α = 1 where there is an advantage. SDPO, arXiv 2601.20802."""
    return RouteWeights(kd=float(case.has_context), rl=case.rl)


def context_or_held(
    case: Case, *, weight: float, threshold: float, min_logprob: float, rehearsed: int
) -> RouteWeights:
    """κ = 1 where the teacher sees more than the policy, `weight` where it does not and the turn itself was right;
    α = 1 where there is an advantage. `min_logprob` is read with the loss (`agentrl.losses.positions`), `rehearsed` by
    the learner."""
    del min_logprob, rehearsed
    is_right = case.own_reward is not None and case.own_reward >= threshold
    if case.has_context or not is_right:
        return has_context(case)
    return RouteWeights(kd=weight, rl=case.rl, held=weight > 0)


def wrong_with_context(case: Case, *, threshold: float) -> RouteWeights:
    """κ = (1−c)·m, α = 1−κ where there is an advantage; c right, m the teacher sees more. SRPO, arXiv 2604.02288."""
    if case.is_right(threshold) is False and case.has_context:
        return RouteWeights(kd=1.0, rl=0.0)
    return RouteWeights(kd=0.0, rl=case.rl)


def correct_ce_wrong_kd(case: Case, *, threshold: float) -> RouteWeights:
    """α = 1 where right, κ = 1 where wrong, neither where not judged. SCOPE, arXiv 2604.10688."""
    is_right = case.is_right(threshold)
    return RouteWeights(kd=float(is_right is False), rl=case.rl if is_right else 0.0)


def reward_at_least(case: Case, *, threshold: float) -> RouteWeights:
    """κ = 1 where reward ≥ threshold; α = 1 where there is an advantage. KEPO, arXiv 2602.00400."""
    return RouteWeights(kd=float(case.is_right(threshold) is True), rl=case.rl)


def wrong_only(case: Case, *, threshold: float) -> RouteWeights:
    """κ = 1 where wrong; α = 1 where there is an advantage. KDRL's mask of responses, arXiv 2506.02208."""
    return RouteWeights(kd=float(case.is_right(threshold) is False), rl=case.rl)


def no_correct_in_group(case: Case, *, threshold: float) -> RouteWeights:
    """κ = 1 in a judged group without anything right; α = 1 where there is an advantage. KDRL's mask of groups."""
    return RouteWeights(kd=float(case.pass_rate(threshold) == 0), rl=case.rl)


def pass_rate(case: Case, *, a: float, b: float, threshold: float) -> RouteWeights:
    """κ = p^a·(1−p)^b, largest at p = a/(a+b); α the same where there is an advantage. PACED, arXiv 2603.11178.

    A group of which nothing is known gets 0.
    """
    p = case.pass_rate(threshold)
    weight = 0.0 if p is None else p**a * (1 - p) ** b
    return RouteWeights(kd=weight, rl=weight * case.rl)


def gauss(case: Case, *, centre: float, width: float, threshold: float) -> RouteWeights:
    """κ = exp(−(p−centre)²/(2·width²)); α the same where there is an advantage. FG-ExPO's weight of a prompt."""
    p = case.pass_rate(threshold)
    weight = 0.0 if p is None else math.exp(-0.5 * ((p - centre) / width) ** 2)
    return RouteWeights(kd=weight, rl=weight * case.rl)


def reward_softmax(case: Case, *, tau: float) -> RouteWeights:
    """κ = n·e^{r/τ} / Σ_j e^{r_j/τ} over the group's n judged episodes, so their mean is 1; α the same. 0 where not
    judged."""
    if case.reward is None or not case.group_rewards:
        return RouteWeights(kd=0.0, rl=0.0)
    top = max(case.group_rewards)
    total = math.fsum(math.exp((other - top) / tau) for other in case.group_rewards)
    weight = len(case.group_rewards) * math.exp((case.reward - top) / tau) / total
    return RouteWeights(kd=weight, rl=weight * case.rl)


def product(case: Case, *, routes: Sequence[Named]) -> RouteWeights:
    """Both weights multiplied over several routes."""
    found = [_routed(route, case) for route in routes]
    return RouteWeights(
        kd=math.prod(item.kd for item in found),
        rl=math.prod(item.rl for item in found),
        held=any(item.held for item in found),
    )


ROUTES: dict[str, Callable[..., RouteWeights]] = {
    "all": everything,
    "has_context": has_context,
    "context_or_held": context_or_held,
    "wrong_with_context": wrong_with_context,
    "correct_ce_wrong_kd": correct_ce_wrong_kd,
    "reward_at_least": reward_at_least,
    "wrong_only": wrong_only,
    "no_correct_in_group": no_correct_in_group,
    "pass_rate": pass_rate,
    "gauss": gauss,
    "reward_softmax": reward_softmax,
    "product": product,
}


def _routed(route: Named, case: Case) -> RouteWeights:
    known = ROUTES.get(route.name)
    # what weighs by the model's log-probs does so later, and keeps every sample until then
    return everything(case) if known is None else known(case, **route.params)
