"""What a step taught of its turns: kept with the step, bounded, and checked."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from store_samples import claim, judged_with_hint, make_turn, publish

from agentrl.errors import StoreError
from agentrl.store import codec
from agentrl.store.learning_log import LearningLog
from agentrl.store.migrations import LEARNING, migrate
from agentrl.store.taught import Measured, Shown, Taught
from agentrl.store.verify import verify

HINT = Shown(position="tail", text="Hint: say ä\udc80", origin="hint of t0", start=12, end=19)


def half(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float16)


def of_turn(turn_id: str, **changes) -> Taught:
    num = len(make_turn(turn_id).completion.token_ids)
    values = {
        "turn_id": turn_id,
        "source": "sampled",
        "num_tokens": 8,
        "shown": (HINT,),
        "token_ids": None,
        "loss": half(*[0.5] * num),
        "logprob": half(*[-1.25] * num),
        "teacher_logprob": half(*[-0.25] * num),
        "advantage": None,
        "ratio": None,
    }
    return Taught(**values | changes)


def taught_step(learning: LearningLog, taught: list[Taught], keep: int = 10) -> int:
    claimed = claim(learning)
    return learning.record_step(
        claimed,
        recipe="hint_opsd",
        seed=0,
        metrics={},
        version_parent=learning.serving().number,
        taught=taught,
        keep_taught=keep,
    )


def kept(path: Path) -> list[str]:
    connection = sqlite3.connect(path / "learning.db")
    found = [row[0] for row in connection.execute("SELECT turn_id FROM taught ORDER BY id")]
    connection.close()
    return found


@pytest.mark.parametrize(
    "values",
    [(), (0.0,), (1.5, -2.25, float("inf"), 65504.0, -0.0), tuple(range(300)), (float("nan"),) * 40],
)
def test_halves_come_back_bit_for_bit(values: tuple[float, ...]) -> None:
    packed = codec.pack_halves(half(*values))

    assert codec.unpack_halves(packed).tobytes() == half(*values).tobytes()
    assert len(packed) <= 2 * len(values) + 1


@pytest.mark.parametrize("blob", [b"", b"x12", b"p123", b"z123"])
def test_halves_that_are_damaged_are_refused(blob: bytes) -> None:
    with pytest.raises(ValueError, match="float blob"):
        codec.unpack_halves(blob)


async def test_what_a_step_taught_is_told_of_each_turn(log, learning) -> None:
    for name in ("t1", "t2"):
        await judged_with_hint(log, make_turn(name))
    rewritten = of_turn(
        "t2",
        source="rewrite",
        shown=None,
        token_ids=(7, 70_000),
        loss=half(0.5, float("nan")),
        logprob=half(-1.0, -2.0),
        teacher_logprob=None,
        advantage=half(2.0, 2.0),
        ratio=half(1.5, 1.0),
    )
    lifts = Measured(measure="lift", values=(("say ä\udc80", 0.25), ("x", -0.5)), chosen="say ä\udc80")
    step = taught_step(learning, [of_turn("t1", measured=lifts), rewritten])
    publish(learning, 1, step)

    [first] = (await log.explain("t1"))["steps"][0]["taught"]
    [second] = (await log.explain("t2"))["steps"][0]["taught"]

    ids = list(make_turn("t1").completion.token_ids)
    assert first == {
        "source": "sampled",
        "num_tokens": 8,
        "shown": [
            {"position": "tail", "text": "Hint: say ä\udc80", "origin": "hint of t0", "start": 12, "end": 19}
        ],
        "measured": {
            "measure": "lift",
            "values": [["say ä\udc80", 0.25], ["x", -0.5]],
            "chosen": "say ä\udc80",
        },
        "token_ids": ids,
        "loss": [0.5] * len(ids),
        "logprob": [-1.25] * len(ids),
        "teacher_logprob": [-0.25] * len(ids),
        "advantage": None,
        "ratio": None,
    }
    assert (second["source"], second["shown"], second["token_ids"]) == ("rewrite", None, [7, 70_000])
    assert (second["loss"], second["advantage"], second["ratio"]) == ([0.5, None], [2.0, 2.0], [1.5, 1.0])
    assert second["teacher_logprob"] is None
    assert second["measured"] is None


async def test_the_newest_records_stay_and_none_where_none_is_wanted(log, learning, tmp_path: Path) -> None:
    for name in ("t1", "t2", "t3"):
        await judged_with_hint(log, make_turn(name))
        taught_step(learning, [of_turn(name)], keep=2)
    assert kept(tmp_path) == ["t2", "t3"]

    await judged_with_hint(log, make_turn("t4"))
    taught_step(learning, [], keep=0)
    assert kept(tmp_path) == []
    assert (await log.explain("t3"))["steps"][0]["taught"] == []


async def test_a_step_that_is_not_recorded_leaves_no_record_of_what_it_taught(
    log, learning, tmp_path: Path
) -> None:
    """And deletes none: the account of a step and this are one transaction."""
    await judged_with_hint(log, make_turn("t1"))
    taught_step(learning, [of_turn("t1")])
    await judged_with_hint(log, make_turn("t2"))

    with pytest.raises(StoreError, match="not claimed any more"):
        learning.record_step(
            ["t2"],
            recipe="r",
            seed=0,
            metrics={},
            version_parent=0,
            taught=[of_turn("t2")],
            keep_taught=1,
        )

    assert kept(tmp_path) == ["t1"]


async def test_a_run_from_before_opens_and_its_steps_have_no_record(log, clock, tmp_path: Path) -> None:
    await judged_with_hint(log, make_turn("t1"))
    old = sqlite3.connect(tmp_path / "learning.db", isolation_level=None)
    migrate(old, LEARNING[:5])
    old.close()

    with LearningLog(tmp_path, clock=clock) as learning:
        learning.ensure_base("default", "base")
        learning.configure(needs="hint")
        claim(learning)
        learning.record_step(["t1"], recipe="r", seed=0, metrics={}, version_parent=0)

    assert (await log.explain("t1"))["steps"][0]["taught"] == []


async def test_a_record_that_is_damaged_is_named(log, learning, tmp_path: Path) -> None:
    await judged_with_hint(log, make_turn("t1"))
    taught_step(learning, [of_turn("t1"), of_turn("t1", loss=half(1.0))])
    sentence = "what step 1 taught of turn t1"
    assert [fault for fault in verify(tmp_path) if sentence in fault] == [
        f"{sentence} has streams of [1, 2] entries for 2 ids"
    ]

    connection = sqlite3.connect(tmp_path / "learning.db", isolation_level=None)
    connection.execute("UPDATE taught SET loss = x'7a00' WHERE id = 1")
    connection.close()

    assert any(f"{sentence} cannot be read back" in fault for fault in verify(tmp_path))
