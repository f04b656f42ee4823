"""What the commands say of a run, read from its folder: they work beside a running server and without one."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentrl.errors import StoreError, UserError
from agentrl.learner import control
from agentrl.recipes.recipe import Recipe, load_recipe
from agentrl.store.account import Account
from agentrl.store.database import LEARNING_NAME, LOG_NAME
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from server.run_files import ask_server, existing_run, settings_of
from server.skills_pages import skills_of_turn


def status_of(run_dir: Path) -> dict[str, Any]:
    """The running server's own word, else what the files say."""
    live = ask_server(run_dir, "/v1/status")
    if live is not None:
        return live
    policy = settings_of(run_dir).policy
    if not (run_dir / LEARNING_NAME).exists():
        return {
            "server": "not running",
            "policy": policy,
            "serving": 0,
            "learner": "has never worked in this run",
        }
    with learning_log(run_dir) as log:
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
    rows: list[dict[str, Any]] = []
    if not (run_dir / LEARNING_NAME).exists():
        return rows
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


def export(run_dir: Path, number: int, out: Path, *, merged: bool) -> str:
    """Copies a version to `out`; see `agentrl.learner.adapters.export_version`."""
    from agentrl.learner.adapters import export_version  # loads torch, which no other command here needs

    policy = settings_of(run_dir).policy
    with learning_log(run_dir) as log:
        base, version = log.version(policy, 0), log.version(policy, number)
    if base is None or version is None or not version.path:
        raise UserError(
            f"version {number} has no files in {run_dir}: `agentrl versions --json` shows which are on_disk"
        )
    return export_version(run_dir / version.path, run_dir / base.path, out, merged=merged)


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
        return await log.explain(found) | {"skills": skills_of_turn(run_dir, found)}


def diagnose(run_dir: Path) -> dict[str, Any]:
    """The account of law 3 and the first condition of learning that is not met."""
    run = existing_run(run_dir)
    settings = settings_of(run)
    live = ask_server(run, "/v1/status")
    if not (run / LEARNING_NAME).exists():
        return {"account": None, "finding": why_no_learner(live, is_enabled=settings.learn.enabled)}
    with learning_log(run) as log:
        account = log.account(settings.policy)
        serving = log.serving(settings.policy)
    return {
        "account": asdict(account),
        "balanced": account.balanced,
        "serving_version": serving.number,
        "finding": first_unmet(
            account,
            load_recipe(settings.learn.recipe, settings.learn.overrides),
            is_running=live is not None,
            is_paused=control.is_paused(run),
            learner=(live or {}).get("learner"),
        ),
    }


def why_no_learner(live: dict[str, Any] | None, *, is_enabled: bool) -> str:
    """Why no learner ever worked in a run's folder."""
    if not is_enabled:
        return "the run learns nothing by its settings: start it without --no-learn, or `agentrl learner` beside it"
    if live is None:
        return "no server is running for this folder: start `agentrl serve`"
    state = live.get("learner", {}).get("state")
    return f"the learner process is {state}: learner.log in the run folder says why"


def first_unmet(
    account: Account, recipe: Recipe, *, is_running: bool, is_paused: bool, learner: dict[str, Any] | None
) -> str:
    """The first condition on the way from a request to a trained turn that does not hold, with its remedy."""
    trained, rejected, pending = account.trained, account.rejected, account.pending
    why, number = max(rejected.items(), key=lambda item: item[1], default=("", 0))
    state = (learner or {}).get("state")
    checks = (
        (not is_running, "no server is running for this folder: start `agentrl serve`"),
        (is_paused, "learning is paused: `agentrl resume`"),
        (
            state not in (None, "off", "running", "starting"),
            f"the learner process is {state}: learner.log in the run folder says why",
        ),
        (
            account.accepted == 0 and bool(account.apart),
            f"all turns are marked as not for learning ({', '.join(account.apart)}): "
            "call without /eval/ in the URL and without the header X-Purpose",
        ),
        (account.accepted == 0, "no turn was recorded yet: point an agent at the server"),
        (
            pending["open"] == account.accepted,
            "no turn has a next state yet: the agent must go on with the conversation, or send /v1/feedback",
        ),
        (pending["unjudged"] > pending["waiting"] + trained, "the judge is behind: turns wait for it"),
        (
            trained == 0 and recipe.group_size > 1 and pending["waiting"] > 0,
            f"recipe {recipe.name!r} compares groups of {recipe.group_size} episodes, and none is complete: play them "
            f"with `agentrl rollout --group-size {recipe.group_size}`",
        ),
        (
            trained == 0 and recipe.uses_pairs and pending["waiting"] >= recipe.batch.turns_per_step,
            f"recipe {recipe.name!r} compares two answers to one prompt, and the turns that wait have no partner: ask "
            "again and go on with the answer that is kept, or send /v1/feedback with the text of a `preferred` one",
        ),
        (
            trained == 0 and number > pending["waiting"] + pending["claimed"],
            f"{number} turns were set aside as {why!r} by recipe {recipe.name!r}: "
            + REMEDIES.get(why, "`agentrl explain` shows one of them"),
        ),
        (
            trained == 0,
            f"{pending['waiting'] + pending['claimed']} turns wait for the learner: it steps at "
            f"{recipe.batch.turns_per_step} turns, or once the first has waited {recipe.batch.max_wait_s:g} s",
        ),
    )
    most = f"; {number} were set aside as {why!r}" if number > trained else ""
    return next(
        (text for unmet, text in checks if unmet), f"nothing is wrong: {trained} turns were trained{most}"
    )


NOTHING_SAID = "their next states said nothing of what should have been done; send it as text by /v1/feedback"
REMEDIES = {
    "no context": NOTHING_SAID,
    "no_hint": NOTHING_SAID,
    "no teacher score": "the file of teacher 'cached' lacks them: score them with score_turns, or set teacher = 'self'",
    "no_reward": "send rewards by /v1/feedback",
    "gate": "every candidate was turned down by the gate: lower optim.lr, or see `agentrl versions`",
    "side": "requests without tools beside ones with tools count as titles and summaries",
    "client_gone": "the clients left before the reply was whole",
}
"""What to do about the reasons that a run is most often full of."""


def learning_log(run_dir: Path, *, read_only: bool = True) -> LearningLog:
    return LearningLog(existing_run(run_dir), read_only=read_only)


def clock(at: float | None) -> str | None:
    return None if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
