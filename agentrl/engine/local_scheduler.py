"""Continuous batching over several policy versions. Plain calls, no threads: `step` does all there is to do next.

    step:  move   requests whose version was superseded too long ago      (their prefill begins again elsewhere)
           admit  the most urgent waiting requests, while rows are free   (reusing their conversation's earlier turns;
                  one whose grammar is being compiled lets the others go first)
           for each version with work: one forward pass, in which
               every decoding request feeds its newest id                 -> one sampled id each
               prefilling requests feed up to prefill_chunk ids in all    -> those that complete sample their first id
           end    requests that are done; their rows close up

So a long prompt costs the others at most `prefill_chunk` ids of work between two of their ids, and several short
prompts are read in one pass. A version is a batch of its own, since it has weights of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from agentrl.config import EngineConfig
from agentrl.engine.base import Priority
from agentrl.engine.grammar import Grammar, Grammars
from agentrl.engine.kv import KEEP_POSITIONS, Conversation, Conversations, Rows, common_prefix
from agentrl.engine.local_attention import Piece, Step
from agentrl.engine.local_job import Decode, Generation, Job, Scoring, generation, scoring
from agentrl.engine.local_model import Decoder, Model
from agentrl.engine.local_versions import Resident, Versions
from agentrl.engine.messages import Abort, Command, Drop, Generate, Load, Report, Score
from agentrl.engine.sampling import draw
from agentrl.errors import EngineError, RequestError, VersionGone
from agentrl.types import FinishReason


class Scheduler:
    """Decides what every forward pass computes. One thread calls it."""

    def __init__(
        self,
        model: Model,
        config: EngineConfig,
        *,
        number: int = 0,
        decoder: Decoder,
        decode: Decode | None = None,
        grammars: Grammars | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            model: what the versions share.
            config: engine settings.
            number: the version that is served first.
            decoder: its weights.
            decode: ids to text, for stop strings; None where the model folder has no tokenizer.
            grammars: of the same tokenizer; None where there is none.
            clock: seconds; tests bring their own.
        """
        self.model = model
        self.config = config
        self._spare: Tensor | None = None
        """Rows of the version that went last, for the next one: with a version a second, setting them up shows."""
        self.decode = decode
        self.grammars = grammars
        self._uncompiled: list[str] = []
        self._compiling: set[str] = set()
        self.clock = clock
        self.waiting: list[Job] = []
        self.conversations = Conversations(config.max_cached_tokens)
        self.versions = Versions(config.max_resident_versions, config.stick_s, config.max_pin_s)
        self.versions.residents[number] = self._resident(number, decoder)
        self.versions.serving = number
        self.version_prefill_tokens = 0
        self.report = Report()
        self._jobs: dict[int, Job] = {}
        self._arrivals = 0

    # -- commands -----------------------------------------------------------------------------------------------

    def handle(self, command: Command) -> None:
        """Takes one command; what comes of it is in a later report."""
        match command:
            case Generate():
                self._arrivals += 1
                job = generation(command, self._arrivals, self.model.max_len, self.decode)
                self._constrain(job)
                self._enqueue(job)
            case Score():
                self._arrivals += 1
                self._enqueue(scoring(command, self._arrivals))
            case Abort():
                self._abort(command.job)
            case Load():
                self._ask(command)
            case Drop():
                self._answer(command.call, lambda: self.versions.release(command.number))

    def _enqueue(self, job: Job) -> None:
        if job.pinned is not None:
            try:
                self.versions.named(job.pinned).num_waiting += 1
            except VersionGone as error:
                self.report.failed.append((job.job, error))
                return
        self._jobs[job.job] = job
        self.waiting.append(job)

    def _abort(self, number: int) -> None:
        job = self._jobs.get(number)
        if job is None:
            return
        if isinstance(job, Generation):
            self.report.ended.append(job.end(FinishReason.ABORT))
        if job.row < 0:
            self._forget(job)
        else:
            self._leave(job)

    def _forget(self, job: Job) -> None:
        """Ends a request that has not begun."""
        self.waiting.remove(job)
        del self._jobs[job.job]
        if job.pinned is not None:
            self.versions[job.pinned].num_waiting -= 1

    def _ask(self, load: Load) -> None:
        try:
            replaced = self.versions.ask(load)
        except EngineError as error:
            self.report.failed.append((load.call, error))
            return
        for other in replaced:
            newer = VersionGone(f"version {other.number} was replaced by {load.number} before it became live")
            self.report.failed.append((other.call, newer))

    def _answer(self, call: int, action: Callable[[], None]) -> None:
        try:
            action()
        except EngineError as error:
            self.report.failed.append((call, error))
        else:
            self.report.done.append(call)

    # -- grammars -----------------------------------------------------------------------------------------------

    def _constrain(self, job: Generation) -> None:
        """Gives a request its constraint, or has its grammar compiled."""
        text = job.command.sampling.grammar
        if text is None:
            return
        assert self.grammars is not None, "a grammar was asked for without a tokenizer"
        grammar = self.grammars.ready(text)
        if grammar is not None:
            job.follow(grammar)
        elif text not in self._compiling:
            self._compiling.add(text)
            self._uncompiled.append(text)

    def take_grammars(self) -> list[str]:
        """Texts to compile now; `install_grammar` or `fail_grammar` must follow for each."""
        texts, self._uncompiled = self._uncompiled, []
        return texts

    def install_grammar(self, text: str, grammar: Grammar) -> None:
        """Lets the requests begin that waited for a grammar."""
        for job in self._waiting_for(text):
            job.follow(grammar)

    def fail_grammar(self, text: str, error: RequestError) -> None:
        for job in self._waiting_for(text):
            self.report.failed.append((job.job, error))
            self._forget(job)

    def _waiting_for(self, text: str) -> list[Generation]:
        self._compiling.discard(text)
        waiting = [job for job in self.waiting if isinstance(job, Generation) and not job.ready]
        return [job for job in waiting if job.command.sampling.grammar == text]

    # -- versions -----------------------------------------------------------------------------------------------

    def take_load(self) -> Load | None:
        """The version to read from disk now; `install` or `fail_load` must follow."""
        return self.versions.next_load()

    def install(self, load: Load, decoder: Decoder) -> None:
        """Makes a version live whose weights were read."""
        self.versions.install(load, self._resident(load.number, decoder), self.clock())
        self.report.done.append(load.call)

    def fail_load(self, load: Load, error: Exception) -> None:
        self.versions.loading = None
        self.report.failed.append((load.call, error))

    def _resident(self, number: int, decoder: Decoder) -> Resident:
        rows = Rows(self.model.kv_shape, self._spare)
        self._spare = None
        return Resident(number, decoder, rows, held=False)

    def _advance(self, now: float) -> None:
        """Moves what is overdue and lets unused versions go."""
        for load in self.versions.settle(now):
            self.report.done.append(load.call)
        for job in self.versions.overdue(now):
            self._move(job, self.versions[self.versions.serving])
        for resident in self.versions.gone(now):
            self.conversations.forget_version(resident.number)
            if resident.rows.num_positions <= KEEP_POSITIONS:
                self._spare = resident.rows.storage

    def _move(self, job: Job, target: Resident) -> None:
        source, row, filled = self.versions[job.version], job.row, job.filled
        target.join(job)
        job.filled = self.carry(source, row, filled, job)
        source.leave(row)
        job.num_version_prefill += filled - job.filled
        self.version_prefill_tokens += filled - job.filled
        job.restart()

    def carry(self, source: Resident, row: int, filled: int, job: Job) -> int:
        """How many positions of a moved request stay valid on its new version.

        None: keys and values belong to the weights that computed them. With any of them kept, the log-probs of the
        ids that follow would be those of no policy at all.
        """
        return 0

    # -- one step -----------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Does what is next. Returns False when there was nothing to compute."""
        now = self.clock()
        self._advance(now)
        self._admit(now)
        shares = self._shares()
        worked = False
        for resident in self.versions:
            if resident.line:
                worked |= self._forward(resident, shares)
        if not worked:
            return False
        # A version whose last request ended with this step may go, and a waiting candidate take its place.
        self._advance(now)
        return True

    def take_report(self) -> Report:
        """What happened since the last call."""
        report, self.report = self.report, Report()
        report.running = self.num_running
        report.resident = tuple(self.versions.residents)
        report.version_prefill_tokens = self.version_prefill_tokens
        return report

    @property
    def num_running(self) -> int:
        return len(self._jobs) - len(self.waiting)

    def deadline(self) -> float | None:
        """When `step` must be called although nothing happens, in seconds of the clock."""
        return self.versions.deadline()

    def _admit(self, now: float) -> None:
        if not self.waiting or self.num_running >= self.config.max_running:
            return
        self.waiting.sort(key=lambda job: job.urgency)
        for job in [job for job in self.waiting if job.ready]:
            if self.num_running >= self.config.max_running:
                return
            if self._is_being_read(job, now):
                continue
            self.waiting.remove(job)
            self._begin(job, now)

    def _begin(self, job: Job, now: float) -> None:
        """Gives a request its version and row, and what its conversation has computed on that version."""
        matches = self.conversations.match(job.cache_key, job.ids)
        if job.pinned is None:
            resident = self.versions.begin_on(matches, now)
        else:
            resident = self.versions[job.pinned]
            resident.num_waiting -= 1
        resident.join(job)
        if matches:
            self._reuse(job, resident, matches)
        self._copy(job, resident)
        lost = max((length for entry, length in matches if entry.version != resident.number), default=0)
        job.num_version_prefill = max(0, lost - job.filled)
        self.version_prefill_tokens += job.num_version_prefill
        if isinstance(job, Scoring) and not job.ids:
            self._finish_scoring(job)

    def _reuse(self, job: Job, resident: Resident, matches: list[tuple[Conversation, int]]) -> None:
        for entry, length in matches:
            if entry.version == resident.number and entry.saved is not None:
                resident.rows.load(job.row, entry.saved, length)
                self.conversations.touch(entry)
                job.filled = job.num_cached = length
                break

    def _is_being_read(self, job: Job, now: float) -> bool:
        """Whether another choice of the same request reads the prompt just now: what it computes is then copied.

        One on another version computes nothing that could be copied, and one that is less urgent may be read late.
        """
        reading = {
            other.version
            for resident in (self.versions if job.cache_key else ())
            for other in resident.line[resident.num_decoding :]
            if other.cache_key == job.cache_key and other.priority <= job.priority and other.ids == job.ids
        }
        if not reading or job.pinned is not None:
            return job.pinned in reading
        if len(self.versions.residents) == 1:
            return True
        return self.versions.begin_on(self.conversations.match(job.cache_key, job.ids), now).number in reading

    def _copy(self, job: Job, resident: Resident) -> None:
        """Takes over what a running request of the conversation has computed of the same ids."""
        for other in resident.line if job.cache_key else ():
            if other is not job and other.cache_key == job.cache_key:
                length = common_prefix(other.ids, job.ids, min(other.filled, len(job.ids) - 1))
                if length > job.filled:
                    resident.rows.move(other.row, job.row, length)
                    job.filled = job.num_cached = length

    def _shares(self) -> dict[int, int]:
        """Prompt ids that each prefilling request may compute in this step, by job number.

        The most urgent gets at least half, so that a long prompt goes on; the rest goes to short prompts first,
        so that they need not wait for it.
        """
        prefilling = [job for resident in self.versions for job in resident.line[resident.num_decoding :]]
        if not prefilling:
            return {}
        left = self.config.prefill_chunk
        shares: dict[int, int] = {}
        first = min(prefilling, key=lambda job: job.urgency)
        if len(prefilling) > 1:
            shares[first.job] = min(first.remaining, (left + 1) // 2)
            left -= shares[first.job]
        for job in sorted(prefilling, key=lambda job: (job.priority, job.remaining, job.arrival)):
            more = min(left, job.remaining - shares.get(job.job, 0))
            if more:
                shares[job.job] = shares.get(job.job, 0) + more
                left -= more
        return shares

    def _forward(self, resident: Resident, shares: dict[int, int]) -> bool:
        """One pass of one version: decodes, prefills, samples, ends."""
        decoding = resident.line[: resident.num_decoding]
        feeding = [job for job in resident.line[resident.num_decoding :] if job.job in shares]
        if not decoding and not feeding:
            return False
        # Generations first: their logits then stand together, before those of the scored sequences.
        feeding.sort(key=lambda job: isinstance(job, Scoring))

        sampling: list[Generation] = []
        scored: list[tuple[Scoring, int, int]] = []
        wanted = list(range(len(decoding)))
        for job in decoding:
            assert isinstance(job, Generation)
            sampling.append(job)
        pieces, at = [], len(decoding)
        for job in feeding:
            start, end = job.filled, job.filled + shares[job.job]
            pieces.append(Piece(row=job.row, start=start, token_ids=job.ids[start:end]))
            if isinstance(job, Scoring):
                first = max(start, job.first_wanted())
                wanted.extend(range(at + first - start, at + end - start))
                scored.append((job, first, max(0, end - first)))
            elif end == len(job.ids):
                assert isinstance(job, Generation)
                wanted.append(at + end - start - 1)
                sampling.append(job)
            at += end - start
        resident.rows.reserve(len(resident.line), max(len(job.ids) for job in resident.line))
        newest = [job.ids[-1] for job in decoding]
        positions = [job.filled for job in decoding]
        step = Step(resident.rows, newest, positions, pieces, wanted if pieces else None)
        logits = resident.decoder.logits(step)

        for job in decoding:
            job.filled += 1
        for job in feeding:
            job.filled += shares[job.job]
        self._take_samples(resident, sampling, logits)
        at = len(sampling)
        for job, first, count in scored:
            if count:
                job.take(logits[at : at + count], first)
                at += count
            if not job.remaining:
                self._finish_scoring(job)
        return True

    def _finish_scoring(self, job: Scoring) -> None:
        if any(math.isnan(value) for value in job.logprobs):
            self._fail(self.versions[job.version], job)
            return
        self.report.scored.append((job.job, job.scores()))
        self._leave(job)

    def _take_samples(self, resident: Resident, jobs: list[Generation], logits: Tensor) -> None:
        if not jobs:
            return
        asked = [job.command.sampling for job in jobs]
        masks, stuck = allowed(jobs)
        draws = draw(logits[: len(jobs)], asked, [job.uniforms.random() for job in jobs], masks)
        top, sampled = draws.top, self.report.sampled
        ended: list[Generation] = []
        for i, job in enumerate(jobs):
            if i in draws.broken or i in stuck:
                continue
            token_id = draws.token_ids[i]
            sampled.append(
                (
                    job.job,
                    token_id,
                    draws.logprobs[i],
                    draws.raw_logprobs[i],
                    draws.num_allowed[i],
                    resident.number,
                    top.get(i, ()),
                )
            )
            reason = job.append(token_id)
            if reason is not None:
                self.report.ended.append(job.end(reason))
                ended.append(job)
            elif job.row >= resident.num_decoding:
                resident.start_decoding(job)
        for job in ended:
            self._leave(job)
        for i in draws.broken:
            self._fail(resident, jobs[i])
        for i, error in stuck.items():
            if i not in draws.broken:
                self.report.failed.append((jobs[i].job, error))
                self._leave(jobs[i])

    def _leave(self, job: Job) -> None:
        """Ends a running request: its keys and values are kept for its conversation, its row is free."""
        resident = self.versions[job.version]
        # What is asked behind the users' back is asked once: kept, it would push out what their next turns go on from.
        lasting = job.priority < Priority.JUDGE
        if lasting and job.cache_key and 0 < job.filled <= self.config.max_cached_tokens:
            saved = resident.rows.save(job.row, job.filled)
            self.conversations.store(job.cache_key, job.version, tuple(job.ids[: job.filled]), saved)
        resident.leave(job.row)
        del self._jobs[job.job]
        if not resident.line and resident.rows.num_positions > KEEP_POSITIONS:
            # One long request must not leave its room behind for good.
            resident.rows = Rows(self.model.kv_shape)

    def _fail(self, resident: Resident, job: Job) -> None:
        """Ends a request whose logits were not finite, and leaves nothing of it in the rows."""
        error = EngineError(f"version {resident.number} gave logits that are not finite")
        self.report.failed.append((job.job, error))
        resident.rows.erase(job.row)
        job.cache_key = ""
        self._leave(job)


def allowed(jobs: Sequence[Generation]) -> tuple[dict[int, NDArray[np.bool_]], dict[int, RequestError]]:
    """By place among the jobs: what the grammars allow next, and the requests whose grammar allows nothing."""
    masks: dict[int, NDArray[np.bool_]] = {}
    stuck: dict[int, RequestError] = {}
    for i, job in enumerate(jobs):
        if job.constraint is None:
            continue
        try:
            masks[i] = job.constraint.allowed()
        except RequestError as error:
            stuck[i] = error
    return masks, stuck
