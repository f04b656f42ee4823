"""The learn loop: the log in, policy versions out. It meets serving and judging only in the log and the policy store.

    waiting turns ─claim─> hand ─build─> samples ─step─> weights ─every steps_per_version─> candidate ─gate─> serving
                             │             │                │                                    │
                          released      rejected         rejected                      rejected; the learner goes
                          when paused   (no hint, ..)    (too far, ..)                 back to what is served

A step is made once `turns_per_step` turns are in hand, or the first of them has been there for `max_wait_s`. Turns
count as trained when the version that holds their step is served (law 3); until then they are claimed, and whatever
ends this process, `start` of the next one returns them and loads the served version's learner. When somebody else
changes what is served (`agentrl rollback`), the loop takes over that version's learner, bit for bit, before it goes on.

One thread, no task in the background: what the files say between two calls of `once` is the whole state.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from agentrl.config import Config
from agentrl.errors import StoreError
from agentrl.learner import checkpoint, pairs
from agentrl.learner.base_answers import BaseAnswers
from agentrl.learner.build import Builder, Dropped, num_by_source, without
from agentrl.learner.control import is_paused, signature_of
from agentrl.learner.fallback import Fallbacks
from agentrl.learner.gate import Gate
from agentrl.learner.guard_rules import is_its_own_measure, refuse_unreviewed
from agentrl.learner.guards import Guards, Weighed
from agentrl.learner.held_out import HeldOut
from agentrl.learner.hints import hint_option
from agentrl.learner.journal import Journal
from agentrl.learner.lesson_probes import LessonProbes
from agentrl.learner.next_answers import lent_to
from agentrl.learner.offline import Drawn
from agentrl.learner.own_replies import OwnReplies
from agentrl.learner.publish import Publisher, Unpublished
from agentrl.learner.remembering import Remembering
from agentrl.learner.replay import Beside
from agentrl.learner.taught import taught_by
from agentrl.learner.trainer import Trainer
from agentrl.learner.watchman import Watchman
from agentrl.signals.lessons import gather, without_refused
from agentrl.store.claims import Claimed
from agentrl.store.feeds import HintedTurns, RewardedTurns
from agentrl.store.learning_log import LearningLog
from agentrl.store.versions import VersionStore, prune
from agentrl.teacher import contexts
from agentrl.text.own_patterns import own_redactor
from agentrl.types import PolicyVersion

POLL_S = 0.05
"""How often an idle loop looks whether the files have changed."""
REFRESH_S = 1.0
"""How often it asks the log even so."""
HOUSEKEEPING_S = 30.0
"""How often old turns expire and unneeded versions are deleted."""


class LearnLoop:
    """Call `start` once, then `once` again and again, or `run`.

    Args:
        run_dir: the run's folder.
        config: its settings.
        trainer: with the recipe in force; its weights are replaced by `start`.
        beside: what steps get beside the claimed turns.
        probes: asks each served version for what was taught; None asks nothing.
        guards: against being taught wrong; None = everything is believed.
        answers: what version 0 answers to recent prompts, for the gate to compare with; None compares nothing.
        clock: seconds of a monotonic clock.

    Raises:
        ConfigError: what is trained is to be approved before, and the recipe learns from what nobody can approve.
    """

    def __init__(
        self,
        run_dir: Path,
        config: Config,
        *,
        trainer: Trainer,
        builder: Builder,
        log: LearningLog,
        versions: VersionStore,
        rewarded: RewardedTurns,
        hinted: HintedTurns,
        journal: Journal,
        beside: Beside | None = None,
        probes: LessonProbes | None = None,
        guards: Guards | None = None,
        answers: BaseAnswers | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        refuse_unreviewed(config, trainer.recipe)
        self._run_dir = run_dir
        self._policy = config.policy
        self._learn = config.learn
        self._redactor = own_redactor(config.server.redact_patterns)
        self._trainer = trainer
        self._builder = builder
        self._recipe = trainer.recipe
        self._log = log
        self._versions = versions
        self._rewarded = rewarded
        self._journal = journal
        self._beside = beside
        self._guards = guards
        self._memory = None
        if builder.memory is not None:
            self._memory = Remembering(
                builder.memory,
                hinted,
                log,
                policy=config.policy,
                similarity=contexts.similarity(self._recipe.context),
                num_standing=contexts.num_standing(self._recipe.context),
                in_review=self._learn.approve == "review",
                guards=guards,
            )
        if guards is not None and builder.skills is not None:
            builder.skills.heed(guards.doubts, guards.listened)
        self._clock = clock
        self._held_out = HeldOut(
            run_dir,
            grouped=self._recipe.group_size > 1,
            admits=(lambda turn: True) if guards is None else guards.believes,
        )
        self._answers = answers if is_its_own_measure(self._recipe) else None
        self._gate = Gate(
            self._held_out.rows,
            budget=None if guards is None else guards.budget(self._held_out, self._answers),
            replies=None
            if self._answers is None
            else OwnReplies(self._answers, most=config.guards.max_surprise),
        )
        self._watchman = None
        if guards is not None and answers is not None:
            self._watchman = Watchman(
                run_dir,
                policy=config.policy,
                guards=guards,
                log=log,
                journal=journal,
                builder=builder,
                memory=self._memory,
                fallbacks=Fallbacks(
                    trainer,
                    config.guards,
                    folder=versions.path,
                    stop_ids=answers.stop_ids,
                    budget=partial(guards.budget, self._held_out),
                ),
            )
        self._publisher = Publisher(
            trainer,
            policy=config.policy,
            log=log,
            versions=versions,
            gate=self._gate,
            journal=journal,
            guards=guards,
            probes=probes,
            clock=clock,
        )
        self._hand: list[Claimed] = []
        self._hand_since = 0.0
        self._unpublished: list[Unpublished] = []
        self._last_step = 0.0
        self._base = -1
        """Number of the version that the trainer's weights descend from: the one that serves, as far as we know."""
        self._paused = False
        self._signature: object = None
        self._refreshed = self._housekept = -float("inf")

    def start(self) -> None:
        """Returns what an earlier learner left in hand, then loads the served version's learner."""
        self._journal.stage("start")
        self._log.configure(
            self._policy,
            needs=self._recipe.needs,
            group_size=self._recipe.group_size,
            approve=None if hint_option(self._recipe) is None else self._learn.approve,
        )
        returned = self._log.recover(self._policy)
        for number in self._versions.clean(self._log.versions(self._policy)):
            self._journal.event(
                "set_aside",
                version=number,
                reason="learning.db does not know it: a crash left it, or learning.db is an older copy",
            )
        serving = self._log.serving(self._policy)
        self._restore(serving)
        self._journal.event(
            "ready",
            version=serving.number,
            recipe=self._recipe.name,
            precision=self._trainer.policy.precision,
            shares_prefix=self._trainer.policy.shares_prefix,
            num_returned=len(returned),
        )

    def run(self, stop: threading.Event) -> None:
        """Learns until `stop` is set; a step that has begun is finished first."""
        while not stop.is_set():
            if not self.once():
                self._journal.stage("idle")
                stop.wait(POLL_S)
        self._release()

    def once(self) -> bool:
        """Does the next piece of work; False when there is none."""
        now = self._clock()
        if now - self._housekept >= HOUSEKEEPING_S:
            self._housekeep()
            self._housekept = now
        signature = signature_of(self._run_dir)
        if signature != self._signature or now - self._refreshed >= REFRESH_S:
            self._signature, self._refreshed = signature, now
            if self._watchman is not None and not self._paused:
                self._watchman.look(self._base)
            self._follow_serving()
            self._follow_pause()
            if not self._paused:
                self._claim()
        if self._paused:
            return False
        if self._is_due():
            self._step()
        elif not self._unpublished or now - self._last_step < self._recipe.batch.max_wait_s:
            return False
        if self._unpublished and (
            len(self._unpublished) >= self._recipe.batch.steps_per_version
            or self._clock() - self._last_step >= self._recipe.batch.max_wait_s
        ):
            self._publish()
        self._signature = None  # our own work may have made turns claimable again
        return True

    # what others changed

    def _follow_serving(self) -> None:
        serving = self._log.serving(self._policy)
        if serving.number != self._base:
            self._journal.event("rollback", served=self._base, serves=serving.number)
            self._go_back(serving)

    def _follow_pause(self) -> None:
        paused = is_paused(self._run_dir)
        if paused != self._paused:
            self._paused = paused
            self._journal.event("paused" if paused else "resumed")
            if paused:
                self._release()
                if self._unpublished:
                    self._publish()

    def _go_back(self, serving: PolicyVersion | None = None) -> None:
        """Gives up everything since the served version: what is in hand, steps without a version, the weights."""
        self._release()
        self._restore(serving or self._log.serving(self._policy))

    def _restore(self, version: PolicyVersion) -> None:
        if version.number == 0:
            self._trainer.reset()
        else:
            checkpoint.load(self._trainer, self._run_dir / version.path)
        self._unpublished.clear()
        if self._memory is not None:
            self._memory.restart()
        if self._builder.stage is not None:
            self._builder.stage.clear()
        self._base = version.number
        self._gate.restart(self._trainer)

    # turns

    def _claim(self) -> None:
        gather(self._log, self._policy, self._learn.approve)
        self._listen()
        self._held_out.gather(self._rewarded, self._log)
        held = self._log.held(self._policy)  # decisions on lessons take turns back; a step over them is lost
        self._hand = [claim for claim in self._hand if claim.turn.id in held]
        wanted = self._recipe.num_live - len(self._hand)
        if wanted <= 0:
            return
        self._journal.stage("claim")
        claimed = self._log.claim(
            limit=wanted,
            uses=self._recipe.batch.uses_per_turn,
            needs=self._recipe.needs,
            max_age_s=self._learn.max_age_s,
            policy=self._policy,
            group_size=self._recipe.group_size,
            group_timeout_s=getattr(self._recipe.rollout, "group_timeout_s", 600.0),
            ended=self._recipe.waits_for_outcome,
            places=None if self._guards is None else self._guards.places(self._hand, self._recipe.num_live),
        )
        kept = self._held_out.sift(self._believed(claimed), self._log)
        if self._recipe.uses_pairs:
            kept, lone = pairs.whole(kept)
            self._log.release([claim.turn.id for claim in lone])
        if kept and not self._hand:
            self._hand_since = self._clock()
        # one that was taken back just now and claimed again is in there once, as it was read last
        self._hand = list({claim.turn.id: claim for claim in (*self._hand, *kept)}.values())

    def _listen(self) -> None:
        """Lets the guards hear what was said; hints that they believe again are remembered again."""
        freed = [] if self._guards is None else self._guards.listen()
        if freed and self._memory is not None:
            self._memory.add(self._log.records(freed))

    def _believed(self, claims: list[Claimed]) -> list[Claimed]:
        """What the guards let through; the hints of the others are shown to nobody, nor what was turned down."""
        claims = without_refused(self._log, claims, self._policy)
        if self._guards is None:
            return claims
        sifted = self._guards.sift(claims)
        if self._memory is not None:
            self._memory.forget(sifted.disbelieved)
        return sifted.kept

    def _is_due(self) -> bool:
        if not self._recipe.num_live:
            return self._beside is not None and self._beside.has_more(self._trainer.num_steps)
        if len(self._hand) >= self._recipe.num_live:
            return True
        return bool(self._hand) and self._clock() - self._hand_since >= self._recipe.batch.max_wait_s

    def _release(self) -> None:
        if self._hand:
            self._log.release([claim.turn.id for claim in self._hand])
            self._hand = []

    def _reject(self, dropped: tuple[Dropped, ...]) -> dict[str, int]:
        """Records the reasons; counts by reason."""
        by_reason: dict[str, list[str]] = {}
        for item in dropped:
            by_reason.setdefault(item.reason, []).extend(item.turn_ids)
            if item.detail:
                self._journal.event(
                    "dropped", turn_ids=list(item.turn_ids), reason=item.reason, detail=item.detail
                )
        for reason, turn_ids in by_reason.items():
            self._log.reject(turn_ids, reason)
        return {reason: len(turn_ids) for reason, turn_ids in by_reason.items()}

    # steps and versions

    def _step(self) -> None:
        began = self._clock()
        claims, self._hand = self._hand, []
        self._journal.stage("build")
        if self._memory is not None:
            self._memory.update()
        built = self._builder.build(claims, newest_version=self._base)
        dropped = built.dropped if self._memory is None else self._memory.put_off(built.dropped, claims)
        rejected = Counter(self._reject(dropped))
        weighed = Weighed(samples=built.samples, metrics={})
        if self._guards is not None:
            weighed = self._guards.weigh(built.samples, claims, built.useful)
        # What stands beside live turns makes no step alone.
        own = weighed.samples if any(sample.turn_ids for sample in weighed.samples) else ()
        drawn = self._draw() if own or not self._recipe.num_live else Drawn()
        samples = (*own, *drawn.samples)
        if not samples:
            rejected.update(self._reject(without(weighed.dropped, ())))
            self._journal.event("step", step=None, num_turns=0, rejected=rejected)
            return
        self._journal.stage("step")
        result = self._trainer.step(samples)
        turn_ids = list(dict.fromkeys(turn_id for sample in result.trained for turn_id in sample.turn_ids))
        left = without(result.dropped, turn_ids)
        left = left if self._memory is None else self._memory.put_off(left, claims)
        rejected.update(self._reject(left))
        if not result.trained:
            rejected.update(self._reject(without(weighed.dropped, ())))
            if self._beside is not None:
                self._beside.skip()
            self._journal.event("step", step=None, num_turns=0, rejected=rejected)
            return
        metrics = result.metrics | num_by_source(result.trained) | weighed.metrics
        self._journal.stage("record")
        try:
            step_id = self._log.record_step(
                turn_ids,
                recipe=self._recipe.name,
                seed=self._learn.seed,
                metrics=metrics
                | {"hints_from": built.recalled, "rules_rested": built.rested, "practised": built.practised}
                | dict(drawn.origin),
                version_parent=self._base,
                policy=self._policy,
                lent=lent_to(result.trained, built.lent),
                taught=taught_by(result, claims, self._redactor, built.useful),
                keep_taught=self._learn.explained_turns,
            )
        except StoreError as error:
            # Taken back or rolled back under the step: the trainer's weights descend from nothing that counts, those
            # of earlier steps without a version neither. All their turns are free again.
            self._journal.event("step", step=None, num_turns=0, rejected=rejected, lost=str(error))
            self._log.recover(self._policy)
            self._go_back()
            return
        # Only now: what a turn beside them praises is in doubt until its step stands.
        rejected.update(self._reject(without(weighed.dropped, turn_ids)))
        self._unpublished.append(Unpublished(step_id=step_id, metrics=metrics))
        if self._answers is not None:
            self._answers.add(result.trained, self._builder.resting_views(claims))
        self._last_step = self._clock()
        self._journal.event(
            "step",
            step=step_id,
            base=self._base,
            num_turns=len(turn_ids),
            rejected=rejected,
            took_s=self._clock() - began,
            metrics=metrics,
        )

    def _draw(self) -> Drawn:
        """What this step gets beside the claimed turns."""
        if self._beside is None:
            return Drawn()
        drawn = self._beside.draw(self._trainer.num_steps, self._base)
        for name, why in drawn.dropped.items():
            self._journal.event("dropped", turn_ids=[], reason="unusable record", detail=f"{name}: {why}")
        if not drawn.samples:
            self._beside.skip()
        return drawn

    def _publish(self) -> None:
        served = self._publisher.publish(self._base, list(self._unpublished))
        if served is None:
            self._go_back()
        else:
            self._unpublished.clear()
            self._base = served

    def _housekeep(self) -> None:
        self._journal.stage("housekeeping")
        expired = self._log.expire(self._learn.max_age_s, self._policy)
        deleted = prune(self._log, self._versions, keep=self._learn.keep_versions)
        if expired or deleted:
            self._journal.event("housekeeping", num_expired=expired, deleted_versions=deleted)
