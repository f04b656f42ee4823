"""What a run is doing, as one JSON object: what `agentrl status` and the web page show."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentrl.config import Config
from agentrl.engine.base import Engine
from agentrl.errors import AgentRLError
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.types import JSON, PolicyVersion
from server.guard_pages import guards_of
from server.judges import Bench
from server.learner_child import LearnerChild
from server.metrics import Metrics
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
    ) -> None:
        self._config = config
        self._engine = engine
        self._log = log
        self._versions = versions
        self._metrics = metrics
        self._learner = learner
        self._bench = bench
        self._began = time.time()

    async def __call__(self) -> JSON:
        """Raises StoreError, EngineError."""
        capacity = await self._engine.capacity()
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
            "learner": learner_report(self._learner),
            "latency": self._metrics.latency(),
            "counts": await self._log.counts(),
            "hints": self._metrics.hints_by_outcome(),
            "judge": self._bench.report(),
            "guards": guards_of(Path(self._config.run_dir)),
            "account": None,
            "versions": [],
            "lessons": {},
        }
        if learning is not None:
            report |= await asyncio.to_thread(learning_report, learning, self._config.policy)
        return report


def learner_report(learner: LearnerChild | None) -> JSON:
    if learner is None:
        return {"state": "off", "num_crashes": 0}
    return {"state": learner.state, "num_crashes": learner.num_crashes}


def learning_report(log: LearningLog, policy: str) -> JSON:
    """What learning.db holds; an account that cannot be read now is reported as the sentence that says why."""
    try:
        account: Any = asdict(log.account(policy))
        versions = [version_report(version) for version in log.versions(policy)]
        lessons = log.lesson_counts(policy)
    except AgentRLError as error:
        return {"account": None, "versions": [], "lessons": {}, "learning_error": str(error)}
    return {"account": account, "versions": versions, "lessons": lessons}


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
