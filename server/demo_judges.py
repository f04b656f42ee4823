"""`agentrl demo --judge self`: the served policy judges beside the rules, and the house knows who is right.

A command that the house refuses is wrong, one that does the task is right. Once learning is over, the rules and the
policy, at the version that judged and at the last one, are asked afresh and alone about the same turns of the learning
phase; what was recorded while it learned stands beside them. Those questions are no one's turns and are never trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from agentrl.config import Config, load_config
from agentrl.errors import ConfigError
from agentrl.signals.judge import Judge, Judgement
from agentrl.signals.labelled import Label, LabelledTurn
from agentrl.signals.rules import RuleJudge
from agentrl.store.signal_log import SignalLog
from agentrl.text.content import message_text
from agentrl.types import NextState, SignalSource, Turn
from server.auth import judge_key
from server.judge_figures import Verdict, summary
from server.judge_score import spread, verdicts
from server.judges import make_bench
from server.run_folder import run_secret

RULES: Final = "rules"
SELF: Final = "self"
RIGHT: Final = "progress"
WRONG: Final = "error"
"""The kinds of what followed a command that did the task, and one that did not."""
MAX_ASKED: Final = 800
"""Turns about which every judge is asked afresh."""

SETTINGS: Final[dict[str, Any]] = {
    "judge__backend": "self",
    # About every turn of which the rules are not certain: on the others a demo would have nothing to compare.
    "judge__when": "always",
    # Learning a house makes so small a model forget how to judge; the version that it began with stays.
    "judge__model": "nano@0",
    # It has learned the one answer that a turn deserves: samples of it only disagree.
    "judge__votes": 1,
    "judge__temperature": 0.0,
    "judge__max_tokens": 96,
    "judge__max_concurrent": 8,
    "judge__max_calls_per_hour": 0,
    "judge__max_tokens_per_hour": 0,
}
"""Of the run whose policy judges itself; `--set` changes any of them."""


class Truths:
    """What the house knows of the turns of the learning phase, by session and number."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, list[bool | None]]] = {}

    def note(self, session: str, right: str, did_it: list[bool | None]) -> None:
        """One episode.

        Args:
            right: the command that the house wants.
            did_it: for each turn whether its commands did the task; None where it had none.
        """
        self._known[session] = (right, did_it)

    async def turns(self, log: SignalLog, scope: str = "default") -> list[LabelledTurn]:
        """The turns with a truth whose outcome was seen, each with what a judge should say of it."""
        found = []
        for session, (right, did_it) in self._known.items():
            turns = await log.turns_of(session, scope)
            for turn, was_right in zip(turns, did_it, strict=False):
                state = await log.next_state(turn.id)
                if was_right is not None and state is not None and state.end is None and state.messages:
                    found.append(labelled(turn, state, was_right=was_right, right=right))
        return found


def labelled(turn: Turn, state: NextState, *, was_right: bool, right: str) -> LabelledTurn:
    """A turn of the house as one of the labelled set; a hint is due where what followed names the right command."""
    is_told = not was_right and any(right in message_text(message) for message in state.messages)
    return LabelledTurn(
        id=turn.id,
        domain="terminal",
        half="test",
        made_by="demo",
        messages=turn.messages,
        tools=turn.tools,
        reply=turn.reply,
        next=state.messages,
        end=None,
        label=Label(
            reward=1 if was_right else -1,
            fault="none" if was_right else "agent",
            kind=RIGHT if was_right else WRONG,
            should_hint=is_told,
            hint_contains=(right,) if is_told else (),
        ),
        reason="the command did the task" if was_right else "the command did not do the task",
    )


async def compared(
    log: SignalLog, truths: Truths, config: Config, *, base_url: str, versions: Sequence[int]
) -> dict[str, Any]:
    """The figures of every judge on the same turns.

    Args:
        truths: of the learning phase.
        config: of the run that is still served at `base_url`.
        versions: of the policy that are asked.
    """
    items = await truths.turns(log)
    asked = spread(items, MAX_ASKED)
    found = {RULES: await _asked(RuleJudge(), asked)}
    for number in versions:
        settings = load_config(None, [], **_of_version(config, number))
        bench = make_bench(
            settings,
            own_url=lambda: base_url + "/v1",
            own_key=judge_key(run_secret(Path(config.run_dir))),
            with_rules=False,
        )
        try:
            found[f"{SELF}@{number}"] = await _asked(
                bench.judge, asked, at_once=settings.judge.max_concurrent, timeout_s=bench.timeout_s
            )
        finally:
            await bench.aclose()
    kept = [await recorded(log, item) for item in items]
    return {
        "judged_by": config.judge.model or config.served_name,
        "asked_afresh": found,
        "recorded": figures(kept) | {"decided_by": _deciders(kept)},
    }


async def recorded(log: SignalLog, item: LabelledTurn) -> Verdict:
    """What the log holds of a judge on one turn, hints behind the gates; nothing recorded is an abstention."""
    said_of = [one for one in await log.signals(item.id) if one.offered is None]
    kept = [one for one in said_of if one.source is not SignalSource.ENVIRONMENT]
    said = next((one for one in kept if one.source is SignalSource.JUDGE), kept[0] if kept else None)
    judgement = (
        Judgement(evidence="nothing recorded")
        if said is None
        else Judgement(reward=said.reward, hint=said.hint, evidence=said.evidence, source=said.source)
    )
    return Verdict(item=item, judgement=judgement, seconds=0.0)


def figures(found: Sequence[Verdict]) -> dict[str, Any]:
    """Of `judge_figures.summary` what a house can tell: it knows the truth of every turn."""
    whole = summary(found)
    return {
        **_shares(whole),
        "num_failed": whole["num_failed"],
        "hints": {name: _rounded(value) for name, value in whole["hints"].items()},
        "right_turns": _shares(whole["kinds"].get(RIGHT)),
        "wrong_turns": _shares(whole["kinds"].get(WRONG)),
        "seconds_mean": _rounded(whole["seconds_mean"]),
    }


def rows(judges: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row a judge: name, turns, accuracy, coverage, abstained, hints given, hints that name the right command."""
    named = {
        **judges["asked_afresh"],
        f"as recorded ({judges['judged_by']} behind the rules)": judges["recorded"],
    }
    return [
        (
            name,
            str(row["num_turns"]),
            *(_percent(row[what]) for what in ("accuracy", "coverage", "abstained")),
            str(row["hints"]["num_given"]),
            _percent(row["hints"]["precision"]),
        )
        for name, row in named.items()
    ]


HEADINGS: Final = ("judge", "turns", "accuracy", "coverage", "abstained", "hints", "hints that are right")


def refuse_other_judges(name: str) -> None:
    """Raises ConfigError for a judge that the demo does not have."""
    if name not in (RULES, SELF):
        raise ConfigError(f"there is no judge {name!r} in the demo; it is {RULES} or {SELF}")


async def _asked(judge: Judge, items: Sequence[LabelledTurn], **options: Any) -> dict[str, Any]:
    return figures(await verdicts(judge, items, **options))


def _of_version(config: Config, number: int) -> dict[str, Any]:
    judge = {f"judge__{name}": value for name, value in config.judge.model_dump().items()}
    own = {
        "model": config.model,
        "name": config.served_name,
        "judge__model": f"{config.served_name}@{number}",
    }
    return judge | own


def _deciders(found: Sequence[Verdict]) -> dict[str, int]:
    """How many rewards came from the rules, and how many from the model."""
    return dict(Counter(str(one.judgement.source) for one in found if one.said is not None))


def _shares(row: Mapping[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {"num_turns": 0, "num_judged": 0, "accuracy": None, "coverage": None, "abstained": None}
    shown = {name: _rounded(row[name]) for name in ("num_turns", "num_judged", "accuracy", "coverage")}
    return shown | {
        "abstained": _rounded(1 - row["num_judged"] / row["num_turns"]) if row["num_turns"] else None
    }


def _rounded(value: float | None) -> float | None:
    return round(value, 4) if isinstance(value, float) else value


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"
