"""`verify` finds nothing in a sound run and names every fault that is put into one."""

import sqlite3
from pathlib import Path

import pytest
from store_samples import answer, judged_with_hint, make_turn, record

from agentrl.errors import StoreError
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.store.verify import verify
from agentrl.store.versions import VersionStore
from agentrl.types import PolicyVersion, Reply, ToolCall, VersionFile, VersionState


@pytest.fixture
async def run(tmp_path: Path) -> Path:
    """A run with a conversation, a judged turn, a served version and one turn left open."""
    call = Reply(text="", tool_calls=(ToolCall(id="callt1", name="bash", arguments="{}"),))
    first = make_turn("t1", reply=call, messages=({"role": "user", "content": "words " * 50},))
    second = make_turn(
        "t2", parent="t1", prompt_ids=(1, 2, 3, 7, 8, 9), messages=(*first.messages, {"role": "user"})
    )
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    async with await SignalLog.open(tmp_path) as log:
        await judged_with_hint(log, first, second)
        await record(log, make_turn("t3"))
        await answer(log, "t3")
        await log.mark_judged("t3", "failed")
        await record(log, make_turn("t4"))
        store = VersionStore(tmp_path)
        with LearningLog(tmp_path, clock=lambda: 1000.0) as learning:
            learning.ensure_base(
                "default", "base", [VersionFile(path="config.json", sha256=EMPTY_OBJECT, size=2)]
            )
            claimed = learning.claim(limit=9, needs="hint", max_age_s=1e9)
            step = learning.record_step(
                [one.turn.id for one in claimed], recipe="r", seed=0, metrics={}, version_parent=0
            )
            files = store.write(1, lambda folder: (folder / "weights").write_bytes(b"hello") and None)
            learning.publish(
                PolicyVersion(
                    policy="default",
                    number=1,
                    parent=0,
                    state=VersionState.CANDIDATE,
                    path=store.relative_path(1),
                    files=tuple(files),
                    step_ids=(step,),
                )
            )
            learning.set_state("default", 1, VersionState.SERVING, "passed")
    return tmp_path


EMPTY_OBJECT = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def change(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(sql)
    connection.commit()
    connection.close()


def test_a_sound_run_has_no_faults(run: Path) -> None:
    assert verify(run) == []


async def test_a_run_that_never_learned_can_be_verified_too(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn())
        assert verify(tmp_path) == []


def test_a_folder_without_a_log_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        verify(tmp_path)


FLIP = "substr({0}, 1, length({0}) - 1) || CASE WHEN substr({0}, -1) = x'00' THEN x'01' ELSE x'00' END"
LOG_FAULTS = [
    (
        f"UPDATE contents SET body = CAST({FLIP.format('body')} AS BLOB) WHERE id = 1",
        "content 1 does not have its hash",
    ),
    ("UPDATE contents SET scope = 9 WHERE id = 1", "names a row of scopes"),
    (
        "UPDATE messages SET parent = NULL WHERE parent IS NOT NULL",
        "does not have the hash of its content after",
    ),
    ("UPDATE messages SET content = 2 WHERE id = 1", "message 1 does not have the hash"),
    *(
        (
            f"UPDATE turns SET {blob} = CAST({FLIP.format(blob)} AS BLOB) WHERE id = 't1'",
            "turn t1 does not have its",
        )
        for blob in ("token_ids", "prompt_ids", "logprobs", "num_allowed", "reply")
    ),
    ("UPDATE turns SET purpose = 'eval' WHERE id = 't1'", "turn t1 does not have its checksum"),
    (
        "UPDATE turns SET token_ids = x'0107' WHERE id = 't1'",
        "turn t1 cannot be read back: the reply has 1 ids",
    ),
    (
        "UPDATE turns SET prompt_base = NULL WHERE id = 't2'",
        "turn t2 cannot be read back: the prompt has 1 ids",
    ),
    ("UPDATE turns SET num_messages = 5 WHERE id = 't1'", "turn t1 has 1 messages, recorded were 5"),
    ("UPDATE turns SET group_key = 'g' WHERE id = 't1'", "turn t1 has the group 'g'"),
    ("DELETE FROM call_ids", "turn t1 made the tool calls ['callt1'], but is found by []"),
    ("UPDATE next_states SET ending = 'closed'", "the next state of turn t1 does not have its checksum"),
    ("UPDATE signals SET reward = 1.0 WHERE id = 1", "signal 1 does not have its checksum"),
    ("DELETE FROM open_turns", "turn t4 stands wrongly in (or is missing from) the list of open turns"),
    ("INSERT INTO open_turns VALUES (1, 'default', 's1')", "turn t1 stands wrongly in"),
    ("INSERT INTO due_turns VALUES (1, 0)", "turn t1 was judged, but stands in the list"),
    ("UPDATE due_turns SET attempts = 2", "turn t3 counts 2 attempts of the judge, recorded are 1"),
    ("DELETE FROM turns WHERE id = 't4'", "names a row of turns that is not there"),
]
LEARNING_FAULTS = [
    (
        "INSERT INTO claims VALUES ('ghost', 'default', 1, 0)",
        "claims names turn ghost, which the log does not hold",
    ),
    ("UPDATE step_turns SET turn_id = 'ghost' WHERE turn_id = 't1'", "step_turns names turn ghost"),
    ("UPDATE versions SET state = 'retired'", "no version of 'default' serves"),
    ("UPDATE versions SET parent = 7 WHERE number = 1", "version 1 of 'default' has no parent 7 before it"),
    (
        "UPDATE versions SET state = 'rejected' WHERE number = 0",
        "stands although what it was built upon was rejected",
    ),
    ("UPDATE steps SET version = 9", "step 1 is in version 9 of 'default', which is not there"),
    ("UPDATE steps SET metrics = '{'", "the metrics of step 1 are not JSON"),
]


@pytest.mark.parametrize(("sql", "sentence"), LOG_FAULTS)
def test_every_fault_in_the_log_is_named(run: Path, sql: str, sentence: str) -> None:
    change(run / "log.db", sql)

    assert any(sentence in fault for fault in verify(run)), verify(run)


@pytest.mark.parametrize(("sql", "sentence"), LEARNING_FAULTS)
def test_every_fault_in_the_learning_log_is_named(run: Path, sql: str, sentence: str) -> None:
    change(run / "learning.db", sql)

    assert any(sentence in fault for fault in verify(run)), verify(run)


def test_a_byte_of_the_weights_is_missed(run: Path) -> None:
    (run / "versions" / "000001" / "weights").write_bytes(b"hellp")
    faults = verify(run)
    assert len(faults) == 1
    assert "version 1 of 'default': weights has sha256" in faults[0]


def test_the_base_model_is_held_to_what_was_recorded_of_it(run: Path) -> None:
    (run / "base" / "config.json").write_text("[]")

    assert verify(run) == [f"the base of 'default': {run / 'base' / 'config.json'} is missing or was altered"]


def test_a_version_that_nobody_published_is_named(run: Path) -> None:
    VersionStore(run).write(2, lambda folder: None)

    assert verify(run) == [
        f"{run / 'versions' / '000002'} belongs to no version; the learner sets it aside when it starts"
    ]


def test_a_version_that_a_live_learner_is_publishing_is_no_fault(run: Path) -> None:
    VersionStore(run).write(2, lambda folder: None)
    assert verify(run, is_live=True) == []

    VersionStore(run).write(3, lambda folder: None)
    assert verify(run, is_live=True)[-1] == f"{run / 'versions' / '000003'} belongs to no version"


def test_an_older_copy_hides_no_other_fault(run: Path) -> None:
    VersionStore(run).write(3, lambda folder: None)
    VersionStore(run, "user:x").write(1, lambda folder: None)
    (run / "versions" / "000001" / "weights").unlink()

    assert verify(run) == [
        f"{run / 'versions'} holds version 3 but learning.db knows none above 1: it is an older copy; put the run's "
        "newest back, or name another folder with --run-dir",
        "version 1 of 'default': weights is missing",
        f"{run / 'versions' / '000003'} belongs to no version",
        f"{run / 'versions' / 'policy=user%3Ax' / '000001'} belongs to no version",
    ]


async def test_a_page_of_damage_is_noticed_wherever_it_holds_data(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        for index in range(60):
            words = " ".join(f"{index * number % 7919}" for number in range(60))
            await record(log, make_turn(f"t{index}", messages=({"role": "user", "content": words},)))
    assert verify(tmp_path) == []
    path = tmp_path / "log.db"
    sound = path.read_bytes()
    full = [at for at in range(0, len(sound), 4096) if len(set(sound[at + 100 : at + 4000])) > 50]
    assert len(full) > 10
    for at in full:
        damaged = bytes(byte ^ 0x55 for byte in sound[at + 100 : at + 4000])
        path.write_bytes(sound[: at + 100] + damaged + sound[at + 4000 :])

        assert verify(tmp_path) != []
