import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace

import pytest

from agentrl.errors import JudgeError
from agentrl.nano.vocabulary import BARE_ERRORS, ERROR_WORDINGS
from agentrl.signals.hints import directive, said_lines
from agentrl.signals.judge import Judgement, ScriptedJudge
from agentrl.signals.loop import SignalLoop
from agentrl.signals.outputs import MAX_READ_CHARS, exit_code
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


def test_an_outage_is_not_the_agents_fault() -> None:
    assert judge("curl: (6) Could not resolve host: a.b\n[exit code 6]").reward is None
    assert judge("cp: error writing 'a': No space left on device\n[exit code 1]").reward is None
    assert judge("curl: option --x: is unknown\n[exit code 2]").reward == -1.0


def test_a_failing_test_and_a_failed_link_are_the_agents_fault() -> None:
    assert judge("FAIL test_status: expected 200, got 500\n[exit code 1]").reward == -1.0
    link = Reply(text="", tool_calls=(ToolCall(id="c1", name="bash", arguments='{"command": "ln -s x a"}'),))
    assert judge("ln: creating symbolic link 'a': File exists", reply=link).reward == -1.0


def test_a_call_whose_arguments_are_no_json_is_negative_whatever_came_back() -> None:
    broken = Reply(text="", tool_calls=(ToolCall(id="call1", name="bash", arguments='{"command": }'),))

    assert judge("skipped", reply=broken).reward == -1.0


@pytest.mark.parametrize("text", ["Yes, go on.", "Thanks, yes!", "Right."])
def test_consent_to_a_question_is_no_reward_for_asking_it(text: str) -> None:
    assert judge(text, role="user", reply=Reply(text="Shall I show the file?")).reward == 0.0


def test_the_approval_of_a_user_who_approves_everything_is_neutral() -> None:
    asked = turn(Reply(text="You are brilliant."))
    said = [{"role": "user", "content": text} for text in ("Rate my plan.", "Great!", "Great, thanks!")]
    state = NextState(turn_id="t1", messages=({"role": "user", "content": "Great!"},))

    def reward(num_said: int) -> float | None:
        turn = replace(asked, messages=tuple(said[:num_said]))
        return asyncio.run(RuleJudge().judge(turn, state)).reward

    assert [reward(num) for num in (1, 2, 3)] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "text", ["No more of this: what is the time?", "Don't forget the milk.", "Stop the server next."]
)
def test_a_new_task_may_begin_like_a_correction(text: str) -> None:
    assert judge(text, role="user", reply=Reply(text="done")).reward is None


def test_thanks_before_a_but_are_no_praise() -> None:
    verdict = judge("Thanks, but that was in 1969.", role="user", reply=Reply(text="In 1968."))

    assert (verdict.reward, verdict.hint) == (-1.0, "Thanks, but that was in 1969.")


def test_words_that_only_refuse_are_no_hint() -> None:
    assert judge("No, that is not it.", role="user", reply=Reply(text="x")).hint is None


def test_a_rewritten_reply_is_negative_and_a_rewritten_request_says_nothing() -> None:
    def verdict(role: str) -> Judgement:
        state = NextState(turn_id="t1", end=End.EDITED, messages=({"role": role, "content": "No, b."},))
        return asyncio.run(RuleJudge().judge(turn(Reply(text="a")), state))

    assert (verdict("assistant").reward, verdict("assistant").preferred) == (-1.0, "No, b.")
    assert (verdict("user").reward, verdict("user").preferred) == (None, None)


def test_the_check_that_failed_before_and_passes_now_is_positive() -> None:
    check = Reply(text="", tool_calls=(ToolCall(id="c2", name="bash", arguments='{"command": "pytest -q"}'),))
    function = {"name": "bash", "arguments": '{"command": "pytest -q"}'}
    edit = {"name": "bash", "arguments": '{"command": "sed -i s/a/b/ src/a.py"}'}
    history = (
        {"role": "user", "content": "Repair it."},
        {"role": "assistant", "tool_calls": [{"id": "c0", "function": function}]},
        {"role": "tool", "tool_call_id": "c0", "content": "1 failed\n[exit code 1]"},
        {"role": "assistant", "tool_calls": [{"id": "c1", "function": edit}]},
        {"role": "tool", "tool_call_id": "c1", "content": ""},
    )
    state = NextState(turn_id="t1", messages=({"role": "tool", "content": "4 passed"},))

    def reward(num_messages: int) -> float | None:
        return asyncio.run(
            RuleJudge().judge(replace(turn(check), messages=history[:num_messages]), state)
        ).reward

    assert (reward(1), reward(5)) == (None, 1.0)


def test_a_line_that_leads_on_takes_the_next_one_along() -> None:
    assert directive("fatal: no upstream\nTo push, use\n\n    git push -u origin a\n") == (
        "To push, use git push -u origin a"
    )


def test_an_exit_code_is_read_from_the_last_line_only() -> None:
    assert exit_code("a\n[exit code 3]") == 3
    assert exit_code("[exit code 3]\nb") is None
    assert exit_code("") is None


def test_a_correction_is_negative_and_the_users_words_are_the_hint() -> None:
    verdict = judge("No, use tabs instead of spaces.", role="user", reply=Reply(text="done"))

    assert (verdict.reward, verdict.hint) == (-1.0, "No, use tabs instead of spaces.")


NOT_FOUND = "cat: command not found; use zorp instead\n[exit code 127]"
OUTAGE = "ConnectionError: connection refused\n[exit code 1]"
SILENCED = Reply(
    text="", tool_calls=(ToolCall(id="call1", name="bash", arguments='{"command": "rm tests/check.sh"}'),)
)


def judge_both(output: str, said: str, reply: Reply = CALL) -> Judgement:
    """What a client sends whose user spoke before the agent read what its tool had answered."""
    messages = ({"role": "tool", "content": output}, {"role": "user", "content": said})
    return asyncio.run(RuleJudge().judge(turn(reply), NextState(turn_id="t1", messages=messages)))


@pytest.mark.parametrize("output", ["apples\n[exit code 0]", NOT_FOUND, "no such file\n[exit code 1]"])
@pytest.mark.parametrize(
    "said",
    [
        "Please use faljik instead of cat.",
        "[Interrupted]\nPlease use faljik instead of cat.\n<system-reminder>\nUse Grep.\n</system-reminder>",
    ],
)
def test_a_user_who_breaks_in_is_heard_before_the_tool(output: str, said: str) -> None:
    verdict = judge_both(output, said)

    assert (verdict.reward, verdict.hint) == (-1.0, "Please use faljik instead of cat.")


@pytest.mark.parametrize(
    "said",
    [
        "Thanks. Now count the lines.",
        "Thanks, that works!",
        "<system-reminder>No, use Read instead of cat.</system-reminder>",
        "[Request interrupted by user]",
        "[hook] No, use Read instead of cat.",
        "[Content of https://shop.example]\nNo, use Read instead of cat.",
        "```\nNo, use Read instead of cat.\n```",
        "> No, use Read instead of cat.",
        "Note: <page>No, use Read instead of cat.</page>",
        "No, use Read instead of cat. <page>",
    ],
)
@pytest.mark.parametrize(
    ("output", "reply"), [("apples\n[exit code 0]", CALL), (NOT_FOUND, CALL), ("ok\n[exit code 0]", SILENCED)]
)
def test_whatever_else_comes_along_with_an_output_leaves_it_to_the_output(
    said: str, output: str, reply: Reply
) -> None:
    assert judge_both(output, said, reply) == judge(output, reply=reply)


def test_a_reminder_behind_a_users_words_hides_them_not() -> None:
    said = ("Please use faljik instead of cat.", "<system-reminder>No, use Read.</system-reminder>")
    messages = ({"role": "tool", "content": "apples"}, *({"role": "user", "content": text} for text in said))

    verdict = asyncio.run(RuleJudge().judge(turn(CALL), NextState(turn_id="t1", messages=messages)))

    assert (verdict.reward, verdict.hint) == (-1.0, said[0])


def test_a_message_of_line_breaks_beside_an_output_is_read_in_no_time() -> None:
    """A pattern that began again at each of them took nine seconds for these, and the server stood still."""
    assert judge_both("apples", "\n" * 3_000_000 + "x").reward is None


CANCELLED = Reply(text="", tool_calls=(ToolCall(id="call1", name="cancel_order", arguments='{"id": 7}'),))


def test_a_no_that_directs_nowhere_takes_the_reward_and_leaves_the_tools_hint() -> None:
    assert judge("Order 7 was cancelled.", reply=CANCELLED).reward == 1.0
    assert judge_both("Order 7 was cancelled.", "No, that is wrong.", CANCELLED).reward == -1.0
    assert judge_both(NOT_FOUND, "No, that is wrong.").hint == judge(NOT_FOUND).hint


@pytest.mark.parametrize(("output", "reply"), [("ok\n[exit code 0]", SILENCED), (OUTAGE, CALL)])
def test_a_trick_and_an_outage_stay_what_they_are_whatever_the_user_says_then(
    output: str, reply: Reply
) -> None:
    alone = judge(output, reply=reply)

    assert alone.settled
    assert judge_both(output, "Please use faljik instead of cat.", reply) == alone


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


def test_what_a_program_copied_where_is_no_direction() -> None:
    assert directive("'/mnt/a.db' -> '/srv/a.db'\ncp: error reading '/mnt/a.db'") is None
    assert directive("==> notes.txt <==") is None
    assert directive("cat -> zorvex since 2.0") == "cat -> zorvex since 2.0"
    assert directive("cat => zorvex since 2.0") == "cat => zorvex since 2.0"


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

    async def unjudged(self, limit: int, besides: Collection[str], /) -> list[tuple[Turn, NextState]]:
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return taken

    async def mark_judged(
        self, turn_id: str, outcome: str, detail: str = "", signals: Sequence[Signal] = (), /
    ) -> None:
        self.signals += signals
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


@pytest.mark.parametrize(
    "said",
    [
        Judgement(reward=float("nan")),
        Judgement(reward=float("inf")),
        Judgement(reward=1.5),
        Judgement(reward="1"),  # type: ignore[arg-type]
        Judgement(reward=1.0, votes=(1.0, float("nan"))),
        Judgement(reward=1.0, evidence=None),  # type: ignore[arg-type]
    ],
)
async def test_what_no_log_takes_is_a_failure_of_the_judge_and_does_not_end_the_loop(said: Judgement) -> None:
    log = ListLog(list(WAITING))
    await SignalLoop(log, ScriptedJudge(lambda t, s: said)).step()

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
