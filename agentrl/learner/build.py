"""Claimed turns -> training samples. Sampled ids go through verbatim (law 1); what cannot be trained is dropped with
its reason (law 3).

    transform  what of a group is trained, and new answers         members: turns, rewards, sources
    turn       prompt ids [P] + sampled ids [T]                    token_ids [L = P + T]
    recipe     eligibility, context, credit, route                 refused, or advantages and weights
    renderer   privileged blocks inserted into the same ids        teacher's view
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from agentrl.errors import ConfigError, UserError
from agentrl.learner import next_answers, pairs, views
from agentrl.learner.confidence import with_confidence
from agentrl.learner.hints import Chooser, corrected_ids, hint_option
from agentrl.learner.masks import behind, loss_mask
from agentrl.learner.members import Edited, Group, Member
from agentrl.learner.pack import teacher_positions
from agentrl.learner.practice import Practice, Practised
from agentrl.learner.rehearsal import Rehearsal
from agentrl.learner.second_stage import SecondStage, run_pure
from agentrl.learner.streams import only_beside
from agentrl.learner.views import Around, Views
from agentrl.recipes import axes, credit, routes
from agentrl.recipes.eligibility import refusal
from agentrl.recipes.recipe import Recipe
from agentrl.signals.candidates import is_behind
from agentrl.store.account import Reason
from agentrl.store.taught import Measured
from agentrl.teacher.contexts import PREFERENCE, SkillSource
from agentrl.teacher.demonstrations import siblings_of
from agentrl.teacher.recall import MAX_RULES, HintMemory
from agentrl.types import Block, Signal, SignalSource, TeacherView, TrainingSample, Turn

BEHIND_CONTEXT = ("retry", "rewrite", "teacher", next_answers.SOURCE, "second_turn")
"""Sources of answers that were sampled on another prompt than they are trained on."""
HELD_ANSWER = "hint holds the answer"


class Claim(views.Claim, Protocol):
    """`agentrl.store.learning_log.Claimed` is one."""

    @property
    def group(self) -> str | None: ...
    @property
    def pair(self) -> str | None: ...
    @property
    def preferred(self) -> bool: ...


class Inserter(pairs.Writer, views.Inserter, Protocol):
    """`agentrl.text.renderer.Renderer`, as far as samples need one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Turns that train nothing, and the reason that is counted."""

    turn_ids: tuple[str, ...]
    reason: str
    detail: str = ""
    """A sentence for whoever must find out why; lengths, for example."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """Every claimed turn is in one of both, once."""

    samples: tuple[TrainingSample, ...]
    dropped: tuple[Dropped, ...]
    recalled: dict[str, list[str]]
    """Turns whose teacher was shown hints of other turns -> those turns."""
    useful: dict[str, Measured]
    """By turn how useful its hints are, where that was measured."""
    lent: dict[str, str]
    """By turn the one whose answer is learned on its prompt."""
    practised: tuple[str, ...]
    """Turns whose requests were varied for practice."""
    rested: tuple[str, ...]
    """Rules that the teachers of these turns would have been shown, did the weights not keep them by themselves: those
    of the most turns, `MAX_RULES` at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """What samples are built with."""

    recipe: Recipe
    renderer: Inserter
    max_len: int
    """Most ids of a sequence, the teacher's included."""
    skills: SkillSource | None = None
    """Only the context "skill" asks it."""
    memory: HintMemory | None = None
    """Hints of earlier turns; only the context "hindsight_hint" asks it."""
    stage: SecondStage | None = None
    """Where transforms get new answers from."""
    later: Callable[[Sequence[Claim]], Mapping[str, Turn]] = lambda _: {}
    """By turn id what conversations were answered next; only the transform "next_answer" asks it."""
    rehearsal: Rehearsal | None = None
    """What each step holds beside its turns; None = nothing."""
    practice: Practice | None = None
    """Makes up what standing hints are practised on beside a step's turns; None = nothing."""
    usefulness: Chooser | None = None
    """Measures hints where a turn has several; only the context "hindsight_hint" asks it."""

    def __post_init__(self) -> None:
        option = hint_option(self.recipe)
        if option is not None and option.choose != "trusted" and self.usefulness is None:
            raise ConfigError(
                f"recipe {self.recipe.name!r}: context.choose = {option.choose!r} measures hints, but this learner was "
                "started without a teacher to measure with: set context.choose = 'trusted'"
            )
        if self.recipe.transform.needs_stage and self.stage is None:
            raise ConfigError(
                f"recipe {self.recipe.name!r}: transform {self.recipe.transform.name!r} makes new answers, but this "
                "learner was started without a second generation stage: set transform = 'none'"
            )

    def build(self, claims: Sequence[Claim], *, newest_version: int, beside: bool = False) -> Built:
        """Samples of the claimed turns, in their order.

        Args:
            newest_version: the newest version of the line, which a turn's age is counted from.
            beside: these stand beside the claimed turns of a step whose building has begun.
        """
        if self.skills is not None and not beside:
            self.skills.begin()
        samples: list[TrainingSample] = []
        dropped: list[Dropped] = []
        recalled: dict[str, list[str]] = {}
        useful: dict[str, Measured] = {}
        rested: Counter[str] = Counter()
        lent: dict[str, str] = {}
        wishes: dict[str, list[Block]] = {}
        later: Mapping[str, Turn] = {}
        if isinstance(self.recipe.transform, axes.NextAnswer):
            later = self.later(claims)
        for group, edited in self._transformed(self._groups(claims), later, newest_version):
            dropped += [Dropped(turn_ids=(turn_id,), reason=reason) for turn_id, reason in edited.dropped]
            advantage_of = self._advantages(edited.members)
            for member in edited.members:
                advantage = advantage_of[member.step, member.attempt]
                sample = self._sample(
                    member, group, advantage, newest_version, recalled, useful, rested, wishes
                )
                if isinstance(sample, TrainingSample):
                    samples.append(sample)
                    if sample.source == next_answers.SOURCE:
                        lent[member.claim.turn.id] = later[member.claim.turn.id].id
                else:
                    dropped.append(sample)
        if only_beside(self.recipe, samples):
            alone = tuple(turn_id for sample in samples for turn_id in sample.turn_ids)
            dropped.append(Dropped(turn_ids=alone, reason=Reason.ALREADY_RIGHT))
            samples = []
        if self.recipe.uses_pairs:
            reasons = {turn_id: one.reason for one in dropped for turn_id in one.turn_ids}
            samples, lone = pairs.paired(claims, samples, self.renderer, self.max_len, reasons)
            dropped += [Dropped(turn_ids=one.turn_ids, reason=one.reason) for one in lone]
        kept = {turn_id for sample in samples for turn_id in sample.turn_ids}
        practised = Practised()
        if samples and self.practice is not None and not beside:
            practised = self.practice.samples(
                [(claim.turn, wishes.get(claim.turn.id, [])) for claim in claims if claim.turn.id in kept]
            )
            samples += practised.samples
        if samples and self.rehearsal is not None and not beside:
            samples += self.rehearsal.samples([claim.turn for claim in claims])
        return Built(
            samples=tuple(samples),
            dropped=without(dropped, kept),
            recalled=recalled,
            useful=useful,
            lent=lent,
            practised=practised.begun,
            rested=tuple(sorted(name for name, _ in rested.most_common(MAX_RULES))),
        )

    def _groups(self, claims: Sequence[Claim]) -> list[list[Claim]]:
        """Claims whose rewards are compared with each other, in the order of their first members. On live traffic
        every turn stands alone."""
        groups: dict[str, list[Claim]] = {}
        for claim in claims:
            name = _group_name(claim) if self.recipe.group_size > 1 else None
            key = f"turn {claim.turn.id}" if name is None else f"group {name}"
            groups.setdefault(key, []).append(claim)
        return list(groups.values())

    def _transformed(
        self, groups: Sequence[Sequence[Claim]], later: Mapping[str, Turn], newest_version: int
    ) -> list[tuple[Around, Edited]]:
        """The recipe's transform of each group."""
        known, given = [], []
        corrected: Mapping[str, Sequence[int]] = {}
        if self.usefulness is not None:
            corrected = corrected_ids([claim for claims in groups for claim in claims], self.renderer)
        for claims in groups:
            rewards = {claim.turn.session: self._reward(claim) for claim in claims}
            weights = self.recipe.reward_weights
            before = _turns_before(claims)
            siblings = siblings_of([claim.turn for claim in claims], rewards)
            group = Around(siblings=siblings, corrected=corrected)
            members = tuple(
                Member(
                    claim=claim,
                    turn=claim.turn,
                    reward=_step_reward(claim, *weights) if weights else rewards[claim.turn.session],
                    attempt=claim.turn.session,
                    step=before[claim.turn.id] if weights else 0,
                    turn_index=before[claim.turn.id],
                )
                for claim in claims
            )
            known.append(group)
            given.append(
                Group(
                    members=members,
                    view=partial(self._views.view, group),
                    later=lambda claim: later.get(claim.turn.id),
                )
            )
        if self.stage is None:
            found = run_pure(given, self.recipe)
        else:
            found = self.stage.transformed(given, version=newest_version)
        return [
            (replace(group, rewards=_rewards(edited.members)), edited)
            for group, edited in zip(known, found, strict=True)
        ]

    def _advantages(self, members: Sequence[Member]) -> dict[tuple[int, str], float | None]:
        """By step and attempt: an episode counts once in its group's mean, however many turns it took."""
        steps: dict[int, dict[str, float | None]] = {}
        for member in members:
            steps.setdefault(member.step, {})[member.attempt] = member.reward
        if self.recipe.advantage.name in credit.BY_STEP:
            flat = {(step, name): reward for step, own in steps.items() for name, reward in own.items()}
            values = credit.advantages(self.recipe.advantage, list(flat.values()), [step for step, _ in flat])
            return dict(zip(flat, values, strict=True))
        return {
            (step, attempt): advantage
            for step, rewards in steps.items()
            for attempt, advantage in zip(
                rewards, credit.advantages(self.recipe.advantage, list(rewards.values())), strict=True
            )
        }

    def view(self, claim: Claim) -> TeacherView | None:
        """What version 0 is to read of a turn's prompt to say what was rightly learned: what its teacher would be
        shown, and the rules that rest. None where that is no more than the prompt."""
        with nullcontext() if self.memory is None else self.memory.awake():
            return self._views.view(Around(corrected={}), claim)

    def resting_views(self, claims: Sequence[Claim]) -> dict[tuple[int, ...], tuple[int, ...]]:
        """The same ids by prompt, of turns in whose scope rules rest."""
        if self.memory is None:
            return {}
        resting = [claim for claim in claims if self.memory.has_resting(claim.turn.scope)]
        views = {claim.turn.prompt_ids: self.view(claim) for claim in resting}
        return {prompt: view.token_ids for prompt, view in views.items() if view is not None}

    @property
    def _views(self) -> Views:
        return Views(
            recipe=self.recipe,
            renderer=self.renderer,
            skills=self.skills,
            memory=self.memory,
            usefulness=self.usefulness,
        )

    def _why_not(self, claim: Claim, case: routes.Case, *, rules_rest: bool) -> str:
        """Why a turn of which nothing is trained is rejected.

        Args:
            rules_rest: whether its teacher would have been shown a rule.
        """
        if not case.has_context and self._views.all_leak(claim):
            return HELD_ANSWER
        why = routes.why_not(self.recipe, case)
        return Reason.ALREADY_RIGHT if why == Reason.NO_CONTEXT and rules_rest else why

    def _reward(self, claim: Claim) -> float | None:
        """Groups compare how episodes ended; a turn of live traffic has its own reward where it was given one."""
        if self.recipe.group_size > 1:
            return claim.episode_reward
        own = reward_of(claim.signals)
        return claim.episode_reward if own is None else own

    def _sample(
        self,
        member: Member,
        group: Around,
        advantage: float | None,
        newest_version: int,
        recalled: dict[str, list[str]],
        useful: dict[str, Measured],
        rested: Counter[str],
        wishes: dict[str, list[Block]],
    ) -> TrainingSample | Dropped:
        """The sample, or why there is none; `recalled` takes down whose hint it shows, `useful` what was measured,
        `rested` which rules it might have shown, `wishes` what of its context stands whatever was asked."""
        recipe, turn, claimed = self.recipe, member.turn, member.claim.turn.id
        if member.advantage is not None:
            advantage = member.advantage

        def drop(reason: str, detail: str = "") -> Dropped:
            return Dropped(turn_ids=(claimed,), reason=reason, detail=detail)

        reason = refusal(recipe, turn, newest_version=newest_version)
        if reason is not None:
            return drop(reason)
        ids = turn.prompt_ids + turn.completion.token_ids
        if len(ids) > self.max_len:
            return drop("longer than the model", f"{len(ids)} ids of {self.max_len}")
        mask = loss_mask(turn, member.trained)
        if not any(mask):
            return drop("redacted sample")

        blocks: list[Block] = []
        rules: tuple[str, ...] = ()
        if recipe.uses_kd:
            found = self._views.context(member.claim, group)
            blocks, rules = found.blocks, found.rested
            rested.update(rules)
            wishes[claimed] = found.wishes
            useful |= {} if found.measured is None else {claimed: found.measured}
            others = [hint.turn_id for hint in found.hints if hint.turn_id != claimed]
            if others:
                recalled[claimed] = others
            if member.confidence is not None:
                blocks = [replace(b, text=with_confidence(b.text, member.confidence)) for b in blocks]
        case = routes.Case(
            has_context=bool(blocks),
            advantage=advantage,
            reward=member.reward,
            own_reward=reward_of(member.claim.signals),
            group_rewards=group.rewards,
        )
        route = routes.weights(recipe, case).only(member.only)
        if not route.trains:
            return drop(self._why_not(member.claim, case, rules_rest=bool(rules)))
        view = None
        if blocks and route.kd:
            try:
                view = self.renderer.insert(ids, len(turn.prompt_ids), blocks)
            except UserError as error:
                return drop("no place for the context", str(error))
            if len(view.token_ids) > self.max_len:
                return drop(
                    "longer than the model with its context", f"{len(view.token_ids)} ids of {self.max_len}"
                )
            try:
                teacher_positions(view, ids, ())
            except ValueError as error:
                return drop("teacher's ids differ", str(error))

        streams: dict[str, tuple[float, ...]] = {}
        if recipe.uses_kd and route.kd != 1.0:
            streams["kd"] = (route.kd,) * len(ids)
        if recipe.uses_rl and route.rl != 1.0:
            streams["rl"] = (route.rl,) * len(ids)
        # Behind a redacted id the recorded log-probs belong to another text, and an answer sampled behind a context is
        # meant to be far from the policy: only ratios are to know them.
        foreign = bool(turn.redacted_spans) or member.source in BEHIND_CONTEXT
        raw = None if foreign and not recipe.needs_behavior_logprobs else turn.completion.raw_logprobs
        grouped = _group_name(member.claim)
        compared = grouped is not None and recipe.group_size > 1
        return TrainingSample(
            turn_ids=(claimed,),
            token_ids=ids,
            loss_mask=mask,
            behavior_logprobs=None if raw is None else behind(turn, 0.0, raw),
            num_allowed=(
                None
                if turn.completion.num_allowed is None
                else tuple(int(number) for number in behind(turn, 0, turn.completion.num_allowed))
            ),
            teacher=view,
            advantages=tuple(float(advantage or 0.0) if trained else 0.0 for trained in mask)
            if recipe.uses_rl
            else None,
            weights=streams,
            group=grouped,
            version=turn.completion.version,
            reward=member.reward,
            source="held" if route.held and route.kd else member.source,
            episode=f"{grouped} {member.step} {member.attempt}" if compared else None,
            turn_index=member.turn_index,
        )


def _group_name(claim: Claim) -> str | None:
    """A group's name with its scope, quoted: no two scopes share a group (law 10). None where there is no group."""
    return None if claim.group is None else f"{claim.turn.scope!r} {claim.group}"


def _turns_before(claims: Iterable[Claim]) -> dict[str, int]:
    """Turn id -> how many of these turns came before it in its episode."""
    seen: Counter[str] = Counter()
    found = {}
    for claim in sorted(claims, key=lambda claim: claim.turn.received_at):
        found[claim.turn.id] = seen[claim.turn.session]
        seen[claim.turn.session] += 1
    return found


def _step_reward(claim: Claim, outcome: float, process: float) -> float | None:
    """How the episode ended and the turn's own reward, weighted. What the environment said is of the episode: it stands
    at the last of its turns, and is no more that one's own than any other's."""
    own = reward_of(signal for signal in claim.signals if signal.source is not SignalSource.ENVIRONMENT)
    return credit.step_reward(claim.episode_reward, own, outcome=outcome, process=process)


def reward_of(signals: Iterable[Signal]) -> float | None:
    """The reward of the most trusted source that gave one, the newest of that source; None = not judged (law 6).

    Whoever read in a user's later words that a call was wrong is believed before what a judge had made of its outputs.
    """
    known = [signal for signal in signals if signal.reward is not None]
    for source in PREFERENCE:
        own = [one for one in known if (SignalSource.JUDGE if is_behind(one) else one.source) == source]
        if own:
            return max(own, key=lambda one: (is_behind(one), one.created_at)).reward
    return None


def without(dropped: Iterable[Dropped], kept: Collection[str]) -> tuple[Dropped, ...]:
    """Each turn of which nothing is trained, once, with its first reason: a turn may be in several samples, but is
    either trained or rejected (law 3).

    Args:
        kept: turns of which something is trained.
    """
    seen = set(kept)
    found = []
    for item in dropped:
        new = tuple(turn_id for turn_id in item.turn_ids if turn_id not in seen)
        seen.update(new)
        if new:
            found.append(replace(item, turn_ids=new))
    return tuple(found)


def num_by_source(samples: Iterable[TrainingSample]) -> dict[str, float]:
    """How many samples were not trained as the policy sampled them, by where they came from: "num_retry" and so on."""
    found = Counter(f"num_{sample.source}" for sample in samples if sample.source != "sampled")
    return {name: float(number) for name, number in sorted(found.items())}


def _rewards(members: Iterable[Member]) -> tuple[float, ...]:
    """Of the judged first steps, one an attempt."""
    known = {item.attempt: item.reward for item in members if item.step == 0}
    return tuple(reward for reward in known.values() if reward is not None)
