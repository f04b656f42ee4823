"""What the objective is given and gives back, and the whole batch's denominators.

The recipe comes in as a protocol: losses stand below recipes and know options only by name and arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from agentrl.losses.estimators import SAMPLED
from agentrl.losses.terms import Terms
from agentrl.types import SampleSource, TrainingSample

SOURCES: tuple[SampleSource, ...] = get_args(SampleSource)
"""Index = what `LossBatch.source` holds."""
REHEARSAL = SOURCES.index("rehearsal")
HELD = SOURCES.index("held")
OWN = torch.tensor([SOURCES.index("sampled"), SOURCES.index("replay"), HELD, SOURCES.index("practice")])
"""What the policy sampled itself, or an older one, on the plain prompt."""


class Named(Protocol):
    """An option of an axis: a registered name and the keyword arguments of its function."""

    @property
    def name(self) -> str: ...
    @property
    def params(self) -> dict[str, Any]: ...


class LimitsLike(Protocol):
    @property
    def max_logprob_gap(self) -> float: ...


class RecipeLike(Protocol):
    """What the objective reads of a recipe (`agentrl.recipes.recipe.Recipe`)."""

    @property
    def target(self) -> Named: ...
    @property
    def divergence(self) -> Named: ...
    @property
    def estimator(self) -> Named: ...
    @property
    def token_weight(self) -> Named: ...
    @property
    def mix(self) -> Named: ...
    @property
    def offpolicy(self) -> Named: ...
    @property
    def regularisers(self) -> Sequence[Named]: ...
    @property
    def aggregate(self) -> Named: ...
    @property
    def limits(self) -> LimitsLike: ...
    @property
    def uses_kd(self) -> bool: ...
    @property
    def uses_rl(self) -> bool: ...
    @property
    def uses_pairs(self) -> bool: ...
    @property
    def features(self) -> frozenset[str]: ...
    @property
    def whole_batch_options(self) -> Sequence[Named]: ...
    @property
    def hold_logprob(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LossBatch:
    """N trained positions of whole sequences. Position t holds the hidden state that predicts `token_ids[t]`.

    Raises ValueError when a stream's length is not N (law 1): both lengths are in the message.
    """

    hidden: Tensor
    """[N, H] the policy's final hidden states (after the last norm), with gradient."""
    head: Tensor
    """[V, H] the policy's output matrix."""
    token_ids: Tensor
    """[N] int64, the sampled ids."""
    sequence: Tensor
    """[N] int64, which sequence of the micro batch a position belongs to; any non-negative labels."""
    teacher_hidden: Tensor | None = None
    """[N, H'] the teacher's hidden states at the same ids behind its own context. Detached by the objective. Rows of
    kd weight 0 may hold anything finite."""
    teacher_head: Tensor | None = None
    """[V, H'] the teacher's output matrix. Detached by the objective."""
    teacher_logprobs: Tensor | None = None
    """[N] log q of the sampled ids, where only those are known (a cached teacher)."""
    ref_hidden: Tensor | None = None
    """[N, H''] hidden states of version 0 on the plain prompt, for kl_ref."""
    ref_head: Tensor | None = None
    """[V, H'']"""
    behavior_logprobs: Tensor | None = None
    """[N] raw log-probs of the sampler (temperature 1, no filter)."""
    num_allowed: Tensor | None = None
    """[N] int64 support sizes; 1 marks a forced id (law 7)."""
    advantages: Tensor | None = None
    """[N] reward advantages."""
    kd_weights: Tensor | None = None
    """[N] route weight of the distillation loss; 0 = outside mask and denominator; None = 1 everywhere."""
    rl_weights: Tensor | None = None
    """[N] route weight of the reward loss; 0 = outside mask and denominator; None = 1 everywhere."""
    kd_scale: Tensor | None = None
    """[N] factor of the distillation loss that leaves the denominator as it is; None = 1 everywhere."""
    rl_scale: Tensor | None = None
    """[N] factor of the reward loss that leaves the denominator as it is; None = 1 everywhere."""
    coupled: Tensor | None = None
    """[N] ∂L/∂log π of a loss that couples positions (`agentrl.losses.whole`)."""
    coupled_loss: Tensor | None = None
    """[N] each position's share of the value of that loss."""
    source: Tensor | None = None
    """[N] int64, how a position's sequence came to be: index in SOURCES; None = all sampled by the policy."""
    rewards: Tensor | None = None
    """[N] reward of a position's sequence, nan where not judged."""
    penalty_scale: Tensor | None = None
    """[N] factor of the regulariser `kl_ref_weighted`; None = 1 everywhere."""
    mark_weights: Tensor | None = None
    """[N] weight of `last_token_mse` where an episode's last trained id is predicted, elsewhere 0."""
    shared: Mapping[str, float] = field(default_factory=dict)
    """Numbers of the whole step that an option has found."""

    def __post_init__(self) -> None:
        rows = self.hidden.shape[0]
        for name in (
            "token_ids", "sequence", "teacher_hidden", "teacher_logprobs", "ref_hidden", "behavior_logprobs",
            "num_allowed", "advantages", "kd_weights", "rl_weights", "kd_scale", "rl_scale", "coupled",
            "coupled_loss", "source", "rewards", "penalty_scale", "mark_weights",
        ):  # fmt: skip
            stream = getattr(self, name)
            if stream is not None and stream.shape[0] != rows:
                raise ValueError(f"{name} has {stream.shape[0]} rows for {rows} trained positions")
        for hidden, head in (
            ("hidden", "head"),
            ("teacher_hidden", "teacher_head"),
            ("ref_hidden", "ref_head"),
        ):
            states, matrix = getattr(self, hidden), getattr(self, head)
            if (states is None) != (matrix is None):
                raise ValueError(f"{hidden} and {head} come together or not at all")
            if states is not None and states.shape[-1] != matrix.shape[-1]:
                raise ValueError(
                    f"{hidden} is {states.shape[-1]} wide, but {head} has {matrix.shape[-1]} columns"
                )
            if matrix is not None and matrix.shape[0] != self.head.shape[0]:
                raise ValueError(
                    f"{head} has a vocabulary of {matrix.shape[0]}, the policy of {self.head.shape[0]}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Denominators:
    """Trained tokens and sequences of the whole batch, by component. A component without tokens has loss 0."""

    kd_tokens: int
    kd_sequences: int
    rl_tokens: int
    rl_sequences: int
    tokens: int
    """Tokens trained by either component: for regularisers, `adv_add` and the means among the metrics."""
    sequences: int
    episodes: int
    """Episodes of those sequences: for the regulariser that has one value an episode."""
    rehearsal_tokens: int = 0
    """Tokens of version 0's own answers: for the regulariser that rehearses them, in no other count."""
    rehearsal_sequences: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTokens:
    """Ids of one sample that count, by component."""

    kd: int = 0
    rl: int = 0
    either: int = 0
    rehearsal: int = 0

    @property
    def train(self) -> bool:
        """Whether the sample can add anything to a loss: regularisers too look at no other ids."""
        return self.either > 0 or self.rehearsal > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOutput:
    """The loss of one micro batch."""

    loss: Tensor
    """[] with a gradient path to `hidden` and `head`, also when nothing is trained."""
    metrics: dict[str, float]
    """Each adds up over the micro batches of a batch: means use the batch's denominators, `num_*` are counts."""
    dropped: tuple[int, ...] = ()
    """Labels of sequences left out because mean |log π − log μ| passed the recipe's limit; they train nothing."""
    not_held: tuple[int, ...] = ()
    """Labels of held sequences that the teacher would have begun otherwise; they train nothing."""
    terms: Terms | None = None
    """What single positions gave, where that was asked for."""


def sample_tokens(recipe: RecipeLike, sample: TrainingSample) -> SampleTokens:
    """Counts the ids of one sample that train.

    A token counts for a component where the loss mask is true, the component's weight (`weights["kd"]`,
    `weights["rl"]`, absent = 1) is not 0 and, for losses on the sampled id, its support was not one (law 7).

    Args:
        recipe: names the losses.
        sample: with its weights and support sizes.
    """
    kd_forced = kd_takes_sampled_ids(recipe)
    length = len(sample.token_ids)
    kd_weights = sample.weights.get("kd", (1.0,) * length)
    rl_weights = sample.weights.get("rl", (1.0,) * length)
    rehearsed = sample.source == "rehearsal"
    kd = rl = either = rehearsal = 0
    for position in range(length):
        if not sample.loss_mask[position]:
            continue
        forced = sample.num_allowed is not None and sample.num_allowed[position] == 1
        if rehearsed:
            rehearsal += not forced
            continue
        in_kd = recipe.uses_kd and kd_weights[position] != 0 and not (kd_forced and forced)
        in_rl = (recipe.uses_rl or recipe.uses_pairs) and rl_weights[position] != 0 and not forced
        kd += in_kd
        rl += in_rl
        either += in_kd or in_rl
    return SampleTokens(kd=kd, rl=rl, either=either, rehearsal=rehearsal)


def episode_numbers(samples: Sequence[TrainingSample]) -> list[int]:
    """[S] which episode each sample belongs to, 0..E-1 in the order of their first samples."""
    names = [(None, i) if s.episode is None else (s.episode, 0) for i, s in enumerate(samples)]
    known = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [known[name] for name in names]


def count_tokens(recipe: RecipeLike, samples: Iterable[TrainingSample]) -> Denominators:
    """Adds up the denominators of a whole batch from its samples alone: no forward pass is needed. Sequences that the
    hard bound drops later stay in the count: dropping makes a step smaller, never larger.

    Args:
        recipe: names the losses.
        samples: every sample of the batch.
    """
    given = list(samples)
    own = [sample_tokens(recipe, sample) for sample in given]
    numbers = episode_numbers(given)
    return Denominators(
        kd_tokens=sum(one.kd for one in own),
        kd_sequences=sum(one.kd > 0 for one in own),
        rl_tokens=sum(one.rl for one in own),
        rl_sequences=sum(one.rl > 0 for one in own),
        tokens=sum(one.either for one in own),
        sequences=sum(one.either > 0 for one in own),
        episodes=len({number for number, one in zip(numbers, own, strict=True) if one.either > 0}),
        rehearsal_tokens=sum(one.rehearsal for one in own),
        rehearsal_sequences=sum(one.rehearsal > 0 for one in own),
    )


def correction(recipe: RecipeLike, part: Literal["kd", "rl"]) -> Named:
    """The off-policy correction of one component; `split` names one for each."""
    own: Named = recipe.offpolicy.params[part] if recipe.offpolicy.name == "split" else recipe.offpolicy
    return own


def kd_takes_sampled_ids(recipe: RecipeLike) -> bool:
    """Whether the distillation loss looks at the sampled id alone, so that forced ids must not take it (law 7)."""
    return recipe.estimator.name in SAMPLED
