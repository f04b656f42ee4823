"""Replies are read once while they grow: deltas joined are the reply, and what is malformed is text."""

import json
import random

import pytest
from renderers.qwen3 import Qwen3Renderer
from small_models import family_renderer

from agentrl.text.renderer import ChatRenderer, Delta
from agentrl.types import Reply, ToolCall

CALL = '<tool_call>\n{"name": "bash", "arguments": {"command": "ls"}}\n</tool_call>'


def sampled(renderer: ChatRenderer, text: str) -> list[int]:
    """Ids of a text whose control tokens were sampled as such."""
    return renderer._tokenizer.encode(text)


def joined(deltas: list[Delta]) -> Reply:
    calls: dict[int, tuple[str, str]] = {}
    for delta in deltas:
        if delta.tool_index is not None:
            name, arguments = calls.get(delta.tool_index, ("", ""))
            calls[delta.tool_index] = (name + (delta.tool_name or ""), arguments + delta.arguments)
    assert list(calls) == list(range(len(calls)))
    return Reply(
        text="".join(delta.text for delta in deltas),
        reasoning="".join(delta.reasoning for delta in deltas) or None,
        tool_calls=tuple(
            ToolCall(id="", name=name, arguments=arguments) for name, arguments in calls.values()
        ),
    )


def streamed(renderer: ChatRenderer, ids: list[int]) -> tuple[list[Delta], Reply]:
    stream = renderer.stream([])
    deltas = [delta for token_id in ids for delta in stream.feed(token_id)]
    rest, reply = stream.finish()
    return deltas + rest, reply


def bash(arguments: str) -> ToolCall:
    return ToolCall(id="", name="bash", arguments=arguments)


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("Done.<|im_end|>", Reply(text="Done.")),
        ("", Reply(text="")),
        ("<|im_end|>", Reply(text="")),
        ("  two  spaces \n<|im_end|>", Reply(text="  two  spaces \n")),
        ("Done.<|im_end|>more<|im_end|>", Reply(text="Done.")),
        ("<think>\nhm, so\n</think>\n\n  Done.<|im_end|>", Reply(text="  Done.", reasoning="hm, so")),
        ("\n<think>\n\n</think>\n\nDone.", Reply(text="Done.")),
        ("<think>cut off", Reply(text="", reasoning="cut off")),
        ("First <think>no</think>.", Reply(text="First <think>no</think>.")),
        ("a</think>b", Reply(text="a</think>b")),
        ("</think>\n\nDone.", Reply(text="Done.")),
        (CALL + "<|im_end|>", Reply(text="", tool_calls=(bash('{"command": "ls"}'),))),
        ("Let me.\n" + CALL, Reply(text="Let me.", tool_calls=(bash('{"command": "ls"}'),))),
        (
            f"<think>\nhm\n</think>\n\nLet me.\n{CALL}\n{CALL}<|im_end|>",
            Reply(text="Let me.", reasoning="hm", tool_calls=(bash('{"command": "ls"}'),) * 2),
        ),
        (f"A {CALL} B", Reply(text="A\nB", tool_calls=(bash('{"command": "ls"}'),))),
        (
            f"<think>hm {CALL}<|im_end|>",
            Reply(text="", reasoning="hm", tool_calls=(bash('{"command": "ls"}'),)),
        ),
        (f"<think>hm {CALL} so</think>Done.", Reply(text="Done.", reasoning=f"hm {CALL} so")),
        (
            '<tool_call>{"arguments" :  {"a": [1,  2.0]} , "name": "bash"}</tool_call>',
            Reply(text="", tool_calls=(bash('{"a": [1,  2.0]}'),)),
        ),
        ('<tool_call>{"name": "bash"}</tool_call>', Reply(text="", tool_calls=(bash("{}"),))),
        (
            '<tool_call>{"name": "bash", "arguments": "{\\"a\\": 1}"}</tool_call>',
            Reply(text="", tool_calls=(bash('{"a": 1}'),)),
        ),
    ],
)
def test_a_reply_is_read_as_the_format_means_it(qwen3: ChatRenderer, text: str, reply: Reply) -> None:
    ids = sampled(qwen3, text)
    assert qwen3.parse(ids, []) == reply
    deltas, whole = streamed(qwen3, ids)
    assert whole == reply
    assert joined(deltas) == reply


@pytest.mark.parametrize(
    "block",
    [
        "<tool_call>",
        "<tool_call>\n{}",
        "<tool_call></tool_call>",
        '<tool_call>{"name": "bash", "arguments": {"command": "ls"}</tool_call>',
        '<tool_call>{"name": "bash", "arguments": ["ls"]}</tool_call>',
        '<tool_call>{"name": "bash", "arguments": "ls"}</tool_call>',
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"name": 7, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "bash", "arguments": {"x": NaN}}</tool_call>',
        '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>',
        '<tool_call>["bash"]</tool_call>',
        f"<tool_call>{CALL}",
        "<tool_call>" + "[" * 5000 + "</tool_call>",
        '<tool_call>{"name": "bash", "arguments": {"n": ' + "9" * 5000 + "}}</tool_call>",
    ],
)
def test_a_malformed_call_is_text_and_no_exception(qwen3: ChatRenderer, block: str) -> None:
    text = f"Let me. {block}"
    assert qwen3.parse(sampled(qwen3, text), []) == Reply(text=text)


def test_arguments_are_the_sampled_text_with_its_white_space_and_escapes(qwen3: ChatRenderer) -> None:
    arguments = '{ "b":1,\n"a" :"\\u00e9\\n" }'
    block = '<tool_call>{"name": "bash", "arguments": ' + arguments + "}</tool_call>"
    assert qwen3.parse(sampled(qwen3, block), []).tool_calls[0].arguments == arguments


def test_half_a_character_is_held_until_it_is_whole(qwen3: ChatRenderer) -> None:
    ids = qwen3.encode_plain("🙂")
    assert len(ids) > 1
    stream = qwen3.stream([])
    assert [delta for token_id in ids[:-1] for delta in stream.feed(token_id)] == []
    assert stream.feed(ids[-1]) == [Delta(text="🙂")]
    assert qwen3.parse(ids[:-1], []).text == "\ufffd"


def test_text_comes_as_it_is_sampled_and_a_call_comes_whole(qwen3: ChatRenderer) -> None:
    stream = qwen3.stream([])
    seen = [list(stream.feed(token_id)) for token_id in sampled(qwen3, "Let me check.\n" + CALL)]
    assert seen[0][0].text[0] == "L"
    assert [delta for deltas in seen[:-1] for delta in deltas if delta.tool_index is not None] == []
    assert seen[-1] == [Delta(tool_index=0, tool_name="bash", arguments='{"command": "ls"}')]


def random_reply(rng: random.Random, renderer: ChatRenderer) -> list[int]:
    pieces = [
        *(
            "<think>",
            "</think>",
            "<tool_call>",
            "</tool_call>",
            "<|im_start|>",
            "<tool_response>",
            "\n",
            "\n\n",
            "  ",
        ),
        *(
            "word",
            " naïve 日本",
            "🙂",
            "é",
            '{"name": "bash", "arguments": {"command": "ls"}}',
            CALL,
            CALL + "\n" + CALL,
        ),
        *(
            '{"name": "bash", "arguments": {"comm',
            '{"name":',
            "}",
            "<think>\nhm\n</think>\n\n",
            "\u3000",
            "<|im_end|>",
        ),
    ]
    ids: list[int] = []
    for _ in range(rng.randrange(12)):
        piece = rng.choice(pieces)
        encoded = sampled(renderer, piece)
        if rng.random() < 0.2:
            encoded = encoded[: rng.randrange(len(encoded) + 1)]
        ids += encoded
        if rng.random() < 0.15:
            ids += [rng.randrange(renderer.vocab_size + 3) for _ in range(rng.randrange(4))]
    return ids


def test_joined_deltas_are_the_parsed_reply_of_ten_thousand_random_ones(qwen3: ChatRenderer) -> None:
    rng = random.Random(20)
    kinds = dict.fromkeys(("calls", "reasoning", "malformed", "broken"), 0)
    for _ in range(10_000):
        ids = random_reply(rng, qwen3)
        deltas, reply = streamed(qwen3, ids)
        assert joined(deltas) == reply
        assert reply == qwen3.parse(ids, [])
        for call in reply.tool_calls:
            assert isinstance(json.loads(call.arguments), dict)
        kinds["calls"] += bool(reply.tool_calls)
        kinds["reasoning"] += bool(reply.reasoning)
        kinds["malformed"] += "<tool_call>" in reply.text
        kinds["broken"] += "\ufffd" in reply.text
    assert min(kinds.values()) > 500, kinds


def test_nothing_that_was_sampled_is_lost_but_white_space_and_markers(qwen3: ChatRenderer) -> None:
    rng = random.Random(21)
    stops = set(qwen3.stop_ids)
    for _ in range(2_000):
        ids = random_reply(rng, qwen3)
        end = next((index for index, token_id in enumerate(ids) if token_id in stops), len(ids))
        reply = qwen3.parse(ids, [])
        told = "".join([reply.reasoning or "", reply.text])
        for call in reply.tool_calls:
            told += call.name + call.arguments
        kept = [c for c in qwen3.decode(ids[:end]) if c.isalpha()]
        markers = [c for text in ("think", "toolcall", "name", "arguments") for c in text]
        missing = {c for c in kept if kept.count(c) > list(told).count(c)}
        assert missing <= set(markers), (qwen3.decode(ids), reply)


def test_well_formed_replies_are_read_as_the_renderers_package_reads_them(qwen3: ChatRenderer) -> None:
    package = Qwen3Renderer(qwen3._tokenizer)
    rng = random.Random(22)
    for _ in range(500):
        calls = [
            {"command": rng.choice(["ls", "echo 'é'", 'cat "a b" | wc\n'])} for _ in range(rng.randrange(3))
        ]
        text = rng.choice(["<think>\nI should look.\n</think>\n\n", "<think>\n\n</think>\n\n", ""])
        text += rng.choice(["Let me check.", "日本 🙂", ""])
        for arguments in calls:
            text += (
                "\n<tool_call>\n" + json.dumps({"name": "bash", "arguments": arguments}) + "\n</tool_call>"
            )
        ids = sampled(qwen3, text + "<|im_end|>")
        ours, theirs = qwen3.parse(ids, []), package.parse_response(ids)
        assert ours.text.strip() == theirs.content
        assert ours.reasoning == theirs.reasoning_content
        assert [(call.name, json.loads(call.arguments)) for call in ours.tool_calls] == [
            (call.name, call.arguments) for call in theirs.tool_calls
        ]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("piece", ["word ", "\n", "<tool_call>", "<think>", "é", "</tool_call>"])
def test_the_cost_of_an_id_does_not_grow_with_the_reply(qwen3: ChatRenderer, piece: str) -> None:
    """Seconds even on a busy machine; decoding the whole again at every id would take many minutes."""
    ids = (sampled(qwen3, "<think>") if piece == "<tool_call>" else []) + sampled(qwen3, piece) * 40_000
    streamed(qwen3, ids)


@pytest.mark.parametrize(
    "name", ["qwen3.5", "glm-4.5", "glm-5", "minimax-m2", "nemotron-3", "kimi-k2", "prime-qwen3"]
)
def test_other_families_stream_their_own_calls(name: str) -> None:
    renderer, family = family_renderer(name)
    tools = [
        {
            "type": "function",
            "function": {"name": "bash", "parameters": {"properties": {"command": {"type": "string"}}}},
        }
    ]
    call = {
        "id": "functions.bash:0",
        "type": "function",
        "function": {"name": "bash", "arguments": '{"command": "ls -la"}'},
    }
    user = {"role": "user", "content": "list"}
    prompt = family.ids([user], tools)
    said = {"role": "assistant", "content": "Let me.", "reasoning_content": "hm", "tool_calls": [call]}
    whole = family.ids(
        [user, said, {"role": "tool", "tool_call_id": "functions.bash:0", "content": "x"}], tools
    )
    same = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
    turns = renderer._turns
    assert turns is not None
    reply = next(segment for segment in turns.segments(whole) if segment.role == "assistant")
    ids = list(whole[max(same, reply.body) : reply.close])
    deltas, parsed = [], None
    stream = renderer.stream(tools)
    for token_id in ids:
        deltas += stream.feed(token_id)
    assert any(delta.tool_name for delta in deltas), "the call is told before the reply ends"
    rest, parsed = stream.finish()
    assert joined(deltas + rest) == parsed
    assert parsed.text.strip() == "Let me."
    assert parsed.reasoning in ("hm", None)
    assert [(c.name, json.loads(c.arguments)) for c in parsed.tool_calls] == [("bash", {"command": "ls -la"})]


def test_a_family_without_markers_is_read_at_the_end() -> None:
    renderer, _ = family_renderer("llama-3")
    ids = sampled(renderer, '{"name": "bash", "parameters": {"command": "ls"}}<|eot_id|>')
    deltas, reply = streamed(renderer, ids)
    assert joined(deltas) == reply
    assert reply.tool_calls == (bash('{"command": "ls"}'),)
    assert renderer.parse(sampled(renderer, "Done.<|eot_id|>"), []) == Reply(text="Done.")
