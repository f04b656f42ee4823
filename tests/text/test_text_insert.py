"""Blocks for the teacher stand where the design puts them, and come out again without a trace."""

import random

import pytest
from small_models import FAMILY_TOKENS, family_renderer

from agentrl.errors import ConfigError
from agentrl.text.renderer import ChatRenderer
from agentrl.types import JSON, Block, TeacherView

BASH: JSON = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Run it.",
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
    },
}
SYSTEM: JSON = {"role": "system", "content": "Be brief."}
USER: JSON = {"role": "user", "content": "list the files"}


def says(text: str, arguments: str | None = None, reasoning: str | None = None) -> JSON:
    message: JSON = {"role": "assistant", "content": text}
    if arguments is not None:
        message["tool_calls"] = [
            {"id": "call1", "type": "function", "function": {"name": "bash", "arguments": arguments}}
        ]
    if reasoning is not None:
        message["reasoning_content"] = reasoning
    return message


def result(text: str) -> JSON:
    return {"role": "tool", "tool_call_id": "call1", "content": text}


def deleted(view: TeacherView) -> tuple[int, ...]:
    left = list(view.token_ids)
    for start, end in reversed(view.inserted_spans):
        del left[start:end]
    return tuple(left)


def tool_history(rng: random.Random) -> list[JSON]:
    messages: list[JSON] = [SYSTEM] if rng.random() < 0.5 else []
    messages.append(USER)
    for _ in range(rng.randrange(4)):
        messages.append(
            says(rng.choice(["", "Let me."]), '{"command": "ls"}', rng.choice([None, "hm <|im_end|>"]))
        )
        messages += [result("a <tool_response> 🙂") for _ in range(rng.randrange(1, 3))]
        if rng.random() < 0.4:
            messages += [
                says("Done.", reasoning="so"),
                {"role": "user", "content": "<|im_start|>user\nmore\n"},
            ]
    return messages


@pytest.mark.parametrize("name", FAMILY_TOKENS)
def test_deleting_the_inserted_spans_gives_the_served_ids(name: str) -> None:
    renderer, _ = family_renderer(name)
    rng = random.Random(name)
    for _ in range(40):
        history = tool_history(rng)
        if name == "llama-3":
            history = [
                message for message in history if message["role"] != "tool" and "tool_calls" not in message
            ]
        prompt = renderer.prompt(history, [BASH], None).ids
        sampled = tuple(rng.randrange(renderer.vocab_size) for _ in range(rng.randrange(6)))
        ids = prompt + sampled
        texts = ["Hint: use ls -a", "Skill: x\n<|im_end|>\n[e~[", "日本"]
        blocks = [
            Block(position=position, text=rng.choice(texts))
            for position in rng.choices(["system", "last_user", "tail"], k=rng.randrange(1, 4))
        ]
        view = renderer.insert(ids, len(prompt), blocks)
        assert deleted(view) == ids
        assert len(view.inserted_spans) == len(blocks)
        assert view.token_ids[-len(sampled) :] == ids[-len(sampled) :] if sampled else True
        for start, end in view.inserted_spans:
            assert end <= len(view.token_ids) - len(sampled)
            text = renderer.decode(view.token_ids[start:end])
            assert any(block.text in text for block in blocks)
            inside = [i for i in view.token_ids[start:end] if i in renderer._tokenizer.control_ids]
            assert len(inside) <= 5, "a header and a close at most, whatever the text says"


def test_each_place_of_a_block_is_where_the_design_puts_it(qwen3: ChatRenderer) -> None:
    history = [SYSTEM, USER, says("", '{"command": "ls"}', "hm"), result("a.txt")]
    prompt = qwen3.prompt(history, [BASH], None).ids

    def inserted(*blocks: tuple[str, str]) -> list[str]:
        view = qwen3.insert(prompt, len(prompt), [Block(position=place, text=text) for place, text in blocks])
        assert deleted(view) == prompt
        return [qwen3.decode(view.token_ids[start:end]) for start, end in view.inserted_spans]

    def whole(place: str) -> str:
        view = qwen3.insert(prompt, len(prompt), [Block(position=place, text="Hint: x")])
        return qwen3.decode(view.token_ids)

    assert inserted(("tail", "Hint: x")) == ["<|im_start|>system\nHint: x<|im_end|>\n"]
    assert whole("tail").endswith(
        "</tool_response><|im_end|>\n<|im_start|>system\nHint: x<|im_end|>\n<|im_start|>assistant\n"
    )
    assert inserted(("last_user", "Hint: x")) == ["\n\nHint: x"]
    assert "<|im_start|>user\nlist the files\n\nHint: x<|im_end|>\n<|im_start|>assistant" in whole(
        "last_user"
    )
    assert inserted(("system", "Hint: x")) == ["\n\nHint: x"]
    assert "</tool_call>\n\nHint: x<|im_end|>\n<|im_start|>user" in whole("system")
    assert inserted(("tail", "one"), ("system", "two"), ("tail", "three"), ("last_user", "four")) == [
        "\n\ntwo",
        "\n\nfour",
        "<|im_start|>system\none<|im_end|>\n",
        "<|im_start|>system\nthree<|im_end|>\n",
    ]


def test_a_system_block_stands_at_the_front_where_there_is_none(qwen3: ChatRenderer) -> None:
    prompt = qwen3.prompt([USER], [], None).ids
    view = qwen3.insert(prompt, len(prompt), [Block(position="system", text="Hint: x")])
    assert qwen3.decode(view.token_ids).startswith(
        "<|im_start|>system\nHint: x<|im_end|>\n<|im_start|>user\n"
    )
    assert view.inserted_spans[0][0] == 0


def test_a_tail_is_in_the_prompt_even_where_the_reply_makes_up_a_header(qwen3: ChatRenderer) -> None:
    prompt = qwen3.prompt([USER], [], None).ids
    sampled = tuple(qwen3._tokenizer.encode("x<|im_end|>\n<|im_start|>assistant\ny<|im_end|>"))
    view = qwen3.insert(prompt + sampled, len(prompt), [Block(position="tail", text="T")])
    assert view.token_ids[-len(sampled) :] == sampled
    assert view.inserted_spans[0][0] == len(prompt) - len(qwen3._tokenizer.encode("<|im_start|>assistant\n"))


def test_blocks_that_have_no_place_are_refused_with_the_remedy(qwen3: ChatRenderer) -> None:
    prompt = qwen3.prompt([SYSTEM], [], None).ids
    for block, remedy in [
        (Block(position="last_user", text="T"), "'tail' or 'system'"),
        (Block(position="middle", text="T"), "'last_user' or 'tail'"),
        (Block(position="tail", text=""), "leave the block out"),
    ]:
        with pytest.raises(ConfigError, match=remedy):
            qwen3.insert(prompt, len(prompt), [block])
    with pytest.raises(ConfigError, match="header"):
        qwen3.insert(prompt, len(prompt) - 4, [Block(position="tail", text="T")])
