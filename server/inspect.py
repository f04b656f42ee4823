"""What the commands say of a run, read from its folder: they work beside a running server and without one."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentrl.errors import StoreError, UserError
from agentrl.learner import control
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from server.run_files import ask_server, existing_run, settings_of

LOG_NAME = "log.db"


def status_of(run_dir: Path) -> dict[str, Any]:
    """The running server's own word, else what the files say."""
    live = ask_server(run_dir, "/v1/status")
    if live is not None:
        return live
    with learning_log(run_dir) as log:
        policy = settings_of(run_dir).policy
        return {
            "server": "not running",
            "policy": policy,
            "serving": log.serving(policy).number,
            "account": asdict(log.account(policy)),
            "learning_paused": control.is_paused(run_dir),
        }


def versions_of(run_dir: Path) -> list[dict[str, Any]]:
    """One row for each version, oldest first."""
    policy = settings_of(run_dir).policy
    rows = []
    with learning_log(run_dir) as log:
        for version in log.versions(policy):
            steps = [step for step in map(log.step, version.step_ids) if step is not None]
            events = log.events(policy, version.number)
            rows.append(
                {
                    "number": version.number,
                    "parent": version.parent,
                    "state": version.state.value,
                    "num_steps": len(steps),
                    "num_turns": len({turn for step in steps for turn in step.turn_ids}),
                    "served_at": clock(version.served_at),
                    "reason": events[-1][1] if events else None,
                    "metrics": version.metrics,
                    "on_disk": bool(version.path),
                }
            )
    return rows


def roll_back(run_dir: Path, number: int, reason: str) -> str:
    """Serves an ancestor again. Raises UserError where it cannot be."""
    policy = settings_of(run_dir).policy
    with learning_log(run_dir, read_only=False) as log:
        try:
            gone = log.rollback(policy, number, reason)
        except StoreError as error:
            raise UserError(f"cannot roll back to {number}: {error}") from error
    return f"version {number} serves again; set aside: {', '.join(map(str, gone)) or 'nothing'}"


def set_paused(run_dir: Path, *, paused: bool) -> str:
    changed = control.set_paused(existing_run(run_dir), paused=paused)
    state = "paused" if paused else "on"
    return f"learning is {state}" if changed else f"learning was {state} already"


async def explain_turn(run_dir: Path, turn: str) -> dict[str, Any]:
    """One turn from request to version. `turn` is a turn id, a response id ("chatcmpl-...") or "last"."""
    async with await SignalLog.open(existing_run(run_dir) / LOG_NAME, read_only=True) as log:
        found = await log.find_turn(turn)
        if found is None:
            raise UserError(
                f"the log of {run_dir} has no turn {turn!r}; `agentrl explain last` shows the newest"
            )
        return await log.explain(found)


def diagnose(run_dir: Path) -> dict[str, Any]:
    """The account of law 3 and the first condition of learning that is not met."""
    run = existing_run(run_dir)
    settings = settings_of(run)
    live = ask_server(run, "/v1/status")
    with learning_log(run) as log:
        account = log.account(settings.policy)
        serving = log.serving(settings.policy)
    return {
        "account": asdict(account),
        "balanced": account.balanced,
        "serving_version": serving.number,
        "finding": first_unmet(
            is_running=live is not None,
            is_enabled=settings.learn.enabled,
            is_paused=control.is_paused(run),
            recipe=settings.learn.recipe,
            accepted=account.accepted,
            trained=account.trained,
            rejected=account.rejected,
            pending=account.pending,
            apart=account.apart,
            learner=(live or {}).get("learner"),
        ),
    }


def first_unmet(
    *,
    is_running: bool,
    is_enabled: bool,
    is_paused: bool,
    recipe: str,
    accepted: int,
    trained: int,
    rejected: dict[str, int],
    pending: dict[str, int],
    apart: dict[str, int],
    learner: dict[str, Any] | None,
) -> str:
    """The first condition on the way from a request to a trained turn that does not hold, with its remedy."""
    from agentrl.recipes.recipe import load_recipe

    needs = load_recipe(recipe).needs
    lacking = rejected.get(f"no_{needs}", 0)
    checks = (
        (not is_running, "no server is running for this folder: start `agentrl serve`"),
        (not is_enabled, "the server runs with learning off: start it without --no-learn"),
        (is_paused, "learning is paused: `agentrl resume`"),
        (
            learner is not None and learner.get("state") not in ("running", "starting"),
            f"the learner process is {(learner or {}).get('state')}: learner.log in the run folder says why",
        ),
        (
            accepted == 0 and bool(apart),
            f"all turns are marked as not for learning ({', '.join(apart)}): "
            "call without /eval/ in the URL and without the header X-Purpose",
        ),
        (accepted == 0, "no turn was recorded yet: point an agent at the server"),
        (
            pending["open"] == accepted,
            "no turn has a next state yet: the agent must go on with the conversation, or send /v1/feedback",
        ),
        (pending["unjudged"] > pending["waiting"] + trained, "the judge is behind: turns wait for it"),
        (
            trained == 0 and lacking > 0 and not pending["waiting"] and not pending["claimed"],
            f"{lacking} turns were judged without a {needs}, which recipe {recipe!r} needs: "
            + (
                "their next states said nothing of what should have been done"
                if needs == "hint"
                else "send rewards by /v1/feedback"
            ),
        ),
        (
            trained == 0 and rejected.get("gate", 0) > 0,
            "every candidate was turned down by the gate: lower optim.lr, or see `agentrl versions`",
        ),
        (trained == 0, "turns wait for the learner: it steps at turns_per_step turns or after max_wait_s"),
    )
    return next((text for unmet, text in checks if unmet), f"nothing is wrong: {trained} turns were trained")


def learning_log(run_dir: Path, *, read_only: bool = True) -> LearningLog:
    return LearningLog(existing_run(run_dir), read_only=read_only)


def clock(at: float | None) -> str | None:
    return None if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
