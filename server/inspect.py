"""What the commands say of a run, read from its folder: they work beside a running server and without one."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentrl.errors import StoreError, UserError
from agentrl.learner import control
from agentrl.learner.card import Provenance
from agentrl.recipes.eligibility import GREEDY, GREEDY_PARTNER
from agentrl.recipes.recipe import Recipe, load_recipe
from agentrl.store.account import Account
from agentrl.store.backlog import REASONS, Backlog
from agentrl.store.database import LEARNING_NAME, LOG_NAME
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.types import PolicyVersion
from server.guard_pages import findings, guards_of
from server.judge_reach import unreachable
from server.run_files import ask_server, existing_run, settings_of
from server.skills_pages import skills_of_turn


def status_of(run_dir: Path) -> dict[str, Any]:
    """The running server's own word, else what the files say."""
    live = ask_server(run_dir, "/v1/status")
    if live is not None:
        return live
    policy = settings_of(run_dir).policy
    if not has_learned(run_dir, policy):
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
            "guards": guards_of(run_dir),
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

    settings = settings_of(run_dir)
    with learning_log(run_dir) as log:
        base, version = log.version(settings.policy, 0), log.version(settings.policy, number)
        if base is None or version is None or not version.path:
            raise UserError(
                f"version {number} has no files in {run_dir}: `agentrl versions --json` shows which are on_disk"
            )
        origin = origin_of(log, version, settings.model)
    return export_version(run_dir / version.path, run_dir / base.path, out, merged=merged, origin=origin)


def origin_of(log: LearningLog, version: PolicyVersion, model: str) -> Provenance:
    """Where a version comes from, as learning.db has it."""
    line = [version]
    while (parent := line[0].parent) is not None:
        before = log.version(version.policy, parent)
        assert before is not None, f"version {parent} is the parent of {line[0].number}"
        line.insert(0, before)
    steps = [step for item in line for step in map(log.step, item.step_ids) if step is not None]
    return Provenance(
        model=model,
        policy=version.policy,
        line=[item.number for item in line],
        state=str(version.state),
        created_at=version.created_at,
        steps=Counter(step.recipe for step in steps),
        num_turns=len({turn_id for step in steps for turn_id in step.turn_ids}),
    )


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
    silent = unreachable(settings.judge)
    judge = {} if silent is None else {"judge": silent}
    if not has_learned(run, settings.policy):
        return (
            {"account": None} | judge | {"finding": why_no_learner(live, is_enabled=settings.learn.enabled)}
        )
    recipe = load_recipe(settings.learn.recipe, settings.learn.overrides)
    with learning_log(run) as log:
        account = log.account(settings.policy)
        serving = log.serving(settings.policy)
        waiting = log.backlog(
            settings.policy,
            needs=recipe.needs,
            group_size=recipe.group_size,
            max_age_s=settings.learn.max_age_s,
            uses=recipe.batch.uses_per_turn,
        )
    return {
        "account": asdict(account),
        "balanced": account.balanced,
        "serving_version": serving.number,
        "backlog": {reason: asdict(turns) for reason, turns in waiting.items()},
        "left_out": left_out(account, recipe),
        "guards": findings(guards_of(run), account.rejected),
        **judge,
        "finding": first_unmet(
            account,
            waiting,
            recipe,
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
    account: Account,
    waiting: Backlog,
    recipe: Recipe,
    *,
    is_running: bool,
    is_paused: bool,
    learner: dict[str, Any] | None,
) -> str:
    """The first condition on the way from a request to a trained turn that does not hold, with its remedy; of the
    turns that wait now, what most of them wait for."""
    trained, num_waiting = account.trained, sum(account.pending.values())
    why, number = max(account.rejected.items(), key=lambda item: item[1], default=("", 0))
    state = (learner or {}).get("state")
    set_aside = f"{number} turns were set aside as {why!r} by recipe {recipe.name!r}: " + REMEDIES.get(
        why, "`agentrl explain` shows one of them"
    )
    held_up = backlog_finding(waiting, recipe)
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
            account.pending["open"] == account.accepted,
            "no turn has a next state yet: the agent must go on with the conversation, or send /v1/feedback",
        ),
        (trained == 0 and number > num_waiting - account.pending["open"], set_aside),
        (trained == 0, held_up or "no turn was trained yet, and none waits"),
        (bool(STUCK.intersection(waiting)), f"{trained} turns were trained; {held_up}"),
    )
    most = f"; {number} were set aside as {why!r}" if number > trained else ""
    wait = f"; {held_up}" if held_up else ""
    return next(
        (text for unmet, text in checks if unmet),
        f"nothing is wrong: {trained} turns were trained{most}{wait}",
    )


STUCK = frozenset({"approval", "group", "partner"})
"""What turns may wait for without end unless somebody does something."""


def backlog_finding(waiting: Backlog, recipe: Recipe) -> str:
    """What most of the turns wait for that something has followed, and the remedy; "" where there are none.

    Turns that wait for somebody to do something are named before those that go on by themselves.
    """
    known = {reason: turns for reason, turns in waiting.items() if reason != "next_state"}
    if not known:
        return ""
    stuck = STUCK.intersection(known)
    reason = max(stuck or known, key=lambda name: (known[name].num_turns, -REASONS.index(name)))
    number = known[reason].num_turns
    texts = {
        "judge": "wait for the judge: it is behind",
        "approval": "wait for the approval of hints, their own or those of like turns: `agentrl lessons list --state "
        "proposed` shows them",
        "group": f"wait for their group: recipe {recipe.name!r} compares groups of {recipe.group_size} episodes that "
        f"ended with a reward, and too few have: play them with `agentrl rollout --group-size {recipe.group_size}`",
        "partner": f"have no partner: recipe {recipe.name!r} compares two answers to one prompt: ask again and go on "
        "with the answer that is kept, or send /v1/feedback with the text of a `preferred` one",
        "step": f"wait for the learner: it steps at {recipe.batch.turns_per_step} turns, or once the first has waited "
        f"{recipe.batch.max_wait_s:g} s",
        "version": "are in the learner's hands, or in a step whose version does not serve yet",
    }
    return f"{number} turns {texts[reason]}"


def left_out(account: Account, recipe: Recipe) -> list[str]:
    """What a law keeps from training, which no waiting changes."""
    forced, partners = account.rejected.get(GREEDY, 0), account.rejected.get(GREEDY_PARTNER, 0)
    what = "turns of pairs" if recipe.uses_pairs else "turns"
    beside = f", and {partners} compared with such a one" if partners else ""
    return [f"{forced} {what} left out: {ONE_ID}{beside}"] if forced else []


NOTHING_SAID = "their next states said nothing of what should have been done; send it as text by /v1/feedback"
ONE_ID = "sampled with one allowed id, e.g. temperature 0; law 7"
REMEDIES = {
    GREEDY: f"{ONE_ID}: sample at a temperature above 0",
    GREEDY_PARTNER: "the other answer of the pair was " + ONE_ID,
    "no context": NOTHING_SAID,
    "no_hint": NOTHING_SAID,
    "no teacher score": "the file of teacher 'cached' lacks them: score them with score_turns, or set teacher = 'self'",
    "lesson_rejected": "their lessons were rejected: `agentrl lessons list` shows them, `approve` brings them back",
    "lesson_retired": "their lessons were retired: `agentrl lessons list` shows them, `approve` brings them back",
    "no_reward": "send rewards by /v1/feedback",
    "lesson_shown": "lessons stood in their prompts; those without teach the weights: lower learn.show_share for more",
    "judge_failed": "the judge failed as often as it may: `agentrl explain` of such a turn says why",
    "gate": "every candidate was turned down by the gate: lower optim.lr, or see `agentrl versions`",
    "side": "requests without tools beside ones with tools count as titles and summaries",
    "client_gone": "the clients left before the reply was whole",
}
"""What to do about the reasons that a run is most often full of."""


def has_learned(run_dir: Path, policy: str) -> bool:
    """Whether a learner has ever begun the line; the file alone may have been made by `agentrl lessons`."""
    if not (run_dir / LEARNING_NAME).exists():
        return False
    with learning_log(run_dir) as log:
        return log.version(policy, 0) is not None


def learning_log(run_dir: Path, *, read_only: bool = True) -> LearningLog:
    return LearningLog(existing_run(run_dir), read_only=read_only)


def clock(at: float | None) -> str | None:
    return None if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
