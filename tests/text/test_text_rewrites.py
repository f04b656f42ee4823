"""A reply that comes back with other words was written anew; one that was cut, re-formatted or marked was not."""

from dataclasses import replace

import pytest

from agentrl.signals.labelled import unsampled
from agentrl.text.rewrites import rewritten
from agentrl.types import JSON, FinishReason, Reply, Sampling, ToolCall, Turn

REPLY = "**Hello Anna,**\n\nthe sofa weighs 7 lb & costs 9 euros. See [the list](http://x.example/list).\n\nYours, Bob"


def turn(text: str = REPLY, *, stop: tuple[str, ...] = (), calls: tuple[ToolCall, ...] = ()) -> Turn:
    made, _ = unsampled(
        "t", ({"role": "user", "content": "Write."},), (), Reply(text=text, tool_calls=calls), ()
    )
    return replace(made, sampling=Sampling(stop=stop))


def said(content: object, **more: object) -> JSON:
    return {"role": "assistant", "content": content, **more}


@pytest.mark.parametrize(
    "text",
    [
        "Hello Anna, the sofa weighs 3 kg and costs 9 euros. See the list. Yours, Bob",
        "The sofa has weight 3 kg.",
        REPLY.replace("7 lb", "3 kg"),
        REPLY.replace("Yours", "It is red. Yours"),
        "Dear Anna, the sofa [a red one] weighs 3 kg.",
    ],
)
def test_other_words_are_a_rewrite(text: str) -> None:
    assert rewritten(turn(), said(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        REPLY,
        "  " + REPLY.replace("\n\n", "\n") + "\n",
        "Hello Anna, the sofa weighs 7 lb & costs 9 euros. See the list. Yours, Bob",
        "<p><b>Hello Anna,</b></p><p>the sofa weighs 7 lb &amp; costs 9 euros. "
        'See <a href="http://x.example/list">the list</a>.</p><p>Yours, Bob</p>',
        "Hello Anna,\n\nthe sofa weighs 7 lb",
        "Hello Anna,\n\nthe sofa wei",
        "Hello Anna,\n\nthe sofa wei…",
        "Hello Anna,\n\nthe sofa wei … urs, Bob",
        "Hello Anna,\n\nthe sofa wei...\n\nYours, Bob",
        "Hello Anna, the sofa wei... [180 characters left out] ...urs, Bob",
        "Hello Anna, the sofa\n\n-- 4,000 characters truncated --\n\nYours, Bob",
        "the sofa weighs 7 lb & costs 9 euros.",
        "[The answer was taken out to save room]",
        "(no content)",
        "",
        "<think>I could say 3 kg.</think>" + REPLY,
        REPLY.upper(),
        REPLY.replace("sofa", "so\u00adfa").replace(" ", "\u00a0") + "\u200b",
        "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in "Hello Anna,")
        + REPLY[14:],
        "1. Hello Anna,\n\n> **2)** the sofa weighs 7 lb & costs 9 euros. See the list.\n\n- 3. Yours, Bob",
        "```text\n" + REPLY + "\n```",
        "Assistant: " + REPLY,
        REPLY + "\n\nSources: http://x.example/list",
        "Bot (12:03)\n" + REPLY + "\n-- sent by the house",
    ],
)
def test_what_clients_do_to_a_reply_is_no_rewrite(text: str) -> None:
    assert rewritten(turn(), said(text)) is None
    assert rewritten(turn(), said([{"type": "text", "text": text}])) is None


def test_a_stop_string_that_was_put_back_is_no_rewrite() -> None:
    assert rewritten(turn("print(4)", stop=("</code>",)), said("print(4)</code>")) is None
    assert rewritten(turn("Thought: 4", stop=("Observation:",)), said("Thought: 4\nObservation:")) is None
    stopped = turn("Thought: ... 4 is it", stop=("Observation:",))
    assert rewritten(stopped, said("Thought: 4\nObservation:")) is None
    assert rewritten(turn("Thought: ... 4 is it"), said("Thought: 4\nObservation:")) is not None


def test_words_before_and_behind_the_whole_reply_are_no_rewrite_but_words_inside_are() -> None:
    assert (
        rewritten(turn("Well... it is [about] 4."), said("Bot: Well... it is [about] 4. Sources: none"))
        is None
    )
    assert rewritten(turn("It is 4."), said("It is not 4.")) == "It is not 4."
    assert rewritten(turn("It is 4."), said("It is 42.")) == "It is 42."
    assert rewritten(turn("1. Red\n2. Blue"), said("Red\nBlue")) is None
    assert rewritten(turn("Red\nBlue"), said("1. Red\n2. Green")) == "1. Red\n2. Green"


def test_json_written_anew_is_no_rewrite() -> None:
    assert rewritten(turn('{"b": 1.0, "a": [2]}'), said('{"a":[2],"b":1}')) is None
    assert rewritten(turn('{"b": 1.0, "a": [2]}'), said('{"a":[3],"b":1}')) is not None


def test_a_reply_that_a_limit_cut_may_be_filled_up() -> None:
    cut = replace(turn("The sofa"), completion=replace(turn().completion, finish_reason=FinishReason.LENGTH))
    assert rewritten(cut, said("The sofa weighs 3 kg.")) is None
    assert rewritten(cut, said("A bed weighs 3 kg.")) == "A bed weighs 3 kg."
    in_a_word = replace(cut, reply=Reply(text="The so"))
    assert rewritten(in_a_word, said("The sofa weighs 3 kg.")) is None
    assert rewritten(turn("The so"), said("The sofa weighs 3 kg.")) == "The sofa weighs 3 kg."


def test_calls_are_nothing_that_is_rewritten() -> None:
    call = ToolCall(id="c1", name="bash", arguments="{}")
    message = said("Other words.", tool_calls=[{"id": "c1", "function": {"name": "bash", "arguments": "{}"}}])
    assert rewritten(turn("Words.", calls=(call,)), said("Other words.")) is None
    assert rewritten(turn("Words."), message) is None
    assert rewritten(turn(""), said("Other words.")) is None


CROSSED = "Yes, sure.\nIt is not really 4, I think [2].\nAsk again at any time."


@pytest.mark.parametrize(
    "text",
    [
        CROSSED.replace("not really ", ""),
        CROSSED.replace("really ", "").replace("at any ", ""),
    ],
)
def test_words_crossed_out_inside_a_line_are_a_rewrite_of_whoever_keeps_to_what_was_told(text: str) -> None:
    assert rewritten(turn(CROSSED), said(text), is_faithful=True) == text
    assert rewritten(turn(CROSSED), said(text)) is None


@pytest.mark.parametrize(
    "text",
    [
        CROSSED,
        CROSSED.replace("\nAsk again at any time.", ""),
        CROSSED.removesuffix(" at any time."),
        CROSSED.removeprefix("Yes, "),
        CROSSED.replace("4, ", ""),
        CROSSED.replace("think [2].", "think."),
        CROSSED.replace("not really", "..."),
        CROSSED.replace("  ", " ") + " ",
        "Bot: " + CROSSED,
        CROSSED + " (stopped)",
    ],
)
def test_ends_lines_numbers_and_brackets_are_taken_out_by_clients(text: str) -> None:
    assert rewritten(turn(CROSSED), said(text), is_faithful=True) is None


@pytest.mark.timeout(120)
def test_every_second_word_of_a_very_long_line_may_be_crossed_out() -> None:
    told, now = "yes no " * 200_000 + "end", "yes " * 200_000 + "end"
    assert rewritten(turn(told), said(now), is_faithful=True) == now
