"""Law 3 under any order of events: a model that follows each turn by hand, beside the store that counts raw tables.

The model knows nothing of SQL: it keeps, for every turn, what happened to it, and says in plain Python where it
stands. After each event the store must agree turn by turn, and its account must balance. Events are drawn with
weights, because equal chances would hardly ever take a turn to a version and back; a failure names seed and events.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from store_samples import make_completion, make_turn

from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.store.verify import verify
from agentrl.store.versions import VersionStore, prune
from agentrl.types import (
    Arm,
    End,
    MatchedBy,
    NextState,
    PolicyVersion,
    Purpose,
    Signal,
    SignalSource,
    TurnKind,
    VersionState,
)

MAX_ATTEMPTS = 2
DEFECTS = {
    "side": {"kind": TurnKind.SIDE},
    "error": {"error": "EngineGone: died"},
    "empty": {"completion": make_completion(())},
    "ambiguous": {"matched_by": MatchedBy.AMBIGUOUS},
    "operator_block": {"block_spans": ((0, 1),)},
    "lesson_shown": {"block_spans": ((0, 1),), "shown_lessons": ("L1", "L2")},
    "apart:eval": {"purpose": Purpose.EVAL},
    "apart:off": {"purpose": Purpose.OFF},
    "apart:control": {"arm": Arm.CONTROL},
}
HASTY = ("error", "ambiguous", "side")
"""Defects, besides a purpose that is not train, that keep a turn from the judge."""


@dataclass
class Story:
    """What happened to one turn."""

    defect: str | None
    received_at: float
    state: End | str | None = None
    due: bool = False
    failures: int = 0
    last_outcome: str | None = None
    hint: bool = False
    reward: bool = False
    held: bool = False
    set_aside: str | None = None
    steps: list[int] = field(default_factory=list)


@dataclass
class Made:
    """A step, or a version."""

    turns: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    version: int | None = None
    parent: int | None = None
    state: str = "candidate"
    void: bool = False
    files: bool = True


class Life:
    """A run. Each event does the same to the model and to the store."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.draw = random.Random(seed)
        self.folder = folder
        self.runner = asyncio.Runner()
        self.now = 1000.0
        self.turns: dict[str, Story] = {}
        self.steps: dict[int, Made] = {}
        self.versions: dict[int, Made] = {0: Made(state="serving")}
        self.needs = self.draw.choice(["hint", "reward", "any"])
        self.uses = self.draw.randint(1, 3)
        self.log = self.run(SignalLog.open(self.folder, max_judge_attempts=MAX_ATTEMPTS))
        self.learning = LearningLog(self.folder, clock=lambda: self.now)
        self.learning.ensure_base("default", "base")
        self.learning.configure(needs=self.needs)
        self.store = VersionStore(self.folder)
        self.reader = LearningLog(self.folder, read_only=True)

    def run(self, coroutine):
        return self.runner.run(coroutine)

    def close(self) -> None:
        self.reader.close()
        self.learning.close()
        self.run(self.log.aclose())
        self.runner.close()

    # the model's word

    def fate(self, turn: Story) -> str:
        if turn.defect and turn.defect.startswith("apart"):
            return turn.defect
        states = [self.state_of(step) for step in turn.steps if not self.steps[step].void]
        if "served" in states:
            return "trained"
        if turn.set_aside:
            return f"rejected:{turn.set_aside}"
        if turn.held or "open" in states:
            return "pending:claimed"
        if turn.defect and turn.defect != "operator_block":
            return f"rejected:{turn.defect}"
        if turn.state == "torn":
            return "rejected:ambiguous"
        if turn.state in (End.CLIENT_GONE, End.NOT_CHOSEN):
            return f"rejected:{turn.state.value}"
        if turn.defect:
            return f"rejected:{turn.defect}"
        if self.needs == "any" and turn.state is not None and turn.due:
            return "pending:unjudged"
        if {"hint": turn.hint, "reward": turn.reward, "any": turn.hint or turn.reward}[self.needs]:
            return "pending:waiting"
        if turn.state is None:
            return "pending:open"
        if turn.due:
            return "pending:unjudged"
        if turn.last_outcome == "failed":
            return "rejected:judge_failed"
        return "pending:waiting" if self.needs == "any" else f"rejected:no_{self.needs}"

    def state_of(self, step: int) -> str:
        version = self.steps[step].version
        if version is None or self.versions[version].state == "candidate":
            return "open"
        return "served" if self.versions[version].state in ("serving", "retired") else "gone"

    def live_uses(self, turn: Story) -> int:
        return sum(not self.steps[step].void for step in turn.steps)

    @property
    def serving(self) -> int:
        return next(number for number, version in self.versions.items() if version.state == "serving")

    def ancestors(self, number: int) -> list[int]:
        line = []
        parent = self.versions[number].parent
        while parent is not None:
            line.append(parent)
            parent = self.versions[parent].parent
        return line

    def standing_descendants(self, number: int) -> list[int]:
        return [
            other
            for other, version in self.versions.items()
            if number in self.ancestors(other) and version.state != "rejected"
        ]

    def aside(self, numbers: list[int], reason: str) -> None:
        for number in numbers:
            for step in self.versions[number].steps:
                if not self.steps[step].void:
                    for turn in self.steps[step].turns:
                        self.turns[turn].set_aside = reason
                        self.turns[turn].held = False
            self.versions[number].state = "rejected"

    # what the server does

    def record(self) -> None:
        defect = self.draw.choice([None] * 12 + list(DEFECTS))
        self._record(defect, at=self.now - self.draw.choice([0.0, 0.0, 40.0]))

    def _record(self, defect: str | None, at: float) -> str:
        name = f"t{len(self.turns):03}"
        turn = make_turn(name, received_at=at, **DEFECTS.get(defect or "", {}))
        self.run(self.log.record_turn(turn, history_key="h", reply_key="r"))
        self.turns[name] = Story(defect, at)
        return name

    def record_what_can_be_learned(self) -> None:
        name = self._record(None, self.now)
        self._follow(name, None)
        self._signal(name, hint=True, reward=1.0)
        self._judge(name, "judged")

    def pick(self, wanted: Callable[[Story], object] = lambda story: True) -> str | None:
        names = [name for name, story in self.turns.items() if wanted(story)]
        return self.draw.choice(names) if names else None

    def follow(self) -> None:
        if name := self.pick():
            self._follow(name, self.draw.choice([None, None, None, "torn", *End]))

    def _follow(self, name: str, end: End | str | None) -> None:
        matched = MatchedBy.AMBIGUOUS if end == "torn" else MatchedBy.HISTORY
        state = NextState(turn_id=name, end=end if isinstance(end, End) else None, matched_by=matched)
        story = self.turns[name]

        assert self.run(self.log.record_next_state(state)) is (story.state is None)

        if story.state is None:
            story.state = end or "answered"
            apart = story.defect in ("apart:eval", "apart:off")
            unseen = end in ("torn", End.CLIENT_GONE, End.NOT_CHOSEN)
            story.due = not (apart or unseen or story.defect in HASTY)

    def judge(self) -> None:
        if name := self.pick(lambda story: story.due):
            self._judge(name, self.draw.choice(["judged", "abstained", "failed"]))

    def _judge(self, name: str, outcome: str) -> None:
        self.run(self.log.mark_judged(name, outcome))
        story = self.turns[name]
        story.last_outcome = outcome
        story.failures += outcome == "failed"
        story.due = outcome == "failed" and story.failures < MAX_ATTEMPTS

    def signal(self) -> None:
        if name := self.pick():
            self._signal(name, hint=self.draw.random() < 0.5, reward=self.draw.choice([None, 0.0, 1.0]))

    def _signal(self, name: str, *, hint: bool, reward: float | None) -> None:
        self.run(
            self.log.record_signal(
                Signal(turn_id=name, source=SignalSource.USER, hint="use ls" if hint else None, reward=reward)
            )
        )
        self.turns[name].hint |= hint
        self.turns[name].reward |= reward is not None

    def restart_the_server(self) -> None:
        self.run(self.log.aclose())
        self.log = self.run(SignalLog.open(self.folder, max_judge_attempts=MAX_ATTEMPTS))

    # what the learner does

    def may_be_claimed(self, story: Story) -> bool:
        if story.held or story.set_aside or story.received_at < self.now - 100.0:
            return False
        fate = self.fate(story)
        used_before = fate in ("trained", "pending:claimed") and 0 < self.live_uses(story) < self.uses
        return fate == "pending:waiting" or used_before

    def claim(self) -> None:
        limit = self.draw.randint(1, 4)
        may = {name for name, story in self.turns.items() if self.may_be_claimed(story)}

        claimed = self.learning.claim(limit=limit, needs=self.needs, max_age_s=100.0, uses=self.uses)

        names = [one.turn.id for one in claimed]
        assert len(set(names)) == len(names) == min(limit, len(may))
        assert set(names) <= may
        # Those used least first, then the newest.
        order = [(self.live_uses(self.turns[name]), -int(name[1:])) for name in names]
        assert order == sorted(order)
        for one in claimed:
            assert one.use == self.live_uses(self.turns[one.turn.id]) + 1 <= self.uses
            self.turns[one.turn.id].held = True

    def release(self) -> None:
        if name := self.pick(lambda story: story.held):
            assert self.learning.release([name]) == 1
            self.turns[name].held = False

    def reject(self) -> None:
        if name := self.pick(lambda story: story.held):
            self.learning.reject([name], "stale")
            self.turns[name].held = False
            self.turns[name].set_aside = self.turns[name].set_aside or "stale"

    def step(self) -> None:
        held = [name for name, story in self.turns.items() if story.held]
        if held:
            chosen = self.draw.sample(held, self.draw.randint(1, len(held)))
            parent = self.draw.choice(self.in_state("serving", "candidate", "retired"))
            number = self.learning.record_step(chosen, recipe="r", seed=0, metrics={}, version_parent=parent)
            self.steps[number] = Made(turns=chosen)
            for name in chosen:
                self.turns[name].held = False
                self.turns[name].steps.append(number)

    def in_state(self, *states: str) -> list[int]:
        return [number for number, version in self.versions.items() if version.state in states]

    def publish(self) -> None:
        free = [number for number, step in self.steps.items() if step.version is None and not step.void]
        steps = self.draw.sample(free, self.draw.randint(0, len(free)))
        parent = self.draw.choice(self.in_state("serving", "candidate"))
        number = self.learning.next_number()
        assert number == max(self.versions) + 1
        files = self.store.write(number, lambda folder: (folder / "w").write_text(str(number)) and None)
        self.learning.publish(
            PolicyVersion(
                policy="default",
                number=number,
                parent=parent,
                state=VersionState.CANDIDATE,
                path=self.store.relative_path(number),
                files=tuple(files),
                step_ids=tuple(steps),
            )
        )
        self.versions[number] = Made(steps=steps, parent=parent)
        for step in steps:
            self.steps[step].version = number

    def accept(self) -> None:
        serving = self.serving
        able = [number for number in self.in_state("candidate") if serving in self.ancestors(number)]
        if able:
            number = self.draw.choice(able)
            self.learning.set_state("default", number, VersionState.SERVING, "passed")
            line = self.ancestors(number)
            for other in line[: line.index(serving) + 1]:
                self.versions[other].state = "retired"
            self.versions[number].state = "serving"

    def refuse(self) -> None:
        if numbers := self.in_state("candidate"):
            number = self.draw.choice(numbers)
            refused = [number, *self.standing_descendants(number)]
            self.learning.set_state("default", number, VersionState.REJECTED, "failed")
            self.aside(refused, "gate")

    def roll_back(self) -> None:
        targets = [number for number in self.ancestors(self.serving) if self.versions[number].files]
        if targets:
            target = self.draw.choice(targets)
            after = self.standing_descendants(target)
            assert self.learning.rollback("default", target, "worse") == after
            self.aside(after, "rolled_back")
            self.void([number for number, step in self.steps.items() if step.version is None])
            self.versions[target].state = "serving"

    def crash_and_recover(self) -> None:
        self.learning.close()
        self.learning = LearningLog(self.folder, clock=lambda: self.now)
        expected = {name for name, story in self.turns.items() if story.held}
        lost = [
            number for number, step in self.steps.items() if not step.void and self.state_of(number) == "open"
        ]
        expected |= {turn for step in lost for turn in self.steps[step].turns}

        assert self.learning.recover() == sorted(expected)

        for story in self.turns.values():
            story.held = False
        self.void(lost)
        for number in self.in_state("candidate"):
            self.versions[number].state = "rejected"

    def void(self, numbers: list[int]) -> None:
        for number in numbers:
            self.steps[number].void = True

    def prune(self) -> None:
        gone = prune(self.learning, self.store, keep=self.draw.randint(0, 2))
        assert self.serving not in gone
        for number in gone:
            self.versions[number].files = False

    def expire(self) -> None:
        max_age = self.draw.choice([30.0, 100.0])
        old = {
            name: self.fate(story)
            for name, story in self.turns.items()
            if story.received_at < self.now - max_age and not story.set_aside
        }
        gone = [
            name for name, fate in old.items() if fate.startswith("pending") and fate != "pending:claimed"
        ]

        assert self.learning.expire(max_age) == len(gone)

        for name, fate in old.items():
            kind, _, reason = fate.partition(":")
            if name in gone or kind == "rejected":
                self.turns[name].set_aside = "expired" if name in gone else reason

    def wait(self) -> None:
        self.now += self.draw.choice([1.0, 20.0, 60.0])

    # what must always hold

    def check(self) -> None:
        expected = {name: self.fate(story) for name, story in self.turns.items()}
        assert {name: self.learning.fate(name) for name in self.turns} == expected

        account = self.learning.account()
        assert self.learning.account("default") == account, "what was counted before is not counted again"
        if self.draw.random() < 0.3:
            # as a server does that asks now and then
            assert self.reader.account("default") == account
        fates = list(expected.values())
        assert account.balanced
        assert account.accepted == sum(not fate.startswith("apart") for fate in fates)
        assert account.trained == fates.count("trained")
        for kind in ("rejected", "pending", "apart"):
            for detail, number in getattr(account, kind).items():
                assert fates.count(f"{kind}:{detail}") == number
        assert self.learning.serving().number == self.serving
        for story in self.turns.values():
            assert self.live_uses(story) + story.held <= self.uses


EVENTS = {
    Life.record: 4,
    Life.record_what_can_be_learned: 8,
    Life.follow: 5,
    Life.judge: 4,
    Life.signal: 2,
    Life.restart_the_server: 0.3,
    Life.claim: 6,
    Life.release: 0.7,
    Life.reject: 0.7,
    Life.step: 5,
    Life.publish: 4,
    Life.accept: 3,
    Life.refuse: 1,
    Life.roll_back: 0.5,
    Life.crash_and_recover: 0.4,
    Life.prune: 0.5,
    Life.expire: 0.7,
    Life.wait: 2,
}


@pytest.mark.parametrize("seed", range(20))
def test_every_turn_is_accounted_for_after_any_order_of_events(tmp_path: Path, seed: int) -> None:
    life = Life(tmp_path, seed)
    done: list[str] = []
    try:
        for event in life.draw.choices(list(EVENTS), list(EVENTS.values()), k=120):
            done.append(event.__name__)
            event(life)
            life.check()
        assert verify(tmp_path) == []
    except AssertionError as error:
        error.add_note(f"after {', '.join(done)}")
        raise
    finally:
        life.close()
