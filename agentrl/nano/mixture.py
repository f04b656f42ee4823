"""What nano learns, and how much of each."""

import random
from collections.abc import Callable

from agentrl.nano import corpus, judging, styled
from agentrl.nano.encoding import Example

KINDS: dict[Callable[[random.Random], Example], float] = {
    corpus.plain: 0.12,
    corpus.hinted: 0.50,
    corpus.distracted: 0.10,
    corpus.refused: 0.16,
    corpus.remembered: 0.10,
    corpus.hinted_later: 0.06,
    corpus.stuck: 0.04,
    # Cheap ones go on among the others: they hold more names to copy per token.
    corpus.short: 0.10,
    styled.wished: 0.12,
    styled.corrected: 0.07,
    # Long prompts of few different answers: a small share is enough.
    judging.judged: 0.06,
    judging.skill_written: 0.02,
}


def example(rng: random.Random) -> Example:
    """One example of a kind drawn by its weight."""
    return rng.choices(tuple(KINDS), weights=tuple(KINDS.values()))[0](rng)
