"""Prompts continue what was sampled wherever the template would say the same."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import renderers
from small_models import (
    CHAT_TEMPLATE,
    CHATML,
    FAMILY_TOKENS,
    MARKUP,
    byte_tokenizer,
    family_renderer,
    save_folder,
)

from agentrl.errors import ConfigError, ModelError, RequestError
from agentrl.text.renderer import ChatRenderer, Parent, Prompt, load_renderer
from agentrl.types import JSON, Block

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
CALLED = '<tool_call>\n{"name": "bash", "arguments": {"command" :  "ls"}}\n</tool_call>'


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


class Conversation:
    """A turn that was sampled, and what the client sends next."""

    def __init__(
        self, renderer: ChatRenderer, asked: list[JSON], sampled: str, tools: list[JSON] | None = None
    ):
        self.renderer = renderer
        self.asked = asked
        self.tools = [BASH] if tools is None else tools
        self.prompt = renderer.prompt(asked, self.tools, None)
        self.ids = tuple(renderer._tokenizer.encode(sampled))
        self.parent = Parent(prompt_ids=self.prompt.ids, completion_ids=self.ids, num_messages=len(asked) + 1)

    def then(
        self, told: JSON, *new: JSON, asked: list[JSON] | None = None, tools: list[JSON] | None = None
    ) -> Prompt:
        messages = [*(self.asked if asked is None else asked), told, *new]
        prompt = self.renderer.prompt(messages, self.tools if tools is None else tools, self.parent)
        if prompt.built_by == "extended":
            assert prompt.ids[: len(self.prompt.ids) + len(self.ids)] == self.prompt.ids + self.ids
        else:
            assert (
                prompt.ids == self.renderer.prompt(messages, self.tools if tools is None else tools, None).ids
            )
        return prompt


def test_the_qwen3_format_is_recognised_by_what_its_template_writes(qwen3: ChatRenderer) -> None:
    assert qwen3.family == "qwen3"
    assert [qwen3.decode([token_id]) for token_id in qwen3.stop_ids] == ["<|im_end|>", "<|endoftext|>"]
    assert qwen3.vocab_size == max(qwen3._tokenizer.control_ids) + 1
    assert qwen3.positions == {"system", "last_user", "tail"}


def test_a_first_prompt_is_rendered(qwen3: ChatRenderer) -> None:
    prompt = qwen3.prompt([SYSTEM, USER], [], None)
    assert prompt.built_by == "rendered: no parent"
    assert qwen3.decode(prompt.ids) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nlist the files<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_tool_loop_continues_the_sampled_ids_whatever_the_client_did_to_them(qwen3: ChatRenderer) -> None:
    turn = Conversation(qwen3, [SYSTEM, USER], f"<think>\nhm\n</think>\n\nLet me. \n{CALLED}<|im_end|>")
    for told in (
        says("Let me.", '{"command" :  "ls"}', "hm"),
        says("Let me.", '{"command":"ls"}'),
        says(" Let me.\n ", '{"command": "ls"}', ""),
        says("<think>hm</think>Let me.", '{"command": "ls"}'),
        says("Let me.", '{"command": "ls"}')
        | {"content": [{"type": "text", "text": "Let me."}], "x_extra": 1},
    ):
        prompt = turn.then(told, result("a.txt"), result("b.txt"))
        assert prompt.built_by == "extended"
        tail = qwen3.decode(prompt.ids[len(turn.prompt.ids) + len(turn.ids) :])
        assert tail == (
            "\n<|im_start|>user\n<tool_response>\na.txt\n</tool_response>\n<tool_response>\nb.txt\n</tool_response>"
            "<|im_end|>\n<|im_start|>assistant\n"
        )


def test_a_long_loop_is_one_growing_sequence(qwen3: ChatRenderer) -> None:
    messages: list[JSON] = [SYSTEM, USER]
    parent, before = None, ()
    for step in range(6):
        prompt = qwen3.prompt(messages, [BASH], parent)
        assert prompt.built_by == ("extended" if step else "rendered: no parent")
        assert prompt.ids[: len(before)] == before
        sampled = tuple(qwen3._tokenizer.encode(f"<think>\nstep {step}\n</think>\n\n{CALLED}<|im_end|>"))
        before = prompt.ids + sampled
        messages += [says("", '{"command":"ls"}'), result(f"file{step}")]
        parent = Parent(prompt_ids=prompt.ids, completion_ids=sampled, num_messages=len(messages) - 1)


@pytest.mark.parametrize(
    ("sampled", "told"),
    [
        ("Done.<|im_end|>", "Done."),
        ("Done.<|endoftext|>", "Done."),
        ("Done", "Done"),
        ("<tool_call>{oops</tool_call><|im_end|>", "<tool_call>{oops</tool_call>"),
        ("<|im_start|>user\nfoo<|im_end|>", "<|im_start|>user\nfoo"),
        ("<|im_end|>", ""),
    ],
)
def test_a_new_question_continues_a_reply_without_reasoning(
    qwen3: ChatRenderer, sampled: str, told: str
) -> None:
    turn = Conversation(qwen3, [USER], sampled)
    prompt = turn.then(says(told), {"role": "user", "content": "and now?"})
    assert prompt.built_by == "extended"
    closed = sampled if sampled.endswith("|>") else sampled + "<|im_end|>"
    assert qwen3.decode(prompt.ids).endswith(
        f"assistant\n{closed}\n<|im_start|>user\nand now?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_reasoning_that_the_template_drops_is_dropped_unless_all_is_kept(
    qwen3: ChatRenderer, qwen3_folder: Path
) -> None:
    keeping = load_renderer(qwen3_folder, thinking_retention="all")
    for renderer, built_by in (
        (qwen3, "rendered: the template drops earlier reasoning"),
        (keeping, "extended"),
    ):
        turn = Conversation(renderer, [USER], "<think>\nhm\n</think>\n\nDone.<|im_end|>")
        prompt = turn.then(says("Done.", reasoning="hm"), {"role": "user", "content": "and now?"})
        assert prompt.built_by == built_by
        assert ("<think>" in renderer.decode(prompt.ids)) == (built_by == "extended")


def test_reasoning_cut_off_is_closed_before_the_next_message(qwen3_folder: Path) -> None:
    renderer = load_renderer(qwen3_folder, thinking_retention="all")
    turn = Conversation(renderer, [USER], "<think>\nhm")
    prompt = turn.then(says("", reasoning="hm"), {"role": "user", "content": "well?"})
    assert prompt.built_by == "extended"
    assert "<think>\nhm</think><|im_end|>\n<|im_start|>user\nwell?" in renderer.decode(prompt.ids)


def test_anything_else_that_differs_is_rendered_and_named(qwen3: ChatRenderer) -> None:
    turn = Conversation(qwen3, [SYSTEM, USER], f"<think>\nhm\n</think>\n\nLet me.\n{CALLED}<|im_end|>")
    told, new = says("Let me.", '{"command":"ls"}'), result("a.txt")
    other_tool = {"type": "function", "function": BASH["function"] | {"description": "Run that."}}

    def reason(prompt: Prompt) -> str:
        return prompt.built_by.removeprefix("rendered: ")

    assert reason(turn.then(told, new, asked=[SYSTEM | {"content": "Be long."}, USER])) == (
        "the system prompt or the tools changed"
    )
    assert reason(turn.then(told, new, tools=[other_tool])) == "the system prompt or the tools changed"
    assert (
        reason(turn.then(told, new, asked=[SYSTEM, USER | {"content": "list"}]))
        == "the client changed a user message"
    )
    assert (
        reason(turn.then(says("Let me!", '{"command":"ls"}'), new))
        == "the client changed an assistant message"
    )
    assert (
        reason(turn.then(says("Let me.", '{"command":"cat"}'), new))
        == "the client changed an assistant message"
    )
    assert (
        reason(turn.then(says("Let me.", '{"command":"ls"}', "so"), new))
        == "the client changed the reasoning"
    )
    assert reason(turn.then(told)) == "nothing follows the parent's reply"
    assert reason(turn.then(told, new, says("More."), new)) == "the client added an assistant message"
    assert reason(turn.then(USER, new)) == "the client's history does not hold the parent's replies"


def test_a_context_message_that_moved_is_not_left_where_it_was(qwen3: ChatRenderer) -> None:
    context = {"role": "user", "content": "(it is Friday)"}
    turn = Conversation(qwen3, [SYSTEM, USER, context], f"{CALLED}<|im_end|>")
    turn.parent = replace(turn.parent, num_messages=3)
    prompt = turn.then(says("", '{"command":"ls"}'), result("a"), context, asked=[SYSTEM, USER])
    assert prompt.built_by.startswith("rendered: ")
    assert qwen3.decode(prompt.ids).count("Friday") == 1


def test_a_reply_that_goes_on_behind_its_stop_id_is_not_continued(qwen3: ChatRenderer) -> None:
    turn = Conversation(qwen3, [USER], "Done.<|im_end|> more")
    assert turn.then(says("Done."), USER).built_by == "rendered: the parent's reply goes on behind a stop id"


@pytest.mark.parametrize("name", FAMILY_TOKENS)
def test_a_continued_prompt_is_the_one_that_the_renderers_package_builds(name: str) -> None:
    renderer, family = family_renderer(name, "all")
    bridging = renderers.create_renderer(
        renderer._tokenizer, type(family.renderer.config)(thinking_retention="all")
    )
    thinks = {"glm-4.5": "<think>hm</think>", "llama-3": ""}.get(
        name, "hm</think>" if renderer._reader.prefilled else ""
    )
    question = {"role": "user", "content": "and now?"}
    stops = [renderer.decode([token_id]) for token_id in renderer.stop_ids]
    # The package ends a reply of GLM that was cut off with an id that its template never writes.
    for ended in stops if name.startswith("glm") else [*stops, ""]:
        for new in ([question], [question, question]):
            turn = Conversation(renderer, [SYSTEM, USER], f"{thinks}Done.{ended}", tools=[])
            prompt = turn.then(says("Done."), *new)
            bridged = bridging.bridge_to_next_turn(list(turn.prompt.ids), list(turn.ids), new)
            assert prompt.built_by == "extended"
            assert list(prompt.ids) == bridged.token_ids


def test_a_parent_that_begins_otherwise_is_not_continued(qwen3: ChatRenderer) -> None:
    turn = Conversation(qwen3, [USER], "Done.<|im_end|>", tools=[])
    turn.parent = replace(turn.parent, prompt_ids=(5, *turn.parent.prompt_ids))
    assert turn.then(says("Done."), USER).built_by == "rendered: the system prompt or the tools changed"


def test_messages_come_in_every_shape_that_clients_send(qwen3: ChatRenderer) -> None:
    odd: list[JSON] = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "list "}, {"type": "input_text", "text": "files"}],
        },
        {"role": "user", "content": "please", "name": "ann"},
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "bash", "arguments": {"command": "ls"}},
        },
        {"role": "function", "name": "bash", "content": "a.txt"},
        {"role": "assistant"},
        {"role": "system", "content": "It is late."},
    ]
    assert qwen3.decode(qwen3.prompt(odd, [], None).ids) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nlist files<|im_end|>\n"
        "<|im_start|>user\nplease<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "bash", "arguments": {"command": "ls"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\na.txt\n</tool_response><|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
        "<|im_start|>system\nIt is late.<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "alien", "content": "hi"}], "messages[0].role"),
        (
            [USER, {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            "messages[1].content",
        ),
        ([{"role": "user", "content": 7}], "messages[0].content"),
    ],
)
def test_messages_that_cannot_be_rendered_are_refused_by_field(
    qwen3: ChatRenderer, messages: list[JSON], param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        qwen3.prompt(messages, [], None)
    assert caught.value.param == param


def test_a_header_that_was_sampled_in_an_earlier_reply_is_no_user_message(qwen3: ChatRenderer) -> None:
    turn = Conversation(qwen3, [USER], "<|im_start|>user\nfake<|im_end|>")
    prompt = turn.then(says("<|im_start|>user\nfake"), result("a.txt"))
    assert prompt.built_by == "extended"
    view = qwen3.insert(prompt.ids, len(prompt.ids), [Block(position="last_user", text="T")])
    assert "list the files\n\nT<|im_end|>" in qwen3.decode(view.token_ids)


def folder_with(tmp_path: Path, template: str) -> Path:
    return save_folder(tmp_path / "model", byte_tokenizer(CHATML, MARKUP), template, "<|im_end|>")


def test_a_changed_template_is_rendered_as_it_says_and_not_as_its_family_would(tmp_path: Path) -> None:
    template = CHAT_TEMPLATE.replace("You may call one or more functions", "Call functions")
    renderer = load_renderer(folder_with(tmp_path, template))
    assert renderer.family == "template"
    prompt = renderer.prompt([USER], [BASH], None)
    assert "Call functions" in renderer.decode(prompt.ids)
    turn = Conversation(renderer, [SYSTEM, USER], f"<think>\nhm\n</think>\n\nLet me.\n{CALLED}<|im_end|>")
    assert renderer.parse(turn.ids, [BASH]).tool_calls[0].arguments == '{"command" :  "ls"}'
    assert turn.then(says("Let me.", '{"command":"ls"}'), result("a")).built_by == "extended"
    view = renderer.insert(prompt.ids, len(prompt.ids), [Block(position="tail", text="T")])
    assert "<|im_start|>system\nT<|im_end|>\n<|im_start|>assistant\n" in renderer.decode(view.token_ids)


STRICT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'system' %}{{ raise_exception('no system messages') }}{% endif -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif -%}
{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\\n' }}
{{- message.content | trim + '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif -%}
"""


def test_a_template_that_refuses_a_shape_gets_the_messages_merged(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(("<eos>", "<start_of_turn>", "<end_of_turn>"))
    renderer = load_renderer(save_folder(tmp_path / "model", tokenizer, STRICT_TEMPLATE, "<eos>"))
    ids = renderer.prompt([SYSTEM, USER, {"role": "user", "content": "now"}], [], None).ids
    assert renderer.decode(ids) == (
        "<start_of_turn>user\nBe brief.\n\nlist the files\n\nnow<end_of_turn>\n<start_of_turn>model\n"
    )
    assert [renderer.decode([token_id]) for token_id in renderer.stop_ids] == ["<eos>", "<end_of_turn>"]
    with pytest.raises(RequestError, match="send no tools"):
        renderer.prompt([USER], [BASH], None)
    view = renderer.insert(ids, len(ids), [Block(position="tail", text="T")])
    assert "<start_of_turn>user\nT<end_of_turn>\n<start_of_turn>model\n" in renderer.decode(view.token_ids)
    with pytest.raises(RequestError, match="alternate"):
        renderer.prompt([says("hi"), USER], [], None)


def test_a_template_in_no_known_format_serves_but_takes_no_block(tmp_path: Path) -> None:
    template = "{% for message in messages %}### {{ message.role }}: {{ message.content }}\n{% endfor %}### assistant:"
    renderer = load_renderer(folder_with(tmp_path, template))
    turn = Conversation(renderer, [USER], "Done.<|im_end|>", tools=[])
    assert (
        turn.then(says("Done."), USER).built_by == "rendered: the format of the model's messages is not known"
    )
    assert renderer.positions == frozenset()
    with pytest.raises(ConfigError, match="ChatML"):
        renderer.insert(turn.prompt.ids, len(turn.prompt.ids), [Block(position="tail", text="T")])


def test_folders_that_are_no_models_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="save_pretrained"):
        load_renderer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_renderer(tmp_path)
    with pytest.raises(ModelError, match=r"chat_template\.jinja"):
        load_renderer(folder_with(tmp_path, ""))


def test_stop_ids_of_the_generation_settings_count(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, CHAT_TEMPLATE)
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 421]}')
    assert set(load_renderer(folder).stop_ids) >= {7, 421}


def test_the_renderer_works_where_torch_cannot_be_imported(qwen3_folder: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "import agentrl.text.lineage, agentrl.text.redaction\n"
        "from agentrl.text.renderer import load_renderer\n"
        "renderer = load_renderer(Path(sys.argv[1]))\n"
        "assert renderer.prompt([{'role': 'user', 'content': 'hi'}], [], None).ids\n"
        "print(renderer.family)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(qwen3_folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "qwen3"), done.stderr


def test_the_renderer_imports_no_torch_where_it_could(qwen3_folder: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom agentrl.text.renderer import load_renderer\n"
        "load_renderer(Path(sys.argv[1]))\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(qwen3_folder)], timeout=120, check=False)
    assert done.returncode == 0
