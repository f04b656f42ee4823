"""Whatever a client types, only the template's own control tokens become control ids."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import (
    CHAT_TEMPLATE,
    CHATML,
    FAMILY_TOKENS,
    MARKUP,
    byte_tokenizer,
    family_renderer,
    save_folder,
)

from agentrl.text.renderer import ChatRenderer, load_renderer
from agentrl.text.shield import BREAK, ESCAPE, Shield, unmark
from agentrl.types import JSON

NASTY = (
    "<|im_end|>",
    "<|im_start|>",
    "<tool_call>",
    "</think>",
    "<|user|>",
    "<|eot_id|>",
    "]~b]",
    "[e~[",
    "]~!b[e~[",
)
PARTS = (
    "<",
    "|",
    ">",
    "/",
    "<|",
    "|>",
    "im_end",
    "think",
    "</",
    "]",
    "[",
    "~",
    "<|im_",
    "end|>",
    "]~b",
    "tool_call",
)
MARKS = (BREAK, ESCAPE, ESCAPE + "b", "\\uf3a1", "\\uf3a2e", "\\", '"', "\\u003c", "\\u003cthink>")
WORDS = ("ls", " ", "\n", "日本", "🙂", "the file", "\ud800", "name", "type", "user\n", "assistant")
texts = st.lists(st.sampled_from(NASTY + PARTS + MARKS + WORDS), max_size=6).map("".join)
names = texts.filter(bool)
json_values = st.recursive(
    texts | st.integers(0, 9) | st.booleans(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)


def conversation(text: Any, name: Any, value: Any, arguments: str) -> tuple[list[JSON], list[JSON]]:
    call = {"id": "functions.f:0", "type": "function", "function": {"name": name, "arguments": arguments}}
    messages = [
        {"role": "system", "content": text},
        {"role": "user", "content": text},
        {"role": "assistant", "content": text, "reasoning_content": text, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "functions.f:0", "name": name, "content": text},
        {"role": "user", "content": text},
    ]
    parameters = {
        "type": "object",
        "properties": {name: {"type": "string", "description": text, "enum": [text]}},
    }
    function = {"name": name, "description": text, "parameters": parameters, "x": value}
    return messages, [{"type": "function", "function": function}]


def controls(renderer: ChatRenderer, ids: tuple[int, ...]) -> list[int]:
    return [token_id for token_id in ids if token_id in renderer._tokenizer.control_ids]


@pytest.mark.parametrize("name", FAMILY_TOKENS)
@given(
    text=texts,
    tool=names,
    value=json_values,
    arguments=st.dictionaries(names, json_values, min_size=1, max_size=1),
)
@settings(max_examples=60, deadline=None)
def test_no_client_text_makes_or_hides_a_control_id(
    name: str, text: str, tool: str, value: Any, arguments: dict[str, Any]
) -> None:
    renderer, _ = family_renderer(name)
    nasty = renderer.prompt(*conversation(text, tool, value, json.dumps(arguments)), None)
    # The same conversation in words that need no care: as long, as deep, but for the letters.
    plain = renderer.prompt(
        *conversation(tame(text), tame(tool), tame(value), json.dumps(tame(arguments))), None
    )
    assert controls(renderer, nasty.ids) == controls(renderer, plain.ids)


def tame(value: Any) -> Any:
    """Letters in place of everything but white space, so that a template takes the same ways."""
    if isinstance(value, str):
        return "".join(c if c.isspace() else "x" for c in value)
    if isinstance(value, dict):
        return {f"{tame(key)}{index}": tame(item) for index, (key, item) in enumerate(value.items())}
    if isinstance(value, list):
        return [tame(item) for item in value]
    return value


@given(text=texts)
@settings(max_examples=200, deadline=None)
def test_a_rendered_prompt_says_what_the_client_said(qwen3: ChatRenderer, text: str) -> None:
    clean = text.replace("\ud800", "\ufffd")
    ids = qwen3.prompt([{"role": "user", "content": text}], [], None).ids
    assert qwen3.decode(ids) == f"<|im_start|>user\n{clean}<|im_end|>\n<|im_start|>assistant\n"


@given(text=texts, name=st.booleans())
@settings(max_examples=300, deadline=None)
def test_marks_come_off_again(text: str, name: bool) -> None:
    shield = Shield(NASTY)
    clean = text.replace("\ud800", "\ufffd")
    assert unmark(shield.text(text, name=name)) == clean
    assert not any(token in shield.text(text, name=name) for token in NASTY)
    as_ascii = json.dumps(shield.text(text, name=name))
    assert json.loads(unmark(as_ascii)) == clean


@given(value=st.dictionaries(names, json_values, max_size=2))
@settings(max_examples=200, deadline=None)
def test_json_text_means_the_same_behind_its_marks_and_decodes_to_marked_strings(
    value: dict[str, Any],
) -> None:
    shield = Shield(NASTY)
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        if "\ud800" in text:
            continue
        marked = shield.json_text(text)
        assert json.loads(unmark(marked)) == json.loads(json.dumps(value).replace("\\ud800", "\\ufffd"))
        assert not any(token in json.dumps(json.loads(marked), ensure_ascii=False) for token in NASTY)


def test_arguments_that_need_no_care_keep_their_spelling() -> None:
    shield = Shield(NASTY)
    arguments = '{"command" :  "echo \\u00e9 <b>",\n "n": 1.0}'
    assert unmark(shield.json_text(arguments)) == arguments
    assert unmark(shield.json_text('{"a": 1, broken <|im_end|>')) == '{"a": 1, broken <|im_end|>'


def test_a_control_token_hidden_behind_json_escapes_is_found() -> None:
    shield = Shield(NASTY)
    marked = json.loads(shield.json_text('{"path": "\\u003c|im_end|>"}'))["path"]
    assert "<|im_end|>" not in marked
    assert unmark(marked) == "<|im_end|>"


def test_half_a_token_cannot_be_completed_by_the_template() -> None:
    shield = Shield(["<think>", "<|im_end|>"])
    for before, text, after in [
        ("<", "think", ">"),
        ("", "<|im_end|", ">"),
        ("<", "|im_end|>", ""),
        ("<|", "im_end", "|>"),
        ("<", "|im_end|> and more text than a token has", ""),
        ("", "more text than a token has and <|im_end|", ">"),
    ]:
        assert not any(
            token in before + shield.text(text, name=True) + after for token in ("<think>", "<|im_end|>")
        )
    assert shield.text("type", name=True) == "type"


def test_a_template_of_the_models_own_is_shielded_like_the_package(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    template = CHAT_TEMPLATE.replace("'<tool_call>\\n{", "'<tool_call>{") + "<b>"
    folder = tmp_path_factory.mktemp("models") / "own"
    renderer = load_renderer(save_folder(folder, byte_tokenizer(CHATML, MARKUP), template, "<|im_end|>"))
    assert renderer.family == "template"

    @given(
        text=texts, tool=names, value=json_values, arguments=st.dictionaries(names, json_values, max_size=1)
    )
    @settings(max_examples=100, deadline=None)
    def holds(text: str, tool: str, value: Any, arguments: dict[str, Any]) -> None:
        nasty = renderer.prompt(*conversation(text, tool, value, json.dumps(arguments)), None)
        plain = renderer.prompt(
            *conversation(tame(text), tame(tool), tame(value), json.dumps(tame(arguments))), None
        )
        assert controls(renderer, nasty.ids) == controls(renderer, plain.ids)

    holds()
