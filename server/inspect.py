"""What the commands say of a run, read from its folder: they work beside a running server and without one."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentrl.errors import StoreError, UserError
from agentrl.learner import control
from agentrl.learner.card import Provenance
from agentrl.store.database import LEARNING_NAME, LOG_NAME
from agentrl.store.learning_log import LearningLog
from agentrl.store.lost import refuse_lost
from agentrl.store.signal_log import SignalLog
from agentrl.types import PolicyVersion
from server.clocks import clock
from server.guard_pages import guards_of
from server.lessons_pages import lessons_of
from server.run_files import ask_server, existing_run, settings_of
from server.skills_pages import skills_of_turn
from server.taught_pages import taught_of
from server.typed import command


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
        refused = log.refused(policy)
        return {
            "server": "not running",
            "policy": policy,
            "serving": log.serving(policy).number,
            "account": asdict(log.account(policy)),
            "refused": None if refused is None else asdict(refused),
            "guards": guards_of(run_dir),
            "learning_paused": control.is_paused(run_dir),
        }


def versions_of(run_dir: Path) -> list[dict[str, Any]]:
    """One row for each version, oldest first."""
    policy = settings_of(run_dir).policy
    rows: list[dict[str, Any]] = []
    refuse_lost(run_dir)
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
                    "served_at": None if version.served_at is None else clock(version.served_at),
                    "reason": events[-1][1] if events else None,
                    "metrics": version.metrics,
                    "on_disk": on_disk(run_dir, version),
                }
            )
    return rows


def on_disk(run_dir: Path, version: PolicyVersion) -> bool:
    """Whether a version's files are there: as the log says, and not taken away by somebody else."""
    return bool(version.path) and (run_dir / version.path).is_dir()


def roll_back(run_dir: Path, number: int, reason: str) -> str:
    """Serves an ancestor again. Raises UserError where it cannot be."""
    policy = settings_of(run_dir).policy
    if not has_learned(run_dir, policy):
        why = "it serves already" if number == 0 else f"there is no version {number}"
        raise UserError(
            f"cannot roll back to {number}: {why}; no learner has worked in {run_dir}, so version 0, the model itself, "
            "is all there is"
        )
    with learning_log(run_dir, read_only=False) as log:
        try:
            gone = log.rollback(policy, number, reason)
        except StoreError as error:
            raise UserError(
                f"cannot roll back to {number}: {error}; {command('versions', run_dir)} lists all"
            ) from error
    going = "whose files go when the learner next tidies up"
    aside = f"{', '.join(map(str, gone))}, {going}" if gone else "nothing"
    return f"version {number} serves again; set aside: {aside}"


def export(run_dir: Path, number: int, out: Path, *, merged: bool) -> str:
    """Copies a version to `out`; see `agentrl.learner.adapters.export_version`."""
    from agentrl.learner.adapters import export_version  # loads torch, which no other command here needs

    settings = settings_of(run_dir)
    with learning_log(run_dir) as log:
        base, version = log.version(settings.policy, 0), log.version(settings.policy, number)
        if base is None or version is None or not on_disk(run_dir, version):
            raise UserError(
                f"version {number} has no files: {command('versions', run_dir)} shows which are on_disk"
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


async def explain_turn(run_dir: Path, turn: str, *, of_any_kind: bool = False) -> dict[str, Any]:
    """One turn from request to version. `turn` is a turn id, a response id ("chatcmpl-...") or "last"; see
    `SignalLog.find_turn`."""
    async with await SignalLog.open(existing_run(run_dir) / LOG_NAME, read_only=True) as log:
        found = await log.find_turn(turn, of_any_kind=of_any_kind)
        if found is None:
            if turn != "last":
                last = command("explain last", run_dir)
                remedy = f"no turn {turn!r}; {last} shows the newest that may be learned from"
            elif await log.find_turn("last", of_any_kind=True) is None:
                remedy = "no turn; point an agent at the server"
            else:
                remedy = (
                    "no turn that may be learned from, only evaluations, side turns or a control arm; "
                    f"{command('explain last --any', run_dir)} shows the newest"
                )
            raise UserError(f"the log of {run_dir} has {remedy}")
        story = await log.explain(found)
    told = story["turn"]
    if told["shown_lessons"]:
        texts = {lesson.id: lesson.text for lesson in lessons_of(run_dir, told["scope"])}
        told["shown_lessons"] = [{"id": name, "text": texts.get(name)} for name in told["shown_lessons"]]
    story |= {"skills": skills_of_turn(run_dir, found), "taught": taught_of(run_dir, story)}
    if turn == "last" and not story["steps"]:
        story["newest_trained_turn"] = newest_trained(run_dir)
    return story


def newest_trained(run_dir: Path) -> str | None:
    """A turn of which everything can be told: one of the newest step."""
    policy = settings_of(run_dir).policy
    if not has_learned(run_dir, policy):
        return None
    with learning_log(run_dir) as log:
        return log.newest_trained(policy)


def has_learned(run_dir: Path, policy: str) -> bool:
    """Whether a learner has ever begun the line; the file alone may have been made by `agentrl lessons`."""
    refuse_lost(run_dir)
    if not (run_dir / LEARNING_NAME).exists():
        return False
    with learning_log(run_dir) as log:
        return log.version(policy, 0) is not None


def learning_log(run_dir: Path, *, read_only: bool = True) -> LearningLog:
    return LearningLog(existing_run(run_dir), read_only=read_only)
