"""The guards of a learner: what is not to be taught, how much one user may teach, and when to stop.

    signals ─listen─> quarantine, approvals, pass rates
    claims  ─sift──> those to be trained        untrusted, empty_approval, contradicted: set aside with that reason
    samples ─weigh─> no owner above its share, less for what is trusted less
    turns   ─look──> in bounds, or learning is paused and the versions behind it are rolled back

Budgets of KL stand in the gate (`budget`). Everything here follows from the log: a new learner finds the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agentrl.closing import Closing
from agentrl.config import Config
from agentrl.learner.alarm import Alarm, Watch
from agentrl.learner.approvals import Approvals
from agentrl.learner.base_answers import BaseAnswers
from agentrl.learner.budget import Budget, unmeasured
from agentrl.learner.build import Dropped
from agentrl.learner.fallback import Fallback
from agentrl.learner.gate import MIN_TURNS
from agentrl.learner.guard_report import read_report, write_report
from agentrl.learner.guard_rules import has_quarantine, most_penalty, refuse, takes_one_by_one
from agentrl.learner.held_out import HeldOut
from agentrl.learner.hints import leaking
from agentrl.learner.journal import Journal
from agentrl.learner.pass_rates import PassRates
from agentrl.learner.penalties import bounded, without_praise
from agentrl.learner.quarantine import MAX_VOTES, Quarantine
from agentrl.learner.shares import Cap, capped
from agentrl.learner.trust import Trust, source_of
from agentrl.recipes import axes
from agentrl.recipes.recipe import Recipe
from agentrl.store.account import Reason
from agentrl.store.balance import KEY, SESSION, SIGNAL, Places, player_of
from agentrl.store.behaviour import BehaviourLog
from agentrl.store.claims import Claimed
from agentrl.store.feeds import SignalledTurns
from agentrl.store.learning_log import LearningLog
from agentrl.store.taught import Measured
from agentrl.types import JSON, Signal, SignalSource, TrainingSample, Turn

UNTRUSTED = "untrusted"
DEFAULT_SHARE = 0.5
MAX_QUARANTINED = 1000
"""The newest turns in quarantine that are asked about again."""
COMPONENTS = ("kd", "rl")
"""Of a loss, by the names of their weight streams."""
_ENVIRONMENT = SignalSource.ENVIRONMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Sifted:
    """Claims that a guard has looked at."""

    kept: list[Claimed]
    """Those that may be trained, with the signals that are listened to."""
    disbelieved: list[Turn]
    """Those that were set aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """Samples with their weights, and what was found on the way."""

    samples: tuple[TrainingSample, ...]
    dropped: tuple[Dropped, ...] = ()
    """Turns that only a reward spoke of, in an update that praises nothing."""
    metrics: dict[str, float]
    """The largest part of the update that one session, key and source has; only where there are several. With a bound
    on penalties their factor."""


class Guards(Closing):
    """A context manager: it holds readers of the log.

    Args:
        run_dir: the run's folder.
        config: its settings.
        recipe: in force.
        log: where turns are set aside, readmitted, and versions rolled back.
        journal: is told of everything that is held back.
        clock: Unix seconds.

    Raises:
        ConfigError: a guard is asked for that the recipe leaves no room for.
        StoreError: the log cannot be read.
    """

    def __init__(
        self,
        run_dir: Path,
        config: Config,
        recipe: Recipe,
        *,
        log: LearningLog,
        journal: Journal,
        clock: Callable[[], float] = time.time,
    ) -> None:
        refuse(config, recipe)
        self._run_dir = run_dir
        self._policy = config.policy
        self._settings = config.guards
        self._curriculum = config.curriculum
        self._recipe = recipe
        self._log = log
        self._journal = journal
        self._clock = clock
        self._one_by_one = takes_one_by_one(recipe)
        self._rewards_teach = recipe.uses_rl or recipe.kd_needs_reward
        self._trust = Trust(weights=config.guards.trust)
        self._approvals = Approvals(config.guards.approval_span)
        self._pass_rates = PassRates()
        self._quarantine: Quarantine | None = None
        if has_quarantine(config.guards, recipe):
            self._quarantine = Quarantine(self._trust, min_sessions=config.guards.min_sessions)
        quarantined = log.quarantined(config.policy, limit=MAX_QUARANTINED)
        self._held: dict[str, object] = {
            turn_id: group if recipe.group_size > 1 else turn_id
            for turn_id, group in reversed(quarantined.items())
        }
        """By turn in quarantine what was set aside with it: a group, or the turn alone."""
        self._counted: dict[tuple[str, ...], None] = {}
        """Refused hints that are in the report."""
        self._report: JSON = read_report(run_dir)
        self._stack = ExitStack()
        self._said = self._stack.enter_context(SignalledTurns(run_dir, config.policy, most=MAX_VOTES))
        self._watch: Watch | None = None
        if config.guards.watch != "off":
            behaviour = self._stack.enter_context(BehaviourLog(run_dir, config.policy))
            since = float(self._report.get("since", 0.0))
            self._watch = Watch(
                behaviour,
                config.guards.watch_turns,
                controlled=config.learn.control_share > 0,
                since=since,
            )

    def close(self) -> None:
        self._stack.close()

    # signals

    def listen(self) -> list[str]:
        """Takes in what was said since the last call; ids of the turns that are in quarantine no more."""
        self._hear()
        return self._readmit()

    def _hear(self) -> None:
        told: dict[str, None] = {}
        for said in self._said.new():
            for signal in said.signals[len(said.signals) - said.num_new :]:
                told |= dict.fromkeys(self._approvals.add(said.turn, signal))
            self._take(said.turn, said.signals)
        if told:
            for turn_id in told:  # one by one: each holds a whole conversation
                for claim in self._log.records([turn_id]):
                    self._take(claim.turn, claim.signals)
            self._log.readmit(list(told), Reason.EMPTY_APPROVAL)
        if len(self._approvals) != self._report.get("empty_approvals", 0):
            self._note(empty_approvals=len(self._approvals))

    def _take(self, turn: Turn, signals: Sequence[Signal]) -> None:
        """Lets pass rates and the quarantine hear what is said of a turn."""
        heard = self.listened(turn, signals)
        if not turn.block_spans:  # what is done with a lesson in view is no skill of the weights
            self._pass_rates.add(turn, heard)
        if self._quarantine is not None:
            self._quarantine.add(turn, self._votes(turn, heard))

    def _votes(self, turn: Turn, signals: Sequence[Signal]) -> Sequence[Signal]:
        """What is said of the action itself: in a group the environment's word is of an episode, and of the action only
        where that was all of it."""
        if self._recipe.group_size == 1 or not any(m.get("role") == "assistant" for m in turn.messages):
            return signals
        return [signal for signal in signals if signal.source is not _ENVIRONMENT]

    def listened(self, turn: Turn, signals: Sequence[Signal]) -> tuple[Signal, ...]:
        """Those of a turn's signals that come from whom one listens to."""
        return self._approvals.heard(turn, self._trust.heard(signals, turn.scope))

    def _readmit(self) -> list[str]:
        if self._quarantine is None:
            return []
        asked = self._quarantine.changed(self._held)
        groups = {self._held[turn_id] for turn_id in asked}
        groups -= {group for turn_id, group in self._held.items() if group in groups and self.doubts(turn_id)}
        freed = [turn_id for turn_id, group in self._held.items() if group in groups]
        for turn_id in freed:
            del self._held[turn_id]
        if freed:
            self._note(quarantined=len(self._held))
        if freed and self._log.readmit(freed, Reason.CONTRADICTED):
            self._journal.event("readmitted", turn_ids=freed)
        return freed

    def believes(self, turn: Turn, hint: str | None = None) -> bool:
        """Whether a turn may stand in the gate's probe or, its hint, be shown to the teacher of other turns.

        Args:
            hint: the one that is meant; None = the reward.
        """
        return self.hears(turn, hint) and not self.doubts(turn.id)

    def hears(self, turn: Turn, hint: str | None = None) -> bool:
        """Whether a turn's hint or reward comes from whom one listens to, whatever others say against it now."""
        if self._trust.is_partial or (hint is None and self._approvals.is_void(turn.id)):
            heard = self.listened(turn, self._log.records([turn.id])[0].signals)
            return any(signal.hint == hint if hint else (signal.reward or 0) > 0 for signal in heard)
        return True

    def doubts(self, turn_id: str) -> bool:
        """Whether something speaks against a turn's signal now."""
        return self._quarantine is not None and self._quarantine.contradiction(turn_id) is not None

    def knows(self, turn_id: str) -> bool:
        """Whether it is still known what others say of a turn's like."""
        return self._quarantine is None or turn_id in self._quarantine

    def may_be_shown(self, hint_of: str, turn_id: str) -> bool:
        """Whether the teacher of one turn may be shown the hint of another, which was believed before."""
        return self._quarantine is None or self._quarantine.may_be_shown(hint_of, turn_id)

    # claims

    def places(self, hand: Sequence[Claimed], size: int) -> Places | None:
        """How the places of an update of `size` turns are given away; None where the recipe takes pairs."""
        if self._recipe.uses_pairs:
            return None
        owners = [owners_of(claim) for claim in hand]
        if not self._one_by_one:
            players = [(claim.turn.scope, player_of(claim.group or "")) for claim in hand]
            owners = [own | {SESSION: player} for own, player in zip(owners, players, strict=True)]
        return Places(
            size=size,
            balance=self._curriculum.balance,
            shares=self._shares(),
            active_s=self._settings.active_s,
            held={kind: [owner[kind] for owner in owners] for kind in (KEY, SESSION, SIGNAL)},
        )

    def sift(self, claims: Sequence[Claimed]) -> Sifted:
        """Sets aside what is not to be taught, and with a contradicted turn all of its group: without it, the others
        would be compared with what is left."""
        self._hear()  # what was claimed may have been said a moment ago, and whose word it is is to be known
        kept: list[Claimed] = []
        disbelieved: list[Turn] = []
        aside: dict[str, list[str]] = {}
        all_heard = [self._heard(claim) for claim in claims]
        reasons = [self._refusal(claim, heard) for claim, heard in zip(claims, all_heard, strict=True)]
        groups = {self._unit(c) for c, why in zip(claims, reasons, strict=True) if why == Reason.CONTRADICTED}
        for claim, heard, why in zip(claims, all_heard, reasons, strict=True):
            reason = str(Reason.CONTRADICTED) if self._unit(claim) in groups else why
            if reason == Reason.CONTRADICTED:
                self._held[claim.turn.id] = self._unit(claim)
            if reason is None:
                kept.append(heard)
                continue
            aside.setdefault(reason, []).append(claim.turn.id)
            disbelieved.append(claim.turn)
        for reason, turn_ids in aside.items():
            self._log.reject(turn_ids, reason)
        while len(self._held) > MAX_QUARANTINED:
            del self._held[next(iter(self._held))]
        if Reason.CONTRADICTED in aside:
            self._note(quarantined=len(self._held))
        return Sifted(kept=kept, disbelieved=disbelieved)

    def _unit(self, claim: Claimed) -> object:
        """What is set aside with a turn: its group, or it alone."""
        return claim.turn.id if self._recipe.group_size == 1 else (claim.turn.scope, claim.group)

    def _heard(self, claim: Claimed) -> Claimed:
        signals = self.listened(claim.turn, claim.signals)
        hears_environment = self._trust.of(_ENVIRONMENT, claim.turn.scope) > 0
        return replace(
            claim, signals=signals, episode_reward=claim.episode_reward if hears_environment else None
        )

    def _refusal(self, claim: Claimed, heard: Claimed) -> str | None:
        """Why nothing is to be learned from a turn."""
        if _teaches(claim) and not _teaches(heard):
            if not self._trust.heard(claim.signals, claim.turn.scope):
                return UNTRUSTED
            # Elsewhere it is as if nothing was said: of a hint or of another answer the turn may still learn.
            if self._rewards_teach:
                return str(Reason.EMPTY_APPROVAL)
        if self._quarantine is None or claim.use > 1:
            return None
        self._quarantine.add(claim.turn, self._votes(claim.turn, heard.signals))
        why = self._quarantine.contradiction(claim.turn.id)
        if why is None:
            return None
        self._journal.event("quarantined", turn_ids=[claim.turn.id], detail=why)
        return str(Reason.CONTRADICTED)

    # samples

    def weigh(
        self,
        samples: Sequence[TrainingSample],
        claims: Sequence[Claimed],
        measured: Mapping[str, Measured] = {},
    ) -> Weighed:
        """Gives samples the weights that trust, pass rates and shares ask for; the others stay as they are.

        Args:
            samples: of one update. Those that no claimed turn stands behind are left alone, or weigh as the turn that
                they were made for.
            claims: the claimed turns.
            measured: by turn how useful its hints are, where that was measured.
        """
        self._count("leaks", leaking(self._recipe, claims))
        self._count("useless", [(turn_id,) for turn_id, found in measured.items() if found.is_useless])
        most = most_penalty(self._settings, self._recipe)
        # Before shares: what teaches nothing has no part in them.
        dropped: tuple[Dropped, ...] = ()
        if most:
            samples, idle = without_praise(samples, uses_kd=self._recipe.uses_kd)
            dropped = tuple(Dropped(turn_ids=one.turn_ids, reason=Reason.NO_PRAISE) for one in idle)
        by_turn = {claim.turn.id: claim for claim in claims}
        live = [
            index for index, sample in enumerate(samples) if sample.turn_ids and sample.turn_ids[0] in by_turn
        ]
        if self._recipe.uses_pairs or not live:
            return Weighed(samples=tuple(samples), dropped=dropped, metrics={})
        behind = [by_turn[samples[index].turn_ids[0]] for index in live]
        edge = [self._edge(claim) for claim in behind]
        trust = [self._trust.of(source_of(claim.signals), claim.turn.scope) for claim in behind]
        # What is only held teaches nothing, so that it makes nobody's part of what is taught smaller.
        teaches = [
            at for at, index in enumerate(live) if self._recipe.uses_rl or samples[index].source != "held"
        ]
        masses = [edge[at] * self._mass(samples[live[at]]) for at in teaches]
        owners = [owners_of(behind[at]) for at in teaches]
        caps = {
            kind: Cap(owners=[owner[kind] for owner in owners], share=self._shares().get(kind, 1.0))
            for kind in (SESSION, KEY, SIGNAL)
        }
        # Before trust: a cap that evens out what is left would lift those who are trusted less.
        factors = capped(masses, list(caps.values()))
        factor_at = dict(zip(teaches, factors, strict=True))
        weights = [edge[at] * trust[at] * factor_at.get(at, 1.0) for at in range(len(live))]
        of_turn = {behind[at].turn.id: weight for at, weight in enumerate(weights)}
        by_sample = dict(zip(live, weights, strict=True))
        result = list(samples)
        for index, sample in enumerate(samples):
            weight = by_sample.get(index, of_turn.get(sample.made_for or "", 1.0))
            if weight != 1.0:
                result[index] = _scaled(sample, weight)
        found = _parts([mass * factor for mass, factor in zip(masses, factors, strict=True)], caps)
        self._note(shares=found)
        metrics = {f"share/{kind}": part for kind, part in found.items()}
        if most:
            result, metrics["penalty_factor"] = bounded(result, most, self._mass)
        return Weighed(samples=tuple(result), dropped=dropped, metrics=metrics)

    def _edge(self, claim: Claimed) -> float:
        """What a turn weighs by the pass rate of its task."""
        if self._curriculum.tasks != "edge":
            return 1.0
        return self._pass_rates.weight(claim.turn.scope, claim.turn.task_key, self._curriculum.min_weight)

    def _mass(self, sample: TrainingSample) -> float:
        """What a sample weighs in the loss, as the recipe adds up."""
        return 1.0 if isinstance(self._recipe.aggregate, axes.SeqMean) else float(sum(sample.loss_mask))

    def _shares(self) -> dict[str, float]:
        settings, recipe = self._settings, self._recipe
        session = DEFAULT_SHARE if self._one_by_one else 1.0
        key = 1.0 if recipe.uses_pairs else DEFAULT_SHARE
        return {
            SESSION: session if settings.max_session_share is None else settings.max_session_share,
            KEY: key if settings.max_key_share is None else settings.max_key_share,
            SIGNAL: settings.max_source_share,
        }

    def _count(self, name: str, refused: Iterable[tuple[str, ...]]) -> None:
        """Counts in the report what no teacher is shown, each once: hints that hold the answer, turns of which every
        hint is useless."""
        fresh = [key for item in refused if (key := (name, *item)) not in self._counted]
        self._counted |= dict.fromkeys(fresh)
        while len(self._counted) > MAX_QUARANTINED:
            del self._counted[next(iter(self._counted))]
        if fresh:
            self._note(**{name: int(self._report.get(name, 0)) + len(fresh)})

    # versions

    def budget(self, held_out: HeldOut, answers: BaseAnswers | None = None) -> Budget:
        """For the gate."""
        return Budget(
            held_out.rows,
            held_out.anchors,
            held_out.sampled,
            self._settings,
            min_turns=MIN_TURNS,
            answers=answers,
        )

    def judged(self, number: int, metrics: Mapping[str, float]) -> None:
        """A version was judged by its gate: the report says what it used of its budgets."""
        spent = {name: metrics[name] for name in ("kl_update", "kl_base", "probe_fall") if name in metrics}
        self._note(
            budget={
                "version": number,
                **spent,
                "not_measured": list(unmeasured(metrics, self._settings)),
            }
        )

    def look(self, serving: int) -> Alarm | None:
        """Looks at the newest turns; where they leave their bounds, the alarm says what to do, and the report too."""
        if self._watch is None or not self._watch.is_due(self._clock()):
            return None
        found = self._watch.look(self._log.versions(self._policy), serving, now=self._clock())
        self._note(watch=found.report())
        if found.alarm is None:
            return None
        return replace(found.alarm, acts=self._settings.watch)

    def answered(self, alarm: Alarm, chosen: Fallback | None = None) -> None:
        """What the alarm asks for is done. Not said before: a learner that ends in between is to raise it again.

        Args:
            chosen: what serves again; None = nothing was rolled back.
        """
        now = self._clock()
        gone = {} if chosen is None else {str(number): why for number, why in chosen.passed_over.items()}
        back = {} if chosen is None else {"serves": chosen.number, "passed_over": gone}
        self._note(since=now, alarm={"at": now, "acts": alarm.acts, "reasons": list(alarm.reasons)} | back)

    def _note(self, **fields: Any) -> None:
        fresh = self._report | fields
        if fresh != self._report:
            self._report = fresh
            write_report(self._run_dir, fresh)


def owners_of(claim: Claimed) -> dict[str, object]:
    """Whose a turn is, by kind, as `agentrl.store.balance` names them."""
    turn = claim.turn
    source = source_of(claim.signals)
    return {
        KEY: turn.scope,
        SESSION: (turn.scope, turn.session),
        SIGNAL: None if source is None else str(source),
    }


def _teaches(claim: Claimed) -> bool:
    return source_of(claim.signals) is not None or claim.episode_reward is not None


def _scaled(sample: TrainingSample, factor: float) -> TrainingSample:
    """The sample with its route weights multiplied."""
    length = len(sample.token_ids)
    streams = {
        name: tuple(factor * weight for weight in sample.weights.get(name, (1.0,) * length))
        for name in COMPONENTS
    }
    return replace(sample, weights=sample.weights | streams)


def _parts(masses: Sequence[float], caps: Mapping[str, Cap]) -> dict[str, float]:
    """The largest owner's part of each kind that has several."""
    whole = sum(masses)
    found = {}
    for kind, cap in caps.items():
        totals: dict[object, float] = {}
        for owner, mass in zip(cap.owners, masses, strict=True):
            totals[owner] = totals.get(owner, 0.0) + mass
        if len(totals) > 1 and whole > 0:
            found[kind] = max(totals.values()) / whole
    return found
