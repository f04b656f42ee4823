import asyncio

import pytest

from agentrl.errors import JudgeError
from agentrl.nano.vocabulary import BARE_ERRORS, ERROR_WORDINGS
from agentrl.signals.hints import MAX_READ_CHARS, directive, exit_code, said_lines
from agentrl.signals.judge import Judgement, ScriptedJudge
from agentrl.signals.loop import SignalLoop
from agentrl.signals.rules import RuleJudge
from agentrl.types import (
    Arm,
    Completion,
    End,
    FinishReason,
    MatchedBy,
    NextState,
    Purpose,
    Reply,
    Sampling,
    Signal,
    ToolCall,
    Turn,
    TurnKind,
    VersionSpan,
)


def turn(reply: Reply) -> Turn:
    return Turn(
        id="t1",
        request_id="r1",
        session="s",
        scope="default",
        parent=None,
        matched_by=MatchedBy.NONE,
        kind=TurnKind.MAIN,
        kind_reason="",
        purpose=Purpose.TRAIN,
        arm=Arm.LEARNING,
        task_key="k",
        messages=({"role": "user", "content": "Show the file notes.txt."},),
        tools=(),
        prompt_ids=(1, 2),
        prompt_built_by="rendered: first turn",
        completion=Completion(
            token_ids=(3,),
            logprobs=(-0.1,),
            raw_logprobs=(-0.1,),
            num_allowed=(9,),
            finish_reason=FinishReason.STOP,
            version_spans=(VersionSpan(version=0, start=0, end=1),),
        ),
        reply=reply,
        sampling=Sampling(),
        policy="default",
    )


CALL = Reply(
    text="", tool_calls=(ToolCall(id="call1", name="bash", arguments='{"command": "cat notes.txt"}'),)
)


def judge(content: str, role: str = "tool", reply: Reply = CALL) -> Judgement:
    state = NextState(turn_id="t1", messages=({"role": role, "content": content},))
    return asyncio.run(RuleJudge().judge(turn(reply), state))


@pytest.mark.parametrize("wording", ERROR_WORDINGS)
def test_a_refused_command_is_negative_and_its_whole_sentence_is_the_hint(wording: str) -> None:
    sentence = wording.format(old="cat", new="zorvex")

    verdict = judge(f"{sentence}\n[exit code 127]")

    assert (verdict.reward, verdict.hint) == (-1.0, sentence)


@pytest.mark.parametrize("wording", BARE_ERRORS)
def test_an_error_without_a_way_out_is_negative_without_a_hint(wording: str) -> None:
    verdict = judge(f"{wording.format(old='cat')}\n[exit code 127]")

    assert (verdict.reward, verdict.hint) == (-1.0, None)


def test_output_without_a_sign_of_failure_is_not_judged() -> None:
    assert judge("milk\nbread") == Judgement(evidence="the tools reported no failure")


def test_error_words_in_the_output_of_a_command_that_succeeded_are_not_a_failure() -> None:
    assert judge("error: this is what the log says\n[exit code 0]").reward is None


def test_an_exit_code_is_read_from_the_last_line_only() -> None:
    assert exit_code("a\n[exit code 3]") == 3
    assert exit_code("[exit code 3]\nb") is None
    assert exit_code("") is None


def test_a_correction_is_negative_and_the_users_words_are_the_hint() -> None:
    verdict = judge("No, use tabs instead of spaces.", role="user", reply=Reply(text="done"))

    assert (verdict.reward, verdict.hint) == (-1.0, "No, use tabs instead of spaces.")


def test_plain_praise_is_positive_and_a_new_task_is_not_judged() -> None:
    assert judge("Thanks, that works!", role="user", reply=Reply(text="done")).reward == 1.0
    assert judge("Now list the files.", role="user", reply=Reply(text="done")).reward is None
    assert judge("No problem. Next: count lines.", role="user", reply=Reply(text="done")).reward is None


def test_a_regenerated_answer_is_negative_and_an_abandoned_one_is_not_judged() -> None:
    def verdict(end: End) -> Judgement:
        return asyncio.run(RuleJudge().judge(turn(Reply(text="x")), NextState(turn_id="t1", end=end)))

    assert verdict(End.REGENERATED).reward == -1.0
    assert verdict(End.ABANDONED).reward is None


def test_a_hint_is_taken_verbatim_from_the_last_line_that_directs() -> None:
    output = "reading\ncat: not here\nUse zorvex instead.\n  at line 3\n[exit code 1]"

    assert directive(output) == "Use zorvex instead."
    assert directive("zap: command not found\n[exit code 127]") is None
    assert directive("cp: cannot stat 'a.txt': No such file or directory\n[exit code 1]") is None


def test_a_judge_that_raises_anything_fails_its_turn_alone() -> None:
    def broken(turn: Turn, state: NextState) -> Judgement:
        raise ZeroDivisionError("a bug of the user's")

    log = ListLog(list(WAITING))
    asyncio.run(SignalLoop(log, ScriptedJudge(broken)).step())

    assert (log.signals, log.marks) == ([], [("t1", "failed")])


@pytest.mark.parametrize(
    "line", ["a:" * 100_000, "use " * 100_000, "x" * 1_000_000, "[exit code 1]\n" * 50_000]
)
def test_long_output_is_judged_by_its_end_alone(line: str) -> None:
    """Patterns that meet text of any length held up the gateway for minutes; here they see a bounded end."""
    assert len("".join(said_lines(line))) <= MAX_READ_CHARS
    assert judge(f"{line}\n[exit code 1]").reward == -1.0


class ListLog:
    """The log that the loop needs, in a list."""

    def __init__(self, waiting: list[tuple[Turn, NextState]]) -> None:
        self.waiting = waiting
        self.signals: list[Signal] = []
        self.marks: list[tuple[str, str]] = []
        self.asked = asyncio.Event()
        self.news = asyncio.Event()

    async def answered(self, timeout_s: float, /) -> None:
        self.asked.set()
        await self.news.wait()
        self.news.clear()

    async def unjudged(self, limit: int, /) -> list[tuple[Turn, NextState]]:
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return taken

    async def record_signal(self, signal: Signal, /) -> None:
        self.signals.append(signal)

    async def mark_judged(self, turn_id: str, outcome: str, detail: str = "", /) -> None:
        self.marks.append((turn_id, outcome))


WAITING = [(turn(CALL), NextState(turn_id="t1", messages=({"role": "tool", "content": "x\n[exit code 2]"},)))]


async def test_a_failing_judge_yields_no_signal_and_its_turn_is_marked() -> None:
    def fail(turn: Turn, state: NextState) -> Judgement:
        raise JudgeError("the answer was not JSON")

    log = ListLog(list(WAITING))
    loop = SignalLoop(log, ScriptedJudge(fail))
    await loop.step()

    assert (log.signals, log.marks) == ([], [("t1", "failed")])


async def test_a_judge_that_never_answers_is_a_failure_and_not_a_reward() -> None:
    class Silent(ScriptedJudge):
        async def judge(self, turn: Turn, state: NextState) -> Judgement:
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

    log = ListLog(list(WAITING))
    await SignalLoop(log, Silent(lambda t, s: Judgement()), timeout_s=0.01).step()

    assert (log.signals, log.marks) == ([], [("t1", "failed")])


async def test_an_abstention_is_marked_and_leaves_no_signal() -> None:
    log = ListLog(list(WAITING))
    await SignalLoop(log, ScriptedJudge(lambda t, s: Judgement())).step()

    assert (log.signals, log.marks) == ([], [("t1", "abstained")])


async def test_a_judgement_is_recorded_before_the_turn_is_marked() -> None:
    log = ListLog(list(WAITING))
    await SignalLoop(log, RuleJudge()).step()

    assert [(s.reward, s.turn_id) for s in log.signals] == [(-1.0, "t1")]
    assert log.marks == [("t1", "judged")]


async def test_a_loop_that_has_nothing_to_do_waits_for_the_log() -> None:
    log = ListLog([])
    task = asyncio.create_task(SignalLoop(log, RuleJudge()).run())
    await log.asked.wait()
    log.asked.clear()
    log.waiting = list(WAITING)
    log.news.set()
    await log.asked.wait()
    task.cancel()

    assert log.marks == [("t1", "judged")]
