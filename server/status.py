"""What a run is doing, as one JSON object: what `agentrl status` and the web page show."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentrl.config import Config
from agentrl.engine.base import Engine
from agentrl.errors import AgentRLError
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.types import JSON, PolicyVersion
from server.clocks import clock
from server.guard_pages import alarm_said, guards_of, pause_of
from server.judges import Bench
from server.learner_child import LearnerChild
from server.metrics import Metrics
from server.shown import ShownLessons
from server.versions import Versions


class Status:
    def __init__(
        self,
        *,
        config: Config,
        engine: Engine,
        log: SignalLog,
        versions: Versions,
        metrics: Metrics,
        learner: LearnerChild | None,
        bench: Bench,
        shown: ShownLessons | None = None,
    ) -> None:
        self._config = config
        self._engine = engine
        self._log = log
        self._versions = versions
        self._metrics = metrics
        self._learner = learner
        self._bench = bench
        self._shown = shown
        self._began = time.time()

    async def __call__(self) -> JSON:
        """Raises StoreError, EngineError."""
        capacity = await self._engine.capacity()
        guards = guards_of(Path(self._config.run_dir))
        learning = self._versions.learning_log()
        report: JSON = {
            "model": self._config.served_name,
            "run_dir": self._config.run_dir,
            "up_s": time.time() - self._began,
            "policy": self._config.policy,
            "recipe": self._config.learn.recipe if self._config.learn.enabled else None,
            "serving": {
                "newest": self._versions.newest,
                "models": list(self._versions.names),
                "resident": list(capacity.resident_versions),
            },
            "engine": asdict(capacity)
            | {"precision": self._engine.precision, "max_len": self._engine.max_len},
            "learner": learner_report(self._learner, guards),
            "latency": self._metrics.latency(),
            "counts": await self._log.counts(),
            "hints": self._metrics.hints_by_outcome(),
            "judge": self._bench.report(),
            "shown": self._shown_report(),
            "guards": guards,
            "account": None,
            "versions": [],
            "refused": None,
            "lessons": {},
        }
        if learning is not None:
            report |= await asyncio.to_thread(learning_report, learning, self._config.policy)
        return report

    def _shown_report(self) -> JSON | None:
        """Lessons in prompts; None where none are shown."""
        if self._shown is None:
            return None
        return self._shown.report() | {
            "num_turns_since_start": int(self._metrics.total("lesson_turns_total"))
        }


def learner_report(learner: LearnerChild | None, guards: Mapping[str, Any]) -> JSON:
    """The learner's one state: its process's, or "paused" where that stands and claims nothing."""
    if learner is None:
        return {"state": "off", "num_crashes": 0}
    pause = pause_of(guards) if learner.state in ("starting", "running") else {}
    return {"state": learner.state} | pause | {"num_crashes": learner.num_crashes}


def learning_report(log: LearningLog, policy: str) -> JSON:
    """What learning.db holds; an account that cannot be read now is reported as the sentence that says why."""
    try:
        account: Any = asdict(log.account(policy))
        versions = [version_report(version) for version in log.versions(policy)]
        refused = log.refused(policy)
        lessons = log.lesson_counts(policy)
    except AgentRLError as error:
        return {"account": None, "versions": [], "refused": None, "lessons": {}, "learning_error": str(error)}
    return {
        "account": account,
        "versions": versions,
        "refused": None if refused is None else asdict(refused),
        "lessons": lessons,
    }


NEWEST = 3
"""Versions that the short report names."""


def short(report: JSON) -> JSON:
    """The report for a screen: of the versions how many and the newest, of the counts their sums and what is not zero.

    `agentrl status --all` prints the whole, `agentrl versions` a row for every version.
    """
    found = {name: value for name, value in report.items() if name not in ("versions", "engine", "guards")}
    for name in ("counts", "hints", "judge", "lessons"):
        if name in found:
            kept = {one: value for one, value in (found[name] or {}).items() if value and "." not in one}
            found[name] = kept
    serving = report.get("serving")
    if isinstance(serving, dict):
        found["serving"] = serving | {"models": len(serving["models"]), "resident": len(serving["resident"])}
    account = report.get("account")
    if account is not None:
        found["account"] = {
            name: {one: number for one, number in value.items() if number}
            if isinstance(value, dict)
            else value
            for name, value in account.items()
        }
    versions = report.get("versions") or []
    if versions:
        states = Counter(version["state"] for version in versions)
        newest = {str(version["number"]): _line(version) for version in versions[-NEWEST:]}
        found["versions"] = {"num": len(versions), **states, "newest": newest}
    guards = report.get("guards") or {}
    paused = found.pop("learning_paused", False) or guards.get("paused")
    if paused and "state" not in (found.get("learner") or {}):  # no server is there to say so
        found["learner"] = pause_of(guards)
    if guards.get("alarm"):
        found["alarm"] = alarm_said(guards["alarm"])
    return found | {"more": "`agentrl status --all`, `agentrl versions`, `agentrl doctor`"}


def _line(version: JSON) -> str:
    served = version["served_at"]
    at = "" if served is None else f", served from {clock(served)} on"
    return f"{version['state']}, {version['num_steps']} steps{at}"


def version_report(version: PolicyVersion) -> JSON:
    return {
        "number": version.number,
        "parent": version.parent,
        "state": str(version.state),
        "num_steps": len(version.step_ids),
        "created_at": version.created_at,
        "served_at": version.served_at,
        "metrics": version.metrics,
    }
