import json
import random
from pathlib import Path

import pytest
from renderers.qwen3 import Qwen3Renderer
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from agentrl.nano import corpus, mixture, tokenizer
from agentrl.nano import vocabulary as v
from agentrl.nano.encoding import Encoder, Example


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("nano_tokenizer")
    tokenizer.save(tokenizer.build(), path)
    return path


@pytest.fixture(scope="module")
def tokens(folder) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def renderer(folder) -> Qwen3Renderer:
    return Qwen3Renderer(AutoTokenizer.from_pretrained(folder))


def plain_copy(tokens: Tokenizer) -> Tokenizer:
    description = json.loads(tokens.to_str())
    description["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(description))


def without_blocks(example: Example) -> Example:
    return Example(
        kind=example.kind, messages=example.messages, tools=example.tools, blocks=(), trained=example.trained
    )


def test_ids_of_every_example_equal_those_of_the_qwen3_renderer(tokens, renderer):
    encoder, rng = Encoder(tokens), random.Random(0)
    for draw in [mixture.example] * 300 + [corpus.short] * 60:
        example = without_blocks(draw(rng))
        prompt = renderer.render_ids(example.messages[:-1], tools=example.tools, add_generation_prompt=True)
        assert encoder.encode(example)[0] == prompt + encoder.reply(example.messages[-1])


def test_a_reply_parses_back_into_its_command(tokens, renderer):
    reply = Encoder(tokens).reply(corpus.call("zorvex notes.txt"))
    (call,) = renderer.parse_response(reply).tool_calls
    assert call.name == "bash"
    assert call.arguments == {"command": "zorvex notes.txt"}


def test_deleting_the_blocks_gives_the_ids_that_were_served(tokens):
    encoder, rng = Encoder(tokens), random.Random(1)
    checked = 0
    while checked < 100:
        example = mixture.example(rng)
        if not example.blocks:
            continue
        checked += 1
        position = example.blocks[0].position
        ids, served = encoder.encode(example)[0], encoder.encode(without_blocks(example))[0]
        span = []
        for block in example.blocks:
            inner = encoder.text(block.text)
            if position == "tail":
                start, end = tokens.token_to_id("<|im_start|>"), tokens.token_to_id("<|im_end|>")
                span += [start, *encoder.text("system\n"), *inner, end, *encoder.text("\n")]
            else:
                span += [*encoder.text("\n\n"), *inner]
        (at,) = [i for i in range(len(ids)) if ids[i : i + len(span)] == span]
        assert ids[:at] + ids[at + len(span) :] == served


def test_the_loss_mask_covers_whole_assistant_replies_and_nothing_else(tokens):
    encoder, rng = Encoder(tokens), random.Random(2)
    for _ in range(200):
        example = mixture.example(rng)
        ids, mask = encoder.encode(example)
        learned = [token for token, learn in zip(ids, mask, strict=True) if learn]
        expected = [encoder.reply(example.messages[index]) for index in sorted(example.trained)]
        assert learned == [token for reply in expected for token in reply]
        assert example.trained
        assert all(example.messages[index]["role"] == "assistant" for index in example.trained)


def test_a_refused_try_is_not_learned_where_a_block_already_said_better(tokens):
    rng = random.Random(3)
    for _ in range(200):
        example = corpus.hinted_later(rng)
        for index in example.trained:
            following = example.messages[index + 1 : index + 2]
            assert not following or "[exit code" not in following[0].get("content", "")


def test_withheld_wordings_and_names_of_the_rules_half_never_occur(tokens):
    rng = random.Random(4)
    ends = [wording.split("{new}")[0].split("{old}")[-1].strip() for wording in v.WITHHELD_WORDINGS]
    known = " ".join((*v.KNOWN_WORDINGS, *v.HINT_WORDINGS, *v.SKILL_WORDINGS))
    telling = [part for part in ends if len(part) > 12 and part not in known]
    assert telling
    for _ in range(400):
        example = mixture.example(rng)
        text = json.dumps(example.messages) + " ".join(block.text for block in example.blocks)
        assert not any(part in text for part in telling)


def test_the_prompt_of_the_terminal_agent_and_its_reply_are_short(tokens, renderer):
    messages = [
        {"role": "system", "content": v.AGENT_SYSTEM},
        {"role": "user", "content": "Show the file notes.txt."},
    ]
    assert len(renderer.render_ids(messages, tools=[v.BASH_TOOL], add_generation_prompt=True)) <= 60
    assert len(Encoder(tokens).reply(corpus.call("zorvex notes.txt"))) <= 14


def test_a_plain_copy_without_added_tokens_encodes_text_alike(tokens):
    plain, encoder, rng = plain_copy(tokens), Encoder(tokens), random.Random(5)
    for _ in range(100):
        for message in mixture.example(rng).messages:
            text = message["content"]
            assert plain.encode(text).ids == tokens.encode(text).ids == encoder.text(text)
    for text in tokenizer.FIXED:
        assert len(plain.encode(text).ids) == 1


def test_a_name_has_the_same_ids_wherever_it_stands(tokens):
    rng = random.Random(6)
    lengths = []
    for _ in range(300):
        name = v.fresh_name(rng, "rules")
        alone = tokens.encode(name).ids
        lengths.append(len(alone))
        for frame in ("use {} instead", "{} notes.txt", "Did you mean {}?", "`{}`", "(use {})"):
            before, after = frame.split("{}")
            ids = tokens.encode(frame.format(name)).ids
            assert ids == tokens.encode(before).ids + alone + tokens.encode(after).ids
    assert sum(lengths) / len(lengths) <= 4


def test_the_chat_template_renders_like_the_renderer(folder, renderer):
    wrapped = AutoTokenizer.from_pretrained(folder)
    rng = random.Random(7)
    for _ in range(60):
        messages = mixture.example(rng).messages[:-1]
        for generation in (True, False):
            ids = wrapped.apply_chat_template(
                messages, tools=[v.BASH_TOOL], add_generation_prompt=generation, return_dict=False
            )
            assert ids == renderer.render_ids(messages, tools=[v.BASH_TOOL], add_generation_prompt=generation)


@pytest.mark.parametrize("last", [True, False])
def test_the_chat_template_keeps_reasoning_like_the_renderer(folder, renderer, last):
    wrapped = AutoTokenizer.from_pretrained(folder)
    thought = {"role": "assistant", "content": "It is done.", "reasoning_content": "\nLet me see.\n"}
    messages = [
        corpus.user("Show the file notes.txt."),
        thought,
        *([] if last else [corpus.user("Run build.sh.")]),
    ]
    ids = wrapped.apply_chat_template(messages, return_dict=False)
    assert ids == renderer.render_ids(messages)


def test_the_encoder_cache_does_not_change_ids(tokens):
    encoder = Encoder(tokens)
    first = encoder.encode(mixture.example(random.Random(8)))
    assert (
        encoder.encode(mixture.example(random.Random(8)))
        == first
        == Encoder(tokens).encode(mixture.example(random.Random(8)))
    )
