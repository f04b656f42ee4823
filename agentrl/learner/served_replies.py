"""What the version that serves replies to recent prompts, for the next one to be held against.

    recent trained prompts ─serving version─> replies ─serving version, with and without the lesson─> reference
                                                                       next version, without it ─> KL(next || reference)

Held-out turns say how far one version is from the one before it, but only rewarded turns are held out: a stream of
corrections alone has none. Its own replies are always there. They are measured as `base_answers` measures version 0's
and say another thing: version 0 knows nothing of what was learned since, so what garbles that alone is no drift from
it. The serving version knows a half-learned name, and with the lesson in view what the next one is to say. With nano on
the way to a rare name one step comes to .18 nats an id at most at a learning rate of 7e-4, .25 at 1e-3, .32 at 2e-3,
.44 at 4e-3, which garbles what it has not learned, and to more than 1.3 at 1e-2, which garbles everything.

A prompt that was not yet there when the version began to serve, or that another lesson was taught on since, counts
from the next version on.
"""

from __future__ import annotations

from agentrl.errors import LearnerError
from agentrl.learner.base_answers import Asked, BaseAnswers, Ids, drifts
from agentrl.learner.outline import Outline
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.trainer import Trainer


class ServedReplies:
    """Remembers them.

    Args:
        answers: knows the prompts.
    """

    def __init__(self, answers: BaseAnswers) -> None:
        self._answers = answers
        self._replies: dict[Asked, Ids] = {}
        self._views: dict[Asked, Ids] = {}
        """What the teacher was shown with each question."""
        self._references: dict[Asked, Outline] = {}

    def remember(self, trainer: Trainer) -> None:
        """The trainer has the weights of the version that serves."""
        self.forget()
        weights, asked = Weights(trainer.policy, None), self._answers.asked(trainer)
        try:
            replies = dict(zip(asked, self._answers.replies(weights, trainer, asked), strict=True))
        except LearnerError:
            return  # it gives no numbers: nothing can be held against it
        self._references = self._answers.references(weights, trainer, replies)
        self._replies = replies
        self._views = {key: self._answers.view(key[0]) for key in replies}

    def forget(self) -> None:
        """Nothing is held against what serves."""
        self._replies, self._views, self._references = {}, {}, {}

    def drift(self, trainer: Trainer) -> list[float]:
        """How far the weights that the trainer has are from the version that serves, in nats an id of each reply."""
        kept = {
            key: reply
            for key, reply in self._replies.items()
            if self._answers.is_shown(key[0], self._views[key])
        }
        return drifts(trainer, kept, self._references)
