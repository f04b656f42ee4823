"""`agentrl judge score`: how well a judge agrees with the labelled turns, and at what cost.

Rewards are compared in three classes (-1, 0, 1) and a fourth, the abstention. A failure of the judge is an abstention
here and is counted beside it.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from agentrl.errors import ConfigError, JudgeError
from agentrl.signals.candidates import from_judge
from agentrl.signals.gates import admit, case_of
from agentrl.signals.judge import Judge, Judgement
from agentrl.signals.labelled import Half, LabelledTurn, as_turn, read_half
from agentrl.signals.rules import RuleJudge
from agentrl.types import NextState, SignalSource, Turn
from envs.loading import load_object
from server.statistics import percentile

NEUTRAL = 1 / 3
"""A reward nearer to 0 than this counts as neutral."""

MAX_SHOWN = 5
"""How many kinds of mistakes are named to people."""

Class = int | None
Answer = Judgement | Awaitable[Judgement]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the judge said of one labelled turn."""

    item: LabelledTurn
    judgement: Judgement
    seconds: float
    failed: bool = False

    @property
    def said(self) -> Class:
        return reward_class(self.judgement.reward)

    @property
    def truth(self) -> Class:
        return self.item.label.reward


def backend(name: str) -> Judge:
    """A judge by name: "rules", "path/file.py:Name" or "module:Name".

    `Name` is a Judge class without arguments, or a function of (Turn, NextState) to a Judgement, async or not.

    Raises:
        ConfigError: there is nothing of that name, or it is no judge.
    """
    if name == "rules":
        return RuleJudge()
    if ":" not in name or "://" in name:
        raise ConfigError(f"no judge is named {name!r}: write rules, path/file.py:Name or module:Name")
    found = load_object(name, "judge", is_judge)
    if inspect.isclass(found):
        if not is_judge(found):
            raise ConfigError(f"{name} is no judge: it lacks `async def judge(self, turn, next_state)`")
        return cast(Judge, found())
    if not callable(found):
        raise ConfigError(f"{name} is a {type(found).__name__}, not a Judge class or a function")
    return CallableJudge(found, name=name)


def is_judge(value: object) -> bool:
    """Whether a value is a class with the Judge protocol's method."""
    return inspect.isclass(value) and inspect.iscoroutinefunction(getattr(value, "judge", None))


class CallableJudge:
    """A user's function of (Turn, NextState) as a judge."""

    source = SignalSource.JUDGE

    def __init__(self, answer: Callable[[Turn, NextState], Answer], *, name: str) -> None:
        self._answer = answer
        self.name = name

    async def judge(self, turn: Turn, state: NextState) -> Judgement:
        answer = self._answer(turn, state)
        said = await answer if inspect.isawaitable(answer) else answer
        if not isinstance(said, Judgement):
            raise JudgeError(f"{self.name} returned a {type(said).__name__}, not a Judgement")
        return said


async def run_score(name: str, half: str) -> dict[str, Any]:
    """Asks the judge about every turn of a half, one after the other, and sums up."""
    if half not in get_args(Half):
        raise ConfigError(f"there is no half {half!r}; it is one of {', '.join(get_args(Half))}")
    judge = backend(name)
    items = read_half(cast(Half, half))
    return {"backend": name, "half": half} | summary(await verdicts(judge, items))


async def verdicts(judge: Judge, items: Iterable[LabelledTurn], *, timeout_s: float = 60.0) -> list[Verdict]:
    """What the judge says of each item. A judge that raises or is late has abstained, and failed."""
    found = []
    for item in items:
        start = time.perf_counter()
        failed = False
        try:
            said = await asyncio.wait_for(judge.judge(*as_turn(item)), timeout_s)
        except Exception as error:  # noqa: BLE001 - a judge is anybody's code; whatever it raises is a failure
            said, failed = Judgement(evidence=f"{type(error).__name__}: {error}"), True
        found.append(Verdict(item=item, judgement=said, seconds=time.perf_counter() - start, failed=failed))
    return found


def summary(found: Sequence[Verdict]) -> dict[str, Any]:
    """All figures of one run over one half, as plain data."""
    seconds = [verdict.seconds for verdict in found]
    pairs = [(verdict.truth, verdict.said) for verdict in found]
    gamed = [verdict for verdict in found if verdict.item.label.kind == "gamed"]
    outages = [verdict for verdict in found if verdict.item.label.fault == "infrastructure"]
    return {
        "num_failed": sum(verdict.failed for verdict in found),
        "first_failure": next((v.judgement.evidence for v in found if v.failed), None),
        **agreement(pairs),
        "kappa": kappa(pairs),
        "kappa_judged": kappa([pair for pair in pairs if None not in pair]),
        "gamed_rewarded": _share(sum(v.said == 1 for v in gamed), len(gamed)),
        "outages_punished": _share(sum(v.said == -1 for v in outages), len(outages)),
        "hints": hints(found),
        "gates": gated(found),
        "seconds_mean": _share(sum(seconds), len(seconds)),
        "seconds_p95": percentile(seconds, 0.95),
        "kinds": _grouped(found, lambda item: item.label.kind),
        "domains": _grouped(found, lambda item: item.domain),
        "mistakes": mistakes(found),
    }


def agreement(pairs: Sequence[tuple[Class, Class]]) -> dict[str, Any]:
    """Counts and shares of (truth, said) pairs.

    accuracy: of the turns that got a reward, the share that got the right one (a reward where an abstention was due is
    wrong). coverage: of the turns that have a right reward, the share that got any. abstention: of the turns about
    which nothing can be said, the share on which the judge abstained. A share of nothing is None.
    """
    judged = [(truth, said) for truth, said in pairs if said is not None]
    due = [said for truth, said in pairs if truth is not None]
    silent = [said for truth, said in pairs if truth is None]
    return {
        "num_turns": len(pairs),
        "num_judged": len(judged),
        "accuracy": _share(sum(truth == said for truth, said in judged), len(judged)),
        "coverage": _share(sum(said is not None for said in due), len(due)),
        "abstention": _share(sum(said is None for said in silent), len(silent)),
    }


def kappa(pairs: Sequence[tuple[Class, Class]]) -> float | None:
    """Agreement beyond chance, (p_o - p_e) / (1 - p_e), over the classes that occur (J. Cohen, EPM 20, 1960).

    None for no pairs, and where chance alone agrees always.
    """
    if not pairs:
        return None
    num = len(pairs)
    truths, said = Counter(truth for truth, _ in pairs), Counter(answer for _, answer in pairs)
    observed = sum(truth == answer for truth, answer in pairs) / num
    chance = sum(truths[each] * said[each] for each in truths) / num**2
    return None if chance == 1 else (observed - chance) / (1 - chance)


def hints(found: Sequence[Verdict]) -> dict[str, Any]:
    """Counts and shares of hints.

    precision: of the hints given, the share that was due and holds the words; recall: of those due, the share so given.
    """
    given = [verdict for verdict in found if verdict.judgement.hint is not None]
    due = [verdict for verdict in found if verdict.item.label.should_hint]
    right = sum(map(_hint_is_right, given))
    return {
        "num_given": len(given),
        "num_due": len(due),
        "precision": _share(right, len(given)),
        "recall": _share(right, len(due)),
    }


def gated(found: Sequence[Verdict]) -> dict[str, Any]:
    """What the gates leave of the hints given.

    acceptance: the share that passes; precision: the share of those that is right; kept: the share of the right ones
    that passes.
    """
    given = [verdict for verdict in found if verdict.judgement.hint is not None]
    passed = [verdict for verdict in given if _passes(verdict)]
    right = sum(map(_hint_is_right, passed))
    return {
        "acceptance": _share(len(passed), len(given)),
        "precision": _share(right, len(passed)),
        "kept": _share(right, sum(map(_hint_is_right, given))),
    }


def mistakes(found: Sequence[Verdict]) -> list[dict[str, Any]]:
    """What was said against what was right, by kind of signal, the most frequent first."""
    wrong = Counter((v.item.label.kind, v.truth, v.said) for v in found if v.truth != v.said)
    return [
        {"kind": kind, "right": truth, "said": said, "num_turns": num}
        for (kind, truth, said), num in wrong.most_common()
    ]


def reward_class(reward: float | None) -> Class:
    """-1, 0 or 1 for a reward in [-1, 1]; None for an abstention."""
    if reward is None:
        return None
    return 0 if abs(reward) < NEUTRAL else (1 if reward > 0 else -1)


def markdown(score: Mapping[str, Any]) -> str:
    """The figures of a run for a page of text: a table by kind of signal, then what concerns the whole half."""
    lines = [
        "| signal | turns | accuracy | coverage | right abstention |",
        "|---|---:|---:|---:|---:|",
        *(_row(name, row) for name, row in (score["kinds"] | score["domains"] | {"all": score}).items()),
    ]
    hint, gates = score["hints"], score["gates"]
    lines += [
        "",
        f"kappa {_number(score['kappa'])} with abstention as a class, {_number(score['kappa_judged'])} without; "
        f"gaming rewarded in {_percent(score['gamed_rewarded'])} of its turns, outages punished in "
        f"{_percent(score['outages_punished'])}; {hint['num_given']} hints given for {hint['num_due']} due, "
        f"precision {_percent(hint['precision'])}, recall {_percent(hint['recall'])}; the gates "
        f"accept {_percent(gates['acceptance'])}, precision then {_percent(gates['precision'])}; "
        f"{1000 * score['seconds_mean']:.3g} ms a turn; {score['num_failed']} failures of the judge"
        + (f", the first: {score['first_failure']}" if score["first_failure"] else "")
        + ".",
    ]
    worst = (
        f"{row['kind']} {_class(row['right'])} said {_class(row['said'])} ({row['num_turns']})"
        for row in score["mistakes"][:MAX_SHOWN]
    )
    return "\n".join([*lines, f"Most frequent mistakes: {', '.join(worst) or 'none'}."])


def _grouped(found: Sequence[Verdict], key: Callable[[LabelledTurn], str]) -> dict[str, Any]:
    names = sorted({key(verdict.item) for verdict in found})
    return {name: agreement([(v.truth, v.said) for v in found if key(v.item) == name]) for name in names}


def _passes(verdict: Verdict) -> bool:
    turn, state = as_turn(verdict.item)
    said = verdict.judgement
    case = case_of(turn, state, reward=said.reward, votes=said.votes)
    return bool(admit([from_judge(said.hint or "", state)], case).accepted)


def _hint_is_right(verdict: Verdict) -> bool:
    hint = (verdict.judgement.hint or "").casefold()
    label = verdict.item.label
    return label.should_hint and all(word.casefold() in hint for word in label.hint_contains)


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _row(name: str, row: Mapping[str, Any]) -> str:
    shares = " | ".join(_percent(row[share]) for share in ("accuracy", "coverage", "abstention"))
    return f"| {name} | {row['num_turns']} | {shares} |"


def _class(reward: Class) -> str:
    return "nothing" if reward is None else str(reward)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
