"""How useful a hint is, measured: what it does to the teacher, before anything is trained on it.

    lift       mean log q(corrected | x, c) - mean log q(original | x, c), less the same without c
    overlap    mean over the sampled ids of |top-k of q(. | x, c) and of pi(. | x)| / k

x is the served prompt, c the hint's block, q the teacher, pi the policy as it is, means are over ids. The lift says how
much more than before a teacher who reads the hint would do the corrected action in place of the original one; it needs
to know one. The overlap needs none: a teacher whose likely ids are the policy's own can be followed by it. After the
hints selected by overlap of OpenClaw-RL, arXiv 2603.10165.

What is made of the numbers says `agentrl.learner.hints.Measuring`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from agentrl.errors import UserError
from agentrl.learner.hints import Measure, Writer, hint_choice
from agentrl.learner.pack import Row, teacher_positions
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.trainer import Trainer
from agentrl.types import Block, TeacherView, Turn

TOP_K = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Usefulness:
    """What hints are measured with."""

    teacher: Callable[[], Weights]
    policy: Callable[[], Weights]
    renderer: Writer
    max_len: int
    """Most ids of a sequence."""
    max_tokens: int
    """Most ids of one forward pass."""

    @classmethod
    def of(cls, trainer: Trainer, renderer: Writer) -> Usefulness | None:
        """For a trainer's recipe; None where it does not measure."""
        if hint_choice(trainer.recipe) == "trusted":
            return None

        def teacher() -> Weights:
            weights = trainer.teacher
            assert weights is not None, "the recipe was refused at start-up"
            return weights

        return cls(
            teacher=teacher,
            policy=lambda: Weights(trainer.policy, None),
            renderer=renderer,
            max_len=trainer.max_len,
            max_tokens=trainer.recipe.batch.micro_tokens,
        )

    def values(
        self, turn: Turn, hints: Sequence[str], position: str, measure: Measure, corrected: Sequence[int]
    ) -> dict[str, float]:
        """By hint how useful it is; those that find no place are left out.

        Args:
            corrected: ids of the action that would have been right, with what ends a reply; only the lift asks for it.
        """
        views = {hint: view for hint in hints if (view := self._view(turn, hint, position)) is not None}
        if not views:
            return {}
        seen = list(views.values())
        found = self.lift(turn, seen, corrected) if measure == "lift" else self.overlap(turn, seen)
        return dict(zip(views, found, strict=True))

    def lift(self, turn: Turn, views: Sequence[TeacherView], corrected: Sequence[int]) -> list[float]:
        """[views] in nats an id; teacher views of the served prompt alone."""
        prompts = [turn.prompt_ids, *(view.token_ids for view in views)]
        actions = (tuple(corrected), turn.completion.token_ids)
        rows = [Row.behind(prompt, action) for prompt in prompts for action in actions]
        means = [float(item.mean()) for item in self.teacher().logprobs(rows, max_tokens=self.max_tokens)]
        gaps = [right - wrong for right, wrong in zip(means[::2], means[1::2], strict=True)]
        return [gap - gaps[0] for gap in gaps[1:]]

    @torch.no_grad()
    def overlap(self, turn: Turn, views: Sequence[TeacherView]) -> list[float]:
        """[views] in [0, 1]; teacher views of the served prompt alone."""
        done = turn.completion.token_ids
        own = self._top(self.policy(), [Row.behind(turn.prompt_ids, done)])[0]
        seen = self._top(self.teacher(), [Row.behind(view.token_ids, done) for view in views])
        return [_common(own, theirs) for theirs in seen]

    def _top(self, weights: Weights, rows: Sequence[Row]) -> list[Tensor]:
        """For each row [T, k] the likeliest ids at its positions."""
        total = sum(len(row.positions) for row in rows)
        hidden = weights.hidden(weights.pack(rows, max_tokens=self.max_tokens), total)
        head = weights.head()
        found, at = [], 0
        for row in rows:
            here = hidden[at : at + len(row.positions)]
            at += len(row.positions)
            found.append((here @ head.T).topk(min(TOP_K, head.shape[0]), dim=-1).indices)
        return found

    def _view(self, turn: Turn, hint: str, position: str) -> TeacherView | None:
        """The served prompt with the hint; None where it has no place or leaves the reply none."""
        ids = turn.prompt_ids
        try:
            view = self.renderer.insert(ids, len(ids), [Block(position=position, text=f"Hint: {hint}")])
            teacher_positions(view, ids, ())
        except (UserError, ValueError):
            return None
        fits = len(view.token_ids) + len(turn.completion.token_ids) <= self.max_len
        return view if fits and turn.completion.token_ids else None


def _common(own: Tensor, theirs: Tensor) -> float:
    """The mean share of equal ids of [T, k] and [T, k], each position's in any order."""
    return float((own[:, :, None] == theirs[:, None, :]).any(-1).double().mean())
