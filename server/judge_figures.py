"""What the labelled turns say of a judge: agreement beyond chance, coverage, hints, cost, and where it should abstain.

Rewards are compared in three classes (-1, 0, 1) and a fourth, the abstention. A failure of the judge is an abstention
here and is counted beside it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentrl.signals.candidates import from_judge
from agentrl.signals.gates import admit, case_of
from agentrl.signals.judge import Judgement
from agentrl.signals.labelled import LabelledTurn, as_turn
from agentrl.signals.meter import PROMPT_TOKENS, REQUESTS, SAMPLED_TOKENS, Meter
from server.statistics import percentile, share

NEUTRAL = 1 / 3
"""A reward nearer to 0 than this counts as neutral."""

MAX_SHOWN = 5
"""How many kinds of mistakes are named to people."""

Class = int | None


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


def cost(meter: Meter | None, num_turns: int) -> dict[str, float] | None:
    """Requests and tokens for each turn of the set; None where no model was asked."""
    if meter is None or not num_turns:
        return None
    return {what: meter.counts[what] / num_turns for what in (REQUESTS, PROMPT_TOKENS, SAMPLED_TOKENS)}


def calibrated(found: Sequence[Verdict], target: float) -> dict[str, Any]:
    """The lowest threshold of agreement from which on the votes' judgements are right often enough.

    Selective prediction: a threshold trades coverage for accuracy (Y. Geifman, R. El-Yaniv, NeurIPS 2017). Right often
    enough is where the lower end of the accuracy's 95 % Wilson interval reaches the target. It is the best of several
    thresholds, so that the interval flatters it: `at_agreement` on other turns checks it.

    Args:
        found: of a judge that did not abstain for want of agreement.
        target: accuracy that is wanted of what it judges, in [0, 1].

    Returns:
        min_agreement: None where no threshold reaches the target; and what every threshold gives.
    """
    agreements = {v.judgement.agreement for v in found if v.judgement.agreement is not None}
    # Down to three digits, so that 2 of 3 votes pass the threshold as it is written.
    rows = [at_agreement(found, math.floor(1000 * one) / 1000) for one in sorted(agreements)]
    fitting = [row["min_agreement"] for row in rows if row["low"] >= target]
    return {"target": target, "min_agreement": min(fitting, default=None), "thresholds": rows}


def at_agreement(found: Sequence[Verdict], threshold: float) -> dict[str, Any]:
    """What the votes' judgements are worth where as many agree: how many, the share that is right with the lower end of
    its 95 % Wilson interval, and the share of the turns due a reward that they are.
    """
    judged = [v for v in found if v.said is not None and (v.judgement.agreement or -1.0) >= threshold]
    right = sum(v.truth == v.said for v in judged)
    due = sum(v.truth is not None for v in found)
    return {
        "min_agreement": threshold,
        "num_judged": len(judged),
        "accuracy": _share(right, len(judged)),
        "low": share(right, len(judged)).low,
        "coverage": _share(sum(v.truth is not None for v in judged), due),
    }


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
        "kinds": _grouped(found, lambda verdict: verdict.item.label.kind),
        "domains": _grouped(found, lambda verdict: verdict.item.domain),
        "sources": _grouped(
            [v for v in found if v.said is not None], lambda verdict: str(verdict.judgement.source or "judge")
        ),
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
        "| signal | turns | accuracy | kappa | coverage | right abstention |",
        "|---|---:|---:|---:|---:|---:|",
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
        *_more(score),
    ]
    worst = (
        f"{row['kind']} {_class(row['right'])} said {_class(row['said'])} ({row['num_turns']})"
        for row in score["mistakes"][:MAX_SHOWN]
    )
    return "\n".join([*lines, f"Most frequent mistakes: {', '.join(worst) or 'none'}."])


def _grouped(found: Sequence[Verdict], key: Callable[[Verdict], str]) -> dict[str, Any]:
    groups: dict[str, list[tuple[Class, Class]]] = {}
    for verdict in sorted(found, key=key):
        groups.setdefault(key(verdict), []).append((verdict.truth, verdict.said))
    return {name: agreement(pairs) | {"kappa": kappa(pairs)} for name, pairs in groups.items()}


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


def _more(score: Mapping[str, Any]) -> list[str]:
    """What only judges that ask a model have: who decided how much, what a turn cost, where to abstain."""
    lines = []
    spent, fit = score.get("cost"), score.get("calibration")
    if spent:
        decided = (
            f"{name} {row['num_judged']} turns, right in {_percent(row['accuracy'])}"
            for name, row in score["sources"].items()
        )
        lines.append(
            f"Decided by: {'; '.join(decided) or 'nobody'}. A turn cost {spent[REQUESTS]:.2f} requests, "
            f"{spent[PROMPT_TOKENS]:.0f} tokens read and {spent[SAMPLED_TOKENS]:.0f} written."
        )
    if fit:
        best, checked = fit["min_agreement"], fit.get("checked")
        lines += [
            f"The votes on {fit['num_turns']} turns of the half dev, by the least agreement that is asked for:",
            "",
        ]
        lines += [
            "| min_agreement | judged | accuracy | at least (95 %) | coverage |",
            "|---:|---:|---:|---:|---:|",
        ]
        lines += [_fit_row(row) for row in fit["thresholds"]]
        chosen = "no agreement reaches it" if best is None else f"set judge.min_agreement = {best:g}"
        lines += ["", f"For an accuracy of {_percent(fit['target'])} at least: {chosen}."]
        if checked is not None:
            lines[-1] += (
                f" On the half {score['half']} that gives {_percent(checked['accuracy'])} of {checked['num_judged']} "
                f"judged turns right (at least {_percent(checked['low'])}), coverage {_percent(checked['coverage'])}."
            )
    return lines


def _fit_row(row: Mapping[str, Any]) -> str:
    shares = " | ".join(_percent(row[share]) for share in ("accuracy", "low", "coverage"))
    return f"| {row['min_agreement']:g} | {row['num_judged']} | {shares} |"


def _row(name: str, row: Mapping[str, Any]) -> str:
    shares = " | ".join(_percent(row[share]) for share in ("coverage", "abstention"))
    return (
        f"| {name} | {row['num_turns']} | {_percent(row['accuracy'])} | {_number(row['kappa'])} | {shares} |"
    )


def _class(reward: Class) -> str:
    return "nothing" if reward is None else str(reward)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
