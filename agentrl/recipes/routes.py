"""Which losses a sample takes: (α_i, κ_i) of the algebra, one pair a sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteWeights:
    """Weights of a sample's losses; 0 keeps it out of a loss and its denominator. They become
    `TrainingSample.weights["kd"]` and `["rl"]`."""

    kd: float
    rl: float

    @property
    def trains(self) -> bool:
        """Whether anything is left to train; if not, the turn is rejected with `why_not`."""
        return self.kd != 0 or self.rl != 0


class Named(Protocol):
    """The route axis of a recipe."""

    @property
    def name(self) -> str: ...
    @property
    def params(self) -> dict[str, Any]: ...


class RecipeLike(Protocol):
    @property
    def route(self) -> Named: ...
    @property
    def uses_kd(self) -> bool: ...
    @property
    def uses_rl(self) -> bool: ...


def weights(recipe: RecipeLike, *, has_context: bool, advantage: float | None) -> RouteWeights:
    """The weights of one sample; a loss that the recipe does not have gets 0.

    Args:
        recipe: with its route axis.
        has_context: whether the teacher sees a block that the policy does not.
        advantage: the sample's advantage; None when there is nothing to learn from its reward (law 6).
    """
    routed = ROUTES[recipe.route.name](has_context, advantage, **recipe.route.params)
    return RouteWeights(kd=routed.kd if recipe.uses_kd else 0.0, rl=routed.rl if recipe.uses_rl else 0.0)


def why_not(recipe: RecipeLike) -> str:
    """The reason for rejecting a sample that no loss of the recipe takes."""
    missing = ["context"] * recipe.uses_kd + ["reward"] * recipe.uses_rl
    return "no " + " and no ".join(missing)


def everything(has_context: bool, advantage: float | None) -> RouteWeights:
    """κ = 1; α = 1 where there is an advantage. Without context the teacher still holds its own weights."""
    del has_context
    return RouteWeights(kd=1.0, rl=float(advantage is not None))


def has_context_(has_context: bool, advantage: float | None) -> RouteWeights:
    """κ = 1 where the teacher sees more than the policy; α = 1 where there is an advantage. SDPO, arXiv 2601.20802."""
    return RouteWeights(kd=float(has_context), rl=float(advantage is not None))


ROUTES: dict[str, Callable[..., RouteWeights]] = {"all": everything, "has_context": has_context_}
