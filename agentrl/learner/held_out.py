"""The gate's probe: recorded, positively rewarded turns that are set aside and never trained.

They are chosen by a hash of their id, a fixed small share, so that no other choice of ours can lean on them. The probe
is kept in RUN_DIR/held_out.json: it follows the traffic, not the versions, so a rollback leaves it as it is. The first
ones that version 0 sampled stay for good: they say what it did well.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentrl.errors import LearnerError
from agentrl.files import replace_json
from agentrl.learner.pack import Row
from agentrl.store.account import Reason
from agentrl.store.claims import Claimed
from agentrl.store.feeds import RewardedTurns
from agentrl.store.learning_log import LearningLog
from agentrl.store.records import group_key
from agentrl.types import Turn

SHARE = 16
"""One in this many positively rewarded turns is held out."""
MAX_TURNS = 32
"""The newest ones are kept, so that the probe stays cheap."""
FILE = "held_out.json"


def is_held_out(key: str) -> bool:
    """Whether the turn or group of this name belongs to the probe. The same on every machine."""
    digest = hashlib.sha256(b"held out for the gate\0" + key.encode()).digest()
    return int.from_bytes(digest[:8], "big") % SHARE == 0


class HeldOut:
    """The probe.

    Args:
        grouped: the recipe compares turns within groups; then whole groups are held out, because one that lacks a
            member could not be trained either.
        admits: whether a turn's reward is believed; others are not held out now.

    Raises:
        LearnerError: the file cannot be read.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        grouped: bool,
        max_turns: int = MAX_TURNS,
        admits: Callable[[Turn], bool] = lambda turn: True,
    ) -> None:
        self._admits = admits
        self._path = run_dir / FILE
        self._grouped = grouped
        self._max_turns = max_turns
        self.rows: dict[str, Row] = {}
        """By turn id, oldest first; positions are those of the sampled ids."""
        self.anchors: dict[str, Row] = {}
        """The first that version 0 sampled."""
        self.sampled: dict[str, float] = {}
        """Of rows the mean raw log-prob when they were sampled, where it was recorded."""
        try:
            if self._path.is_file():
                self._load(json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LearnerError(
                f"{self._path} cannot be read: {error}; delete it to begin a new probe"
            ) from error

    def gather(self, rewarded: RewardedTurns, log: LearningLog) -> None:
        """Takes in what was rewarded since the last call, unless it was trained or claimed before its reward came."""
        found = rewarded.new(self._is_held_out)
        free = [turn for turn in found if log.fate(turn.id) not in ("trained", "pending:claimed")]
        self._add([turn for turn in free if self._admits(turn)], log)

    def sift(self, claims: Sequence[Claimed], log: LearningLog) -> list[Claimed]:
        """The claims that may be trained; those that are held out are set aside."""
        kept, positive, others = [], [], []
        for claim in claims:
            rewards = [signal.reward for signal in claim.signals if signal.reward is not None]
            rewarded = any(reward > 0 for reward in rewards)
            if claim.use > 1 or not self._is_held_out(claim.turn.id, claim.turn.session):
                kept.append(claim)
            elif rewarded and not claim.turn.redacted_spans:
                positive.append(claim.turn)
            elif self._grouped:
                others.append(claim.turn.id)
            else:
                kept.append(claim)
        self._add(positive, log)
        if others:
            log.reject(others, Reason.HELD_OUT)
        return kept

    def _is_held_out(self, turn_id: str, session: str) -> bool:
        group = group_key(session) if self._grouped else None
        return is_held_out(turn_id if group is None else group)

    def _add(self, turns: Sequence[Turn], log: LearningLog) -> None:
        for turn in turns:
            ids, start = turn.prompt_ids + turn.completion.token_ids, len(turn.prompt_ids)
            if len(ids) <= max(start, 1):
                continue
            self.rows[turn.id] = _row(ids, start)
            raw = turn.completion.raw_logprobs
            if raw is not None:
                behind = raw[self.rows[turn.id].positions[0] - start :]
                self.sampled[turn.id] = math.fsum(behind) / len(behind)
            if {span.version for span in turn.completion.version_spans} == {0}:
                self._anchor(turn.id)
        while len(self.rows) > self._max_turns:
            oldest = next(iter(self.rows))
            del self.rows[oldest]
            self.sampled.pop(oldest, None)
        if turns:
            # the file first: after a crash in between the turns come here once more
            data = {"rows": _data(self.rows), "anchors": _data(self.anchors), "sampled": self.sampled}
            replace_json(self._path, data)
            log.reject([turn.id for turn in turns], Reason.HELD_OUT)

    def _anchor(self, turn_id: str) -> None:
        if len(self.anchors) < self._max_turns:
            self.anchors[turn_id] = self.rows[turn_id]

    def _load(self, data: dict[str, Any]) -> None:
        """Raises ValueError, TypeError or KeyError for a damaged file."""
        # Earlier releases kept the rows alone.
        whole = data if isinstance(data.get("rows"), dict) else {"rows": data, "anchors": {}, "sampled": {}}
        self.rows, self.anchors = (
            {turn_id: _row(tuple(ids), start) for turn_id, (ids, start) in whole[name].items()}
            for name in ("rows", "anchors")
        )
        self.sampled = {turn_id: float(value) for turn_id, value in whole["sampled"].items()}


def _data(rows: Mapping[str, Row]) -> dict[str, Any]:
    return {turn_id: [list(row.token_ids), row.positions[0]] for turn_id, row in rows.items()}


def _row(ids: tuple[int, ...], start: int) -> Row:
    return Row(token_ids=ids, positions=tuple(range(max(start, 1), len(ids))))
