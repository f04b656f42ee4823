"""A scheduler driven by hand: every step is a call, the clock is a number, nothing runs beside the test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from agentrl.config import EngineConfig
from agentrl.engine.base import Priority, Scores
from agentrl.engine.grammar import Grammars
from agentrl.engine.local_model import open_model
from agentrl.engine.local_scheduler import Scheduler
from agentrl.engine.local_worker import text_of
from agentrl.engine.messages import Abort, Drop, End, Generate, Load, Report, SampledRow, Score
from agentrl.errors import RequestError
from agentrl.types import Sampling


class Harness:
    def __init__(self, folder: Path, scheduler: type[Scheduler] = Scheduler, **settings: Any) -> None:
        self.config = EngineConfig(**{"precision": "fp32", "max_len": 512, **settings})
        self.model = open_model(folder, self.config)
        self.now = 0.0
        self.scheduler = scheduler(
            self.model,
            self.config,
            decoder=self.model.load(folder),
            decode=text_of(folder),
            grammars=Grammars(folder, self.model.vocab_size) if text_of(folder) else None,
            clock=lambda: self.now,
        )
        self.num_steps = 0
        self.sampled: dict[int, list[SampledRow]] = {}
        self.steps_of: dict[int, list[int]] = {}
        """By job: the step of each sampled id."""
        self.ended: dict[int, End] = {}
        self.ended_at: dict[int, int] = {}
        self.scores: dict[int, Scores] = {}
        self.done: list[int] = []
        self.failed: dict[int, Exception] = {}
        self.version_prefill_tokens = 0
        self._next = 0

    def number(self) -> int:
        self._next += 1
        return self._next

    def generate(
        self,
        prompt: Sequence[int],
        *,
        version: int | None = None,
        priority: Priority = Priority.USER,
        cache_key: str = "",
        **sampling: Any,
    ) -> int:
        job = self.number()
        self.scheduler.handle(
            Generate(
                job=job,
                prompt_ids=tuple(prompt),
                sampling=Sampling(**{"max_tokens": 8, "seed": job, **sampling}),
                version=version,
                priority=int(priority),
                cache_key=cache_key,
            )
        )
        return job

    def score(self, token_ids: Sequence[int], start: int, **settings: Any) -> int:
        job = self.number()
        command = {"version": None, "top_k": 0, "candidate_ids": None, "priority": 1, **settings}
        self.scheduler.handle(Score(job=job, token_ids=tuple(token_ids), start=start, **command))
        return job

    def abort(self, job: int) -> None:
        with torch.inference_mode():
            self.scheduler.handle(Abort(job=job))

    def load(self, number: int, path: Path, *, serve: bool = True) -> int:
        call = self.number()
        self.scheduler.handle(Load(call=call, number=number, path=str(path), serve=serve))
        return call

    def drop(self, number: int) -> int:
        call = self.number()
        self.scheduler.handle(Drop(call=call, number=number))
        return call

    def step(self, count: int = 1) -> bool:
        """Steps, and reads weights at once where the scheduler asks for them."""
        worked = False
        for _ in range(count):
            with torch.inference_mode():
                worked = self.scheduler.step()
                while (load := self.scheduler.take_load()) is not None:
                    self.scheduler.install(load, self.model.load(Path(load.path)))
            self.compile()
            self.num_steps += 1
            self._take(self.scheduler.take_report())
        return worked

    def compile(self) -> None:
        """Compiles at once what the scheduler asks for."""
        for text in self.scheduler.take_grammars():
            assert self.scheduler.grammars is not None
            try:
                self.scheduler.install_grammar(text, self.scheduler.grammars.compile(text))
            except RequestError as error:
                self.scheduler.fail_grammar(text, error)

    def run(self) -> None:
        """Steps until nothing is left to do."""
        while self.step() or self.scheduler.waiting:
            pass

    def _take(self, report: Report) -> None:
        for row in report.sampled:
            self.sampled.setdefault(row[0], []).append(row)
            self.steps_of.setdefault(row[0], []).append(self.num_steps)
        for end in report.ended:
            self.ended[end.job] = end
            self.ended_at[end.job] = self.num_steps
        self.scores |= dict(report.scored)
        self.done += report.done
        self.failed |= dict(report.failed)
        self.version_prefill_tokens = report.version_prefill_tokens

    def ids(self, job: int) -> list[int]:
        return [row[1] for row in self.sampled.get(job, [])]

    def raw(self, job: int) -> list[float]:
        return [row[3] for row in self.sampled[job]]

    def live(self) -> list[int]:
        return list(self.scheduler.versions.residents)

    def rows(self) -> int:
        """Rows in use."""
        return sum(len(resident.line) for resident in self.scheduler.versions)
