import asyncio
import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import answer, conversation, hint, make_completion, make_turn, record, rows

from agentrl.errors import StoreError
from agentrl.store.learning_log import LearningLog
from agentrl.store.queries import OpenSession, TurnRef
from agentrl.store.signal_log import SignalLog
from agentrl.types import (
    Arm,
    Completion,
    End,
    FinishReason,
    MatchedBy,
    NextState,
    Purpose,
    RedactedSpan,
    Reply,
    Sampling,
    Signal,
    SignalSource,
    ToolCall,
    TurnKind,
    VersionSpan,
)

FULL = make_turn(
    "full",
    request_id="r",
    session="s~g3~1",
    scope="team",
    parent="gone",
    matched_by=MatchedBy.TOOL_CALL_ID,
    kind=TurnKind.SIDE,
    kind_reason="asks for a title",
    purpose=Purpose.EVAL,
    arm=Arm.CONTROL,
    task_key="task 7",
    messages=(
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "größe \ud800 😀"}], "z": None, "a": 1.5},
    ),
    tools=({"type": "function", "function": {"name": "bash", "parameters": {"b": 1, "a": 2}}},),
    prompt_ids=(0, 151_935, 70_000),
    prompt_built_by="rendered: the template drops reasoning",
    completion=Completion(
        token_ids=(5, 6, 151_000),
        logprobs=(-0.25, -1.5, 0.0),
        raw_logprobs=(-0.5, -3.0, -0.125),
        num_allowed=(1, 40, 151_936),
        finish_reason=FinishReason.TOOL_CALLS,
        version_spans=(VersionSpan(version=3, start=0, end=1), VersionSpan(version=4, start=1, end=3)),
    ),
    reply=Reply(
        text="t\ud800", reasoning="r", tool_calls=(ToolCall(id="callx", name="bash", arguments='{"a": 1}'),)
    ),
    sampling=Sampling(temperature=0.7, stop=("x",), stop_token_ids=(9,), seed=4, grammar="{}"),
    policy="user:x",
    block_spans=((1, 2),),
    shown_lessons=("L1", "L2"),
    received_at=12.5,
    first_token_s=0.25,
    latency_s=0.5,
    client="curl",
    redacted_spans=(RedactedSpan(path="messages.1", start=0, end=4, rule="key"),),
    error="EngineGone: died",
)


@pytest.mark.parametrize(
    "turn",
    [
        make_turn(),
        FULL,
        make_turn("empty", messages=(), prompt_ids=(), completion=make_completion(())),
        make_turn("none", completion=make_completion((7,), raw_logprobs=None, num_allowed=None)),
    ],
    ids=lambda turn: turn.id,
)
async def test_a_turn_comes_back_exactly_as_it_was_recorded(tmp_path: Path, turn) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(log, turn)

        assert await log.turn(turn.id) == turn
        # The order of keys is part of a tool's rendering, though not of dict equality.
        assert json.dumps((await log.turn(turn.id)).tools) == json.dumps(turn.tools)
    async with await SignalLog.open(tmp_path, read_only=True) as log:
        assert await log.turn(turn.id) == turn


async def test_what_does_not_exist_is_none(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        assert await log.turn("x") is None
        assert await log.next_state("x") is None
        assert await log.parent("x") is None
        assert await log.turn_ref("x") is None
        assert await log.signals("x") == []
        assert await log.feedback_target("default") is None
        assert await log.versions_used() == []


async def test_recording_an_id_twice_is_an_error_and_never_a_second_row(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn("t1"))

        with pytest.raises(StoreError, match="t1 was not recorded"):
            await record(log, make_turn("t1", session="other", prompt_ids=(9,)))

        assert (await log.counts())["turns"] == 1
        assert await log.turn("t1") == make_turn("t1")


async def test_what_followed_a_turn_is_kept_once_and_repeats_are_counted(tmp_path: Path) -> None:
    first = NextState(
        turn_id="t1",
        messages=({"role": "tool", "content": "ok"}, {"role": "user", "content": "go on"}),
        matched_by=MatchedBy.LAST_REPLY,
        answered_by="r2",
        received_at=5.0,
    )
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn("t1"))

        assert await log.record_next_state(first) is True
        assert await log.record_next_state(replace(first, messages=(), end=End.RETRIED)) is False

        assert await log.next_state("t1") == first
        counts = await log.counts()
        assert (counts["next_states"], counts["next_states.repeated"]) == (1, 1)
        assert counts["ends.answered"] == 1


async def test_nothing_can_follow_or_judge_a_turn_that_was_never_recorded(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        with pytest.raises(StoreError, match="no turn ghost"):
            await log.record_next_state(NextState(turn_id="ghost"))
        with pytest.raises(StoreError, match="no turn ghost"):
            await hint(log, "ghost")
        with pytest.raises(StoreError, match="no turn ghost"):
            await log.mark_judged("ghost", "judged")


async def test_signals_come_back_in_order_and_unknown_stays_apart_from_zero(tmp_path: Path) -> None:
    signals = [
        Signal(
            turn_id="t1", source=SignalSource.RULE, reward=None, hint="use ls", evidence="e", created_at=1.0
        ),
        Signal(
            turn_id="t1",
            source=SignalSource.USER,
            reward=0.0,
            preferred="no",
            votes=(1.0, -1.0),
            created_at=2.0,
        ),
    ]
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn("t1"))
        for signal in signals:
            await log.record_signal(signal)

        assert await log.signals("t1") == signals
        assert [signal.reward for signal in await log.signals("t1")] == [None, 0.0]


@pytest.mark.parametrize(
    "wrong", [{"reward": float("nan")}, {"reward": float("inf")}, {"votes": (float("nan"),)}]
)
async def test_a_reward_that_is_no_number_is_refused_because_sqlite_would_call_it_unknown(
    tmp_path: Path, wrong
) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn("t1"))

        with pytest.raises(ValueError, match="finite"):
            await log.record_signal(Signal(turn_id="t1", source=SignalSource.USER, **wrong))

        assert await log.signals("t1") == []


# lineage and feedback


async def test_lineage_finds_turns_by_call_history_and_reply_within_a_scope(tmp_path: Path) -> None:
    call = Reply(text="", tool_calls=(ToolCall(id="callt1", name="bash", arguments="{}"),))
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn("t1", reply=call), make_turn("t2", scope="other", reply=call))
        await answer(log, "t1")
        ref = TurnRef(id="t1", session="s1", num_messages=1, received_at=1000.0, answered=True)

        assert await log.by_call_id("default", "callt1") == ["t1"]
        assert await log.by_call_id("other", "callt1") == ["t2"]
        assert await log.by_call_id("third", "callt1") == []
        assert await log.by_history("default", "history-t1") == [ref]
        assert await log.by_history("other", "history-t1") == []
        assert await log.by_reply("default", "s1", "reply-t1") == [ref]
        assert await log.by_reply("default", "s2", "reply-t1") == []
        assert await log.turn_ref("t1") == ref
        parent = await log.parent("t1")
        assert (parent.prompt_ids, parent.completion_ids, parent.num_messages) == ((1, 2, 3), (7, 8), 1)


async def test_a_turn_is_found_by_whoever_asks_once_its_recording_returned(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        for index in range(20):
            await record(log, make_turn(f"t{index}"))
            assert [ref.id for ref in await log.by_history("default", f"history-t{index}")] == [f"t{index}"]


async def test_feedback_reaches_a_turn_by_its_id_its_response_or_its_session(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(
            log,
            make_turn("t1", received_at=1.0),
            make_turn("t2", received_at=2.0),
            make_turn("title", received_at=3.0, kind=TurnKind.SIDE),
            make_turn("t3", session="s2"),
        )

        assert await log.feedback_target("default", turn_id="t1") == "t1"
        assert await log.feedback_target("default", response_id="chatcmpl-t1") == "t1"
        assert await log.feedback_target("default", response_id="resp_t1") == "t1"
        assert await log.feedback_target("default", response_id="request-t3") == "t3"
        # The newest turn of the agent itself: nobody grades the title of a conversation.
        assert await log.feedback_target("default", session="s1") == "t2"
        assert await log.feedback_target("other", turn_id="t1") is None
        assert await log.feedback_target("other", response_id="chatcmpl-t1") is None
        assert await log.feedback_target("other", session="s1") is None


async def test_open_turns_and_sessions_are_those_that_nothing_followed(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(
            log,
            make_turn("a1", session="a", received_at=10.0),
            make_turn("a2", session="a", received_at=20.0),
            make_turn("b1", session="b", received_at=15.0),
            make_turn("c1", session="c", received_at=5.0),
        )
        await answer(log, "a1")
        await answer(log, "c1", end=End.CLOSED)

        assert await log.open_turns("a", "default") == ["a2"]
        assert await log.open_turns("a", "other") == []
        assert await log.open_sessions() == [
            OpenSession(scope="default", session="a", num_open=1, received_at=20.0),
            OpenSession(scope="default", session="b", num_open=1, received_at=15.0),
        ]
        assert await log.idle_turns(before=15.0) == []
        assert await log.idle_turns(before=20.0) == ["b1"]
        assert await log.idle_turns(before=21.0) == ["a2", "b1"]
        assert [turn.id for turn in await log.turns_of("a", "default")] == ["a1", "a2"]
        assert await log.turns_of("a", "other") == []


# the judge's work


async def test_the_judge_gets_answered_main_turns_that_may_be_learned_from(tmp_path: Path) -> None:
    skipped = [
        make_turn("side", kind=TurnKind.SIDE),
        make_turn("eval", purpose=Purpose.EVAL),
        make_turn("off", purpose=Purpose.OFF),
        make_turn("error", error="EngineGone: x"),
        make_turn("torn", matched_by=MatchedBy.AMBIGUOUS),
    ]
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn("good"), make_turn("control", arm=Arm.CONTROL), *skipped)
        await record(log, make_turn("open"), make_turn("unseen"), make_turn("gone"), make_turn("shared"))
        for turn in ("good", "control", *(turn.id for turn in skipped)):
            await answer(log, turn)
        await answer(log, "unseen", end=End.NOT_CHOSEN)
        await answer(log, "gone", end=End.CLIENT_GONE)
        await log.record_next_state(NextState(turn_id="shared", matched_by=MatchedBy.AMBIGUOUS))

        handed = await log.unjudged(10)

        assert [turn.id for turn, _ in handed] == ["good", "control"]
        assert handed[0] == (await log.turn("good"), await log.next_state("good"))
        assert len(await log.unjudged(1)) == 1


async def test_who_waits_for_an_answer_is_woken_by_one_even_if_it_came_before_the_wait(
    tmp_path: Path,
) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn("t1"), make_turn("t2"))
        await answer(log, "t1")
        await log.answered(3600)
        waiting = asyncio.create_task(log.answered(3600))
        await answer(log, "t2")
        await waiting
        await log.answered(0.01)  # nothing more: ends by its time limit


async def test_a_failed_judgement_is_retried_after_the_others_and_given_up_after_three(
    tmp_path: Path,
) -> None:
    async def due(log: SignalLog) -> list[str]:
        return [turn.id for turn, _ in await log.unjudged(10)]

    async with await SignalLog.open(tmp_path, max_judge_attempts=3) as log:
        await record(log, make_turn("t1"), make_turn("t2"))
        await answer(log, "t1")
        await answer(log, "t2")

        await log.mark_judged("t1", "failed", "timed out")
        assert await due(log) == ["t2", "t1"]
        await log.mark_judged("t2", "abstained")
        assert await due(log) == ["t1"]
        await log.mark_judged("t1", "failed", "timed out")
        await log.mark_judged("t1", "failed", "timed out")
        assert await due(log) == []

        counts = await log.counts()
        assert counts["judgements.failed"] == 3
        assert counts["judgements.abstained"] == 1
        assert await log.signals("t1") == []


# reports


async def test_versions_used_names_every_version_that_sampled_an_id(tmp_path: Path) -> None:
    moved = make_completion(
        (1, 2), version_spans=(VersionSpan(version=5, start=0, end=1), VersionSpan(version=6, start=1, end=2))
    )
    async with await SignalLog.open(tmp_path) as log:
        await record(
            log,
            make_turn("t0", completion=make_completion((1,), version=3)),
            make_turn("t1", completion=make_completion((1,), version=0)),
            make_turn("t2", completion=moved),
            make_turn("t3", completion=make_completion(())),
            make_turn("t4", completion=make_completion((1,), version=9), policy="user:x"),
        )

        assert await log.versions_used() == [0, 3, 5, 6]
        assert await log.versions_used("user:x") == [9]


async def test_explain_tells_a_turn_from_request_to_judgement_before_anything_was_learned(
    tmp_path: Path,
) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(log, *conversation(3))
        await answer(log, "c2", "no, wrong")
        await hint(log, "c2", "use ls")
        await log.mark_judged("c2", "judged")

        told = await log.explain("c2")

        assert told["turn"]["id"] == "c2"
        assert told["turn"]["num_prompt"] == 508
        assert told["turn"]["mean_logprob"] == -0.5
        assert told["history"] == ["c0", "c1"]
        assert told["next_state"]["messages"] == [{"role": "user", "content": "no, wrong"}]
        assert told["signals"][0]["hint"] == "use ls"
        assert told["judgements"][0]["outcome"] == "judged"
        assert told["lessons"] == []
        assert (told["fate"], told["steps"]) == ("pending:waiting", [])
        assert json.loads(json.dumps(told)) == told
        assert not (tmp_path / "learning.db").exists()
        with pytest.raises(StoreError, match="no turn ghost"):
            await log.explain("ghost")


# opening and closing


async def test_a_closed_log_says_so_and_closes_twice(tmp_path: Path) -> None:
    log = await SignalLog.open(tmp_path)
    await log.aclose()
    await log.aclose()

    with pytest.raises(StoreError, match="closed"):
        await record(log, make_turn())
    with pytest.raises(StoreError, match="closed"):
        await log.turn("t1")


async def test_closing_commits_what_was_handed_in_before(tmp_path: Path) -> None:
    log = await SignalLog.open(tmp_path)
    writes = [asyncio.ensure_future(record(log, make_turn(f"t{index}"))) for index in range(50)]
    await asyncio.sleep(0)  # each of them is handed in
    await log.aclose()
    await asyncio.gather(*writes)

    assert rows(tmp_path, "SELECT count(*) FROM turns") == [(50,)]


async def test_only_one_process_writes_a_log_and_any_number_read_it(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn())
        with pytest.raises(StoreError, match="another process writes"):
            await SignalLog.open(tmp_path)
        async with await SignalLog.open(tmp_path / "log.db", read_only=True) as reader:
            assert await reader.turn("t1") == make_turn()
            with pytest.raises(StoreError, match="read-only"):
                await record(reader, make_turn("t2"))
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn("t2"))


def test_a_missing_log_is_not_made_by_a_reader(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        asyncio.run(SignalLog.open(tmp_path, read_only=True))
    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"not a database, and long enough to be looked at" * 20)

    with pytest.raises(StoreError, match=r"log\.db.*not a database"):
        await SignalLog.open(tmp_path)
    with pytest.raises(StoreError, match=r"log\.db.*not a database"):
        await SignalLog.open(tmp_path, read_only=True)


def test_the_store_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None\n"
        "import agentrl.store.signal_log, agentrl.store.learning_log, agentrl.store.verify, agentrl.store.versions"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_both_files_are_in_wal_mode_and_apart(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path):
        LearningLog(tmp_path).close()

        for name in ("log.db", "learning.db"):
            connection = sqlite3.connect(tmp_path / name)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            connection.close()
