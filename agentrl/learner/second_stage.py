"""The second generation stage: what transforms ask for, sampled with the learner's own weights and rewarded.

All groups of a step are run in turn with each other: what they ask for at a time is sampled in common batches. What an
answer draws from depends on the run's seed, the number of the step, its turn and how often it was asked for, so a
replay of the log samples the same ids (law 11).
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from agentrl.errors import ConfigError
from agentrl.learner.generate import generate
from agentrl.learner.members import Answer, Ask, Edited, Group, Text, Trace, answered
from agentrl.learner.pack import Row
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.traces import TraceFile
from agentrl.learner.transform import TRANSFORMS
from agentrl.learner.verifier import Verifier, preferred_text
from agentrl.recipes import axes
from agentrl.recipes.files import path_of
from agentrl.recipes.recipe import Recipe
from agentrl.types import Completion, FinishReason, Sampling, Turn, VersionSpan

if TYPE_CHECKING:
    from agentrl.learner.build import Claim
    from agentrl.learner.trainer import Trainer

MAX_TASKS = 2000
"""Tasks whose successes are kept for replay; those not met for longest are forgotten."""
MAX_SUCCESSES = 8
"""Kept of one task, the newest."""


class SecondStage:
    """What a recipe's transform works with.

    Args:
        recipe: with its transform.
        policy: the weights that are trained, as they are now.
        teacher: the recipe's teacher; None without one.
        text: of the policy's model.
        seed: what this step's sampling draws from.
        max_len: most ids of a sequence.
        verifier: rewards new answers.
        traces: a teacher's answers; only the source "teacher_trace" asks it.

    Raises:
        ConfigError: the transform needs a teacher or a verifier that is not there.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        policy: Callable[[], Weights],
        teacher: Callable[[], Weights | None],
        text: Text,
        seed: Callable[[], str],
        max_len: int,
        verifier: Verifier | None = None,
        traces: TraceFile | None = None,
    ) -> None:
        self._recipe = recipe
        self._policy = policy
        self._teacher = teacher
        self.text = text
        self._seed = seed
        self._max_len = max_len
        self._verifier = verifier
        self._traces = traces
        self._successes: OrderedDict[tuple[str, str], deque[tuple[Turn, float]]] = OrderedDict()
        option = recipe.transform
        verifies = option.verifies or (option.generates and option.name != "replace" and recipe.uses_rl)
        if verifies and verifier is None:
            raise ConfigError(
                f"recipe {recipe.name!r}: transform {option.name!r} needs a reward for the answers that it samples, "
                "but this learner was started without a verifier: hand it one (agentrl.learner.verifier.same_answer "
                "compares with the preferred text of a turn's signals), or set transform = 'none'"
            )
        asks_teacher = option.name == "rewrite" or getattr(option, "by", "") == "teacher"
        if asks_teacher and teacher() is None:
            raise ConfigError(
                f"recipe {recipe.name!r}: transform {option.name!r} lets the teacher answer, but teacher is "
                f"{recipe.teacher.name!r}, which has no weights: set teacher = 'self', 'external' or 'joint'"
            )

    @classmethod
    def of(
        cls,
        trainer: Trainer,
        text: Text,
        *,
        verifier: Verifier | None = None,
    ) -> SecondStage | None:
        """The second stage of a trainer's recipe; None where its transform needs none."""
        if not trainer.recipe.transform.needs_stage:
            return None
        option = trainer.recipe.transform
        reads = isinstance(option, axes.Replace) and option.source == "teacher_trace"
        return cls(
            trainer.recipe,
            policy=lambda: Weights(trainer.policy, None),
            teacher=lambda: trainer.teacher,
            text=text,
            seed=lambda: f"{trainer.seed}/{trainer.num_steps}",
            max_len=trainer.max_len,
            verifier=verifier,
            traces=TraceFile(path_of(trainer.recipe, "transform.path"), text) if reads else None,
        )

    def clear(self) -> None:
        """Forgets what it kept for replay: the turns behind a rolled-back version are not taught again (law 8)."""
        self._successes.clear()

    def transformed(self, groups: Sequence[Group], *, version: int) -> list[Edited]:
        """What the recipe's transform makes of each group.

        Args:
            groups: those of one step.
            version: the newest one, which new answers are said to come from.
        """
        option = self._recipe.transform
        seed = self._seed()
        running = {}
        for number, group in enumerate(groups):
            names = "/".join(item.claim.turn.id for item in group.members)
            own = replace(
                group,
                text=self.text,
                random=random.Random(f"{seed}/{names}"),
                traces=self._elsewhere,
            )
            running[number] = TRANSFORMS[option.name](own, **option.params)
        found: dict[int, Edited] = {}
        sent: dict[int, Sequence[Answer | None] | None] = dict.fromkeys(running)
        count = 0
        while running:
            asked: dict[int, Sequence[Ask]] = {}
            for number, steps in list(running.items()):
                try:
                    answers = sent[number]
                    asked[number] = next(steps) if answers is None else steps.send(answers)
                except StopIteration as end:
                    found[number] = end.value
                    del running[number]
            answers_of = iter(
                self._answers([ask for asks in asked.values() for ask in asks], f"{seed}/{count}", version)
            )
            sent = {number: [next(answers_of) for _ in asks] for number, asks in asked.items()}
            count += 1
        if getattr(option, "source", "") == "replay":
            self._keep(groups)
        return [found[number] for number in range(len(groups))]

    def _answers(self, asks: Sequence[Ask], seed: str, version: int) -> list[Answer | None]:
        """None where there is no room for an answer."""
        alike: dict[tuple[str, float, int], list[int]] = {}
        for index, ask in enumerate(asks):
            if len(ask.prompt_ids) < self._max_len:
                alike.setdefault((ask.by, ask.temperature, ask.max_tokens), []).append(index)
        found: dict[int, Answer] = {}
        for (by, temperature, most), members in alike.items():
            weights = self._policy() if by == "policy" else self._teacher()
            assert weights is not None, "a transform that asks the teacher was refused without one"
            sampling = Sampling(temperature=temperature, max_tokens=most)
            completions = generate(
                weights,
                [asks[index].prompt_ids for index in members],
                [_number(f"{seed}/{asks[index].claim.turn.id}") for index in members],
                sampling=sampling,
                stop_ids=frozenset(self.text.stop_ids),
                max_tokens=self._recipe.batch.micro_tokens,
                max_len=self._max_len,
                version=version,
            )
            for index, completion in zip(members, completions, strict=True):
                found[index] = self._answer(asks[index], completion, sampling)
        return [found.get(index) for index in range(len(asks))]

    def _answer(self, ask: Ask, completion: Completion, sampling: Sampling) -> Answer:
        reply = self.text.parse(completion.token_ids, ask.claim.turn.tools)
        reward = None if self._verifier is None else self._verifier(ask.claim, reply.text)
        return Answer(completion=completion, reply=reply, sampling=sampling, reward=reward)

    def _elsewhere(self, claim: Claim) -> Sequence[Trace]:
        turn = claim.turn
        if self._traces is None:
            kept = self._successes.get((turn.scope, turn.task_key), deque())
            return [
                Trace(turn=old, reward=reward, source="replay")
                for old, reward in reversed(kept)
                if old.prompt_ids == turn.prompt_ids and old.id != turn.id
            ]
        found = [(_with_ids(turn, ids, self.text), reward) for ids, reward in self._traces.answers(turn)]
        if self._verifier is not None:
            found = [
                (new, self._verifier(claim, new.reply.text) if known is None else known)
                for new, known in found
            ]
        understood = self._comprehension(claim, [new for new, _ in found])
        order = sorted(range(len(found)), key=lambda index: -understood[index])
        return [
            Trace(turn=found[index][0], reward=reward, source="teacher")
            for index in order
            if (reward := found[index][1]) is not None
        ]

    def _comprehension(self, claim: Claim, answers: Sequence[Turn]) -> list[float]:
        """How well the policy, having read each answer, knows the reference: the mean probability of its ids behind
        the answer. 0 where there is no reference or no room. AMPO, arXiv 2510.02227."""
        reference = preferred_text(claim)
        if reference is None:
            return [0.0] * len(answers)
        rows = []
        for turn in answers:
            ends = turn.completion.token_ids[-1] in self.text.stop_ids
            read = turn.prompt_ids + turn.completion.token_ids[: -1 if ends else None]
            rows.append(Row.behind(read, self.text.encode_plain("\n" + reference)))
        fitting = [row for row in rows if len(row.token_ids) <= self._max_len]
        scores = iter(self._policy().logprobs(fitting, max_tokens=self._recipe.batch.micro_tokens))
        return [float(next(scores).exp().mean()) if row in fitting else 0.0 for row in rows]

    def _keep(self, groups: Sequence[Group]) -> None:
        """Takes down the attempts of one turn that were right."""
        threshold = float(self._recipe.transform.params["threshold"])
        for group in groups:
            turns = [item.attempt for item in group.members]
            for item in group.members:
                if item.reward is None or item.reward < threshold or turns.count(item.attempt) > 1:
                    continue
                key = (item.turn.scope, item.turn.task_key)
                self._successes.setdefault(key, deque(maxlen=MAX_SUCCESSES)).append((item.turn, item.reward))
                self._successes.move_to_end(key)
                if len(self._successes) > MAX_TASKS:
                    self._successes.popitem(last=False)


def run_pure(groups: Sequence[Group], recipe: Recipe) -> list[Edited]:
    """What a transform that asks for nothing makes of each group."""
    found = []
    for group in groups:
        steps = TRANSFORMS[recipe.transform.name](group, **recipe.transform.params)
        try:
            next(steps)
        except StopIteration as end:
            found.append(end.value)
        else:
            raise AssertionError(f"{recipe.transform.name} asks for answers, but says that it does not")
    return found


def _with_ids(turn: Turn, ids: tuple[int, ...], text: Text) -> Turn:
    """The turn answered with ids that nobody sampled here: they have no log-probs."""
    completion = Completion(
        token_ids=ids,
        logprobs=(math.nan,) * len(ids),
        raw_logprobs=None,
        num_allowed=None,
        finish_reason=FinishReason.STOP,
        version_spans=(VersionSpan(version=turn.completion.version, start=0, end=len(ids)),),
    )
    reply = text.parse(ids, turn.tools)
    return answered(turn, Answer(completion=completion, reply=reply, sampling=Sampling(), reward=None))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
