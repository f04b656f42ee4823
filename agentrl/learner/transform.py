"""Claimed turns -> what is trained of them: dropped, chosen, edited, or answered once more.

A transform looks at one group at a time and is pure: where it needs new answers it yields what it asks for and is sent
what was sampled, so that the asking of all groups goes through the model together (`agentrl.learner.second_stage`).

    drop_constant, subset_max_var    choose among what was sampled          log-probs stay valid
    retry, rewrite, replace          other ids, sampled elsewhere           their own log-probs, of the prompt shown
    next_answer, second_turn         more samples of one turn               likewise
    confidence_rewrite               a span of the ids is written anew      none

A new answer stands in the place of its turn's own; the sample names that turn. Only here, inside the learner, is
anything sampled behind a teacher's context (law 5).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from agentrl.learner.members import (
    Answer,
    Ask,
    Edited,
    Group,
    Member,
    Steps,
    Transform,
    answered,
    confident,
)
from agentrl.learner.second_turn import second_turn
from agentrl.types import SampleSource, Turn

RIGHT_FROM = 0.5
"""A rewrite is right from this reward on."""
NO_ROOM = "no room for a new answer"
WITH_ITS_EPISODE = "replaced with its episode"


def none(group: Group) -> Steps:
    """As sampled."""
    yield from ()
    return Edited(members=group.members)


def drop_constant(group: Group) -> Steps:
    """Drops a group whose judged attempts all have one reward. DAPO, arXiv 2503.14476."""
    yield from ()
    if len(set(group.rewards.values())) == 1:
        return _dropped(group, group.members, "constant group")
    return Edited(members=group.members)


def subset_max_var(group: Group, *, keep: int) -> Steps:
    """Keeps the attempts whose rewards have the largest variance: some from either end of their order. D3S.

    Args:
        keep: how many judged attempts are kept; a smaller group stays whole.
    """
    yield from ()
    kept = max_variance(group.rewards, keep)
    chosen = [item for item in group.members if item.reward is None or item.attempt in kept]
    edited = _dropped(
        group, [item for item in group.members if item not in chosen], "less variance of rewards"
    )
    return replace(edited, members=tuple(chosen))


def max_variance(rewards: Mapping[str, float], keep: int) -> frozenset[str]:
    """Names of the `keep` rewards of largest variance; all where there are no more. Of equal subsets the one that
    keeps most of the high ones."""
    order = sorted(rewards, key=lambda name: rewards[name])
    if len(order) <= keep:
        return frozenset(order)
    best: tuple[float, tuple[str, ...]] | None = None
    for low in range(keep + 1):
        chosen = (*order[:low], *order[len(order) - (keep - low) :])
        values = [rewards[name] for name in chosen]
        mean = sum(values) / keep
        variance = sum((value - mean) ** 2 for value in values) / keep
        if best is None or variance > best[0]:
            best = variance, chosen
    assert best is not None
    return frozenset(best[1])


def retry(group: Group, *, by: Literal["policy", "teacher"], temperature: float, max_tokens: int) -> Steps:
    """Each turn that has a context is answered again behind it; the others stay.

    Args:
        by: whose weights answer.
        temperature: of the sampling.
        max_tokens: most ids of an answer.
    """
    source: SampleSource = "teacher" if by == "teacher" else "retry"
    sent = yield from _behind_context(group, by, temperature, max_tokens)
    return _in_place(group, sent, source)


def rewrite(group: Group, *, verify: bool, temperature: float, max_tokens: int) -> Steps:
    """The teacher answers each turn that has a context anew. TRD, arXiv 2606.08432.

    Args:
        verify: drop what the verifier does not find right.
        temperature: of the sampling.
        max_tokens: most ids of an answer.
    """
    sent = yield from _behind_context(group, "teacher", temperature, max_tokens)
    edited = _in_place(group, sent, "rewrite")
    if not verify:
        return edited
    kept, dropped = [], list(edited.dropped)
    for item in edited.members:
        if item.source == "rewrite" and item.reward is None:
            dropped.append((item.claim.turn.id, "rewrite not verified"))
        elif item.source == "rewrite" and item.reward is not None and item.reward < RIGHT_FROM:
            dropped.append((item.claim.turn.id, "rewrite not right"))
        else:
            kept.append(item)
    return Edited(members=tuple(kept), dropped=tuple(dropped))


def next_answer(group: Group) -> Steps:
    """Beside each turn the answer that its conversation got once it was told what to do instead. Its log-probs are of
    the prompt that it was sampled on."""
    yield from ()
    members: list[Member] = []
    for item in group.members:
        members.append(item)
        later = group.later(item.claim)
        if later is not None:
            said = Answer(
                completion=later.completion, reply=later.reply, sampling=later.sampling, reward=None
            )
            members.append(replace(item, turn=answered(item.turn, said), source="next_answer", only="kd"))
    return Edited(members=tuple(members))


def confidence_rewrite(group: Group, *, threshold: float) -> Steps:
    """The last confidence that an answer states becomes the share of the group that was right. CaOPD, 2604.16830.

    What is stated in a context goes the same way. The edited span is tokenised anew, so no id of the sample has a
    log-prob that anybody recorded for it (law 1). An answer without a confidence stays as it is.

    Args:
        threshold: right from this reward on.
    """
    yield from ()
    rewards = list(group.rewards.values())
    if not rewards:
        return _dropped(group, group.members, "no accuracy for its confidence")
    accuracy = sum(reward >= threshold for reward in rewards) / len(rewards)
    assert group.text is not None, "confidence_rewrite needs the second stage"
    text = group.text
    hidden = [item for item in group.members if item.turn.redacted_spans]
    edited = _dropped(group, hidden, "redacted sample")  # whose ids are not those of their text
    return replace(
        edited,
        members=tuple(
            replace(item, confidence=accuracy, turn=confident(item.turn, text, accuracy))
            for item in edited.members
        ),
    )


def replaced(
    group: Group,
    *,
    k: int,
    source: Literal["retry", "rewrite", "teacher_trace", "replay"],
    when: Literal["all_fail", "better", "constant_group"],
    threshold: float,
    tries: int,
    bonus: float,
    temperature: float,
    max_tokens: int,
    path: str,
) -> Steps:
    """Up to k attempts, the worst first and drawn among equals, give way to better answers.

    Args:
        k: most attempts replaced.
        source: where the answers come from.
        when: which groups, and which answers are good enough.
        threshold: right from this reward on.
        tries: most retries of one answer.
        bonus: share of (R_new − R) that an attempt gets whose rewrite is better.
        temperature: of the sampling.
        max_tokens: most ids of an answer.
        path: not used; `traces` reads it.
    """
    del path
    before = group.rewards
    best = max(before.values(), default=None)
    is_asked = best is not None and (
        when == "better"
        or (when == "all_fail" and best < threshold)
        or (when == "constant_group" and len(set(before.values())) == 1)
    )
    if best is None or not is_asked:
        return Edited(members=group.members)

    def is_good(reward: float | None) -> bool:
        needed = {"all_fail": threshold, "better": best}.get(when)
        if reward is None:
            return False
        return reward > best if needed is None else reward >= needed

    firsts = _first_of_each(group)
    found: list[tuple[Turn, float, SampleSource]] = []
    members = list(group.members)
    if source == "retry":
        open_asks = [ask for item in firsts for ask in _asks(group, item, "policy", temperature, max_tokens)]
        group.random.shuffle(open_asks)
        for _ in range(tries):
            asked = open_asks[: k - len(found)]
            if not asked:
                break
            sent = yield asked
            for ask, answer in zip(asked, sent, strict=True):
                if answer is not None and is_good(answer.reward):
                    open_asks.remove(ask)
                    found.append((answered(ask.claim.turn, answer), answer.reward or 0.0, "retry"))
    elif source == "rewrite":
        asked = [ask for item in firsts for ask in _asks(group, item, "policy", temperature, max_tokens)]
        sent = yield asked
        raised: dict[str, float] = {}
        for ask, answer in zip(asked, sent, strict=True):
            if answer is None or answer.reward is None:
                continue
            old = before.get(ask.claim.turn.session)
            if old is not None and answer.reward > old:
                raised[ask.claim.turn.session] = old + bonus * (answer.reward - old)
            if is_good(answer.reward):
                found.append((answered(ask.claim.turn, answer), answer.reward, "rewrite"))
        members = [replace(item, reward=raised.get(item.attempt, item.reward)) for item in members]
    else:
        traces = group.traces(group.members[0].claim)
        found += [(item.turn, item.reward, item.source) for item in traces if is_good(item.reward)]
    found.sort(key=lambda item: -item[1])  # stable: of equally good ones the first found
    return _overwritten(replace(group, members=tuple(members)), found[:k])


def _dropped(group: Group, members: Sequence[Member], reason: str) -> Edited:
    """The group without these members."""
    return Edited(
        members=tuple(item for item in group.members if item not in members),
        dropped=tuple((item.claim.turn.id, reason) for item in members),
    )


def _asks(
    group: Group, item: Member, by: Literal["policy", "teacher"], temperature: float, max_tokens: int
) -> list[Ask]:
    """The asking behind a member's context; none where it has none."""
    view = group.view(item.claim)
    if view is None:
        return []
    return [
        Ask(
            claim=item.claim,
            prompt_ids=view.token_ids,
            by=by,
            temperature=temperature,
            max_tokens=max_tokens,
        )
    ]


def _behind_context(
    group: Group, by: Literal["policy", "teacher"], temperature: float, max_tokens: int
) -> Generator[Sequence[Ask], Sequence[Answer | None], dict[str, Answer | None]]:
    """What was sampled behind the context of each turn that has one, by the turn's id."""
    asks = [ask for item in group.members for ask in _asks(group, item, by, temperature, max_tokens)]
    sent = yield asks
    return {ask.claim.turn.id: answer for ask, answer in zip(asks, sent, strict=True)}


def _in_place(group: Group, sent: Mapping[str, Answer | None], source: SampleSource) -> Edited:
    """Each turn that was asked for has the new answer in the place of its own; each is an attempt of its own."""
    members: list[Member] = []
    dropped: list[tuple[str, str]] = []
    for item in group.members:
        name = item.claim.turn.id
        answer = sent.get(name)
        if name not in sent:
            members.append(item)
        elif answer is None:
            dropped.append((name, NO_ROOM))
        else:
            turn = answered(item.turn, answer)
            members.append(
                replace(item, turn=turn, source=source, reward=answer.reward, attempt=f"turn {name}")
            )
    return Edited(members=tuple(members), dropped=tuple(dropped))


def _first_of_each(group: Group) -> list[Member]:
    """The first turn of each judged attempt: where a new answer begins."""
    first: dict[str, Member] = {}
    for item in group.members:
        if item.reward is not None:
            first.setdefault(item.attempt, item)
    return list(first.values())


def _overwritten(group: Group, found: Sequence[tuple[Turn, float, SampleSource]]) -> Edited:
    """The worst attempts with the answers found in their place, one for one; their later turns are dropped."""
    firsts = _first_of_each(group)
    group.random.shuffle(firsts)
    firsts.sort(key=lambda item: item.reward or 0.0)
    taken = {item.attempt: (item, new) for item, new in zip(firsts, found, strict=False)}
    members: list[Member] = []
    dropped: list[tuple[str, str]] = []
    for item in group.members:
        if item.attempt not in taken:
            members.append(item)
            continue
        first, (turn, reward, source) = taken[item.attempt]
        if item is first:
            members.append(replace(item, turn=turn, reward=reward, source=source))
        else:
            dropped.append((item.claim.turn.id, WITH_ITS_EPISODE))
    return Edited(members=tuple(members), dropped=tuple(dropped))


TRANSFORMS: dict[str, Transform] = {
    "none": none,
    "drop_constant": drop_constant,
    "subset_max_var": subset_max_var,
    "retry": retry,
    "rewrite": rewrite,
    "next_answer": next_answer,
    "second_turn": second_turn,
    "confidence_rewrite": confidence_rewrite,
    "replace": replaced,
}
