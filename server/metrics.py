"""Counters of one server, on a registry of its own: two servers in one process do not mix."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from agentrl.engine.base import Capacity
from agentrl.types import JSON, Turn
from server.guard_pages import REFUSED
from server.request import JUDGE_SCOPE
from server.statistics import p50_p95

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
NUM_RECENT = 1000


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.responses = self._counter("responses", "HTTP responses to chat requests", "status")
        self.turns = self._counter("turns", "Recorded turns", "kind", "purpose", "arm")
        self.matches = self._counter("matches", "How requests were matched to the turn they answer", "how")
        self.ends = self._counter("ends", "Turns that ended without an ordinary next state", "end")
        self.tokens = self._counter("tokens", "Ids of recorded turns", "what")
        self.failures = self._counter("failures", "Typed errors that ended a choice", "error")
        self.store_failures = self._counter(
            "store_failures", "Turns and next states that the log could not take"
        )
        self.unrecorded = self._counter(
            "unrecorded_turns", "Turns served although the log could not take them"
        )
        self.late_states = self._counter("late_next_states", "Next states of turns that had one already")
        self.signals = self._counter("feedback_signals", "Signals received by /v1/feedback", "source")
        self.hints = self._counter("hints", "Hints that judges gave, by what the gates said", "outcome")
        self.judge = self._counter("judge", "What a judge that asks a model did and cost", "what")
        self.redacted = self._counter("redacted_turns", "Recorded turns that held secrets kept from disk")
        self.learner_restarts = self._counter("learner_restarts", "Learner processes that crashed")
        self.version_failures = self._counter("version_load_failures", "Versions the engine could not load")
        self.prompts = self._counter("prompts", "How prompts were built", "built")
        self.shown = self._counter("lesson_turns", "Recorded turns in whose prompt lessons stood")
        self.first_token_s = self._histogram("first_token_seconds", "Receipt to the first sampled id")
        self.latency_s = self._histogram("turn_seconds", "Receipt to the commit of the turn")
        self.commit_s = self._histogram("commit_seconds", "Waiting for the log to commit a turn")
        self.in_flight = self._gauge("in_flight_turns", "Choices being sampled")
        self.running = self._gauge("engine_running", "Requests that the engine decodes")
        self.queued = self._gauge("engine_queued", "Requests that wait for the engine")
        self.version = self._gauge("policy_version", "Newest version served")
        self.version_prefill = self._gauge(
            "version_prefill_tokens", "Ids prefilled again because of a version change, since the start"
        )
        self.guards = Gauge(
            "agentrl_guards", "What the learner's guards measured last", ("what",), registry=self.registry
        )
        self.read_guards: Callable[[], Mapping[str, float]] = dict
        """Asked by name for what the guards measured, whenever somebody looks."""
        self.num_refused = dict.fromkeys(REFUSED, 0)
        """By outcome how many of the hints that the learner refused are in `hints`, or from before the start."""
        self._recent_latency: deque[float] = deque(maxlen=NUM_RECENT)
        self._recent_first: deque[float] = deque(maxlen=NUM_RECENT)

    def recorded(self, turn: Turn, *, num_cached: int) -> None:
        """One turn went into the log."""
        self.turns.labels(turn.kind, turn.purpose, turn.arm).inc()
        self.tokens.labels("prompt").inc(len(turn.prompt_ids))
        self.tokens.labels("prompt_cached").inc(num_cached)
        self.tokens.labels("sampled").inc(len(turn.completion.token_ids))
        self.prompts.labels(turn.prompt_built_by.partition(":")[0]).inc()
        if turn.redacted_spans:
            self.redacted.inc()
        if turn.shown_lessons:
            self.shown.inc()
        # What the server asks itself is no measure of how long clients wait.
        if turn.error is not None or turn.scope == JUDGE_SCOPE:
            return
        self.latency_s.observe(turn.latency_s)
        self._recent_latency.append(turn.latency_s)
        if turn.first_token_s is not None:
            self.first_token_s.observe(turn.first_token_s)
            self._recent_first.append(turn.first_token_s)

    def observe(self, capacity: Capacity) -> None:
        self.running.set(capacity.running)
        self.queued.set(capacity.queued)
        self.version_prefill.set(capacity.version_prefill_tokens)

    def latency(self) -> JSON:
        """Seconds over the newest turns, for people."""
        return {
            "num_turns": len(self._recent_latency),
            "turn_s": p50_p95(self._recent_latency, 4),
            "first_token_s": p50_p95(self._recent_first, 4),
        }

    def hints_by_outcome(self) -> JSON:
        """ "accepted", "offered" beside those, "shortened", and by gate what was refused since the start."""
        self._count_refused()
        [family] = self.hints.collect()
        return {
            sample.labels["outcome"]: int(sample.value)
            for sample in family.samples
            if sample.name.endswith("_total")
        }

    def refused(self) -> dict[str, int]:
        """By outcome the hints that the learner refused over the whole run: what a recipe forbids and what a teacher
        makes of a hint is known there alone."""
        found = self.read_guards()
        return {outcome: int(found.get(name, 0)) for outcome, name in REFUSED.items()}

    def _count_refused(self) -> None:
        for outcome, total in self.refused().items():
            if total > self.num_refused[outcome]:
                self.hints.labels(outcome).inc(total - self.num_refused[outcome])
                self.num_refused[outcome] = total

    def exposition(self) -> bytes:
        self._count_refused()
        for name, value in self.read_guards().items():
            self.guards.labels(name).set(value)
        return generate_latest(self.registry)

    def total(self, name: str, **labels: str) -> float:
        """The value of one sample by its short name; 0.0 where nothing was counted yet."""
        return self.registry.get_sample_value(f"agentrl_{name}", labels) or 0.0

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"agentrl_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"agentrl_{name}", text, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"agentrl_{name}", text, buckets=SECONDS, registry=self.registry)
