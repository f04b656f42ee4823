"""What the learner's guards found, for status, doctor and metrics; the learner leaves it in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentrl.learner import control
from agentrl.learner.guard_report import read_report
from agentrl.types import JSON
from server.clocks import clock

SET_ASIDE = {
    "contradicted": "other sessions in the same situation speak against what was said of them, or fewer than "
    "guards.min_sessions say so yet; learner.log says which; they are freed when more sessions agree with them",
    "untrusted": "their only signals come from sources with guards.trust 0",
    "empty_approval": "their user approves of everything",
}
"""Reasons of the guards, and what they mean."""
DISAPPROVE = (
    "a key's next disapproval frees its newest approvals (guards.approval_span); a program that grades sends "
    "/v1/feedback with source 'environment'"
)
REFUSED = {"leak": "leaks", "useless": "useless"}
"""Outcomes of hints that the learner refuses, and its counts of them over the whole run."""
BUDGETS = {
    "kl_update": "guards.max_kl_update",
    "kl_base": "guards.max_kl_base",
    "probe_fall": "guards.max_fall",
}


NO_ANSWERS = (
    "and version 0's own answers were no measure of guards.max_kl_base: the recipe shows its teacher no context or has "
    "another model for one, or no trained prompt is shorter than the model's length"
)
"""Why drift from version 0 is unknown even though it needs no rewards."""
RESUME = "`agentrl resume` goes on; where what serves answers badly, `agentrl rollback 0` first"
"""What ends a pause."""


def guards_of(run_dir: Path) -> JSON:
    """The newest report with the pause, whoever asked for it."""
    return read_report(run_dir) | {
        "paused": control.is_paused(run_dir),
        "paused_because": control.pause_reason(run_dir) or None,
    }


def findings(guards: Mapping[str, Any], rejected: Mapping[str, int]) -> list[str]:
    """What an operator should know of the guards, a sentence each.

    Args:
        guards: as `guards_of` gives them.
        rejected: the account's, by reason.
    """
    found = []
    if guards.get("paused_because"):
        found.append(f"learning was paused: {guards['paused_because']}; look at it, then `agentrl resume`")
    if guards.get("alarm"):
        found.append(f"the watch's newest alarm, {alarm_said(guards['alarm'])}")
    found += [
        f"{rejected[name]} turns are set aside as {name!r}: {why}"
        for name, why in SET_ASIDE.items()
        if rejected.get(name)
    ]
    if guards.get("empty_approvals"):
        found.append(
            f"{guards['empty_approvals']} approvals count for nothing: their API keys approve of everything; "
            f"{DISAPPROVE}"
        )
    return found


def alarm_said(alarm: Mapping[str, Any]) -> str:
    """The newest alarm of the watch, and what was done, as one sentence."""
    said = f"{clock(alarm['at'])}: {'; '.join(alarm['reasons'])}"
    if "serves" in alarm:
        over = ", ".join(alarm["passed_over"])
        said += f"; version {alarm['serves']} serves again"
        return said + (f", versions {over} were passed over, bad as well" if over else "")
    if alarm.get("acts") == "report":
        return (
            said
            + "; nothing was done, for guards.watch = 'report': `agentrl rollback` serves an earlier version"
        )
    return said


def pause_of(guards: Mapping[str, Any]) -> JSON:
    """The state of a paused learner, why, and what ends it; nothing where learning is not paused."""
    if not guards.get("paused"):
        return {}
    because = guards.get("paused_because") or "somebody asked for it (`agentrl pause`)"
    return {"state": "paused", "because": because, "remedy": RESUME}


def not_measured(guards: Mapping[str, Any]) -> str:
    """Which budgets bound nothing in the newest version, and what would let them; "" where all did."""
    blind = [BUDGETS[name] for name in guards.get("budget", {}).get("not_measured", []) if name in BUDGETS]
    if not blind:
        return ""
    said = (
        f"the newest version against {', '.join(blind)}: the gate's probe holds too few rewarded turns; send rewards "
        "by /v1/feedback"
    )
    return f"{said}; {NO_ANSWERS}" if BUDGETS["kl_base"] in blind else said


def numbers(guards: Mapping[str, Any]) -> dict[str, float]:
    """The report as flat numbers: "kl_base", "entropy", "entropy_reference", .."""
    found = {name: float(value) for name, value in guards.get("budget", {}).items() if name in BUDGETS}
    for name, figure in guards.get("watch", {}).items():
        if isinstance(figure, dict):
            found |= {name: float(figure["now"]), f"{name}_reference": float(figure["reference"])}
    found |= {f"share_{kind}": float(value) for kind, value in guards.get("shares", {}).items()}
    found["paused"] = float(bool(guards.get("paused")))
    found |= {
        name: float(guards.get(name, 0)) for name in ("quarantined", "empty_approvals", *REFUSED.values())
    }
    return found
