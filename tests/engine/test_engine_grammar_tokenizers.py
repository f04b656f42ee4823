"""Which ids a grammar allows, for tokenizers of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from engine_models import IDS, LETTERS
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from agentrl.engine.grammar import Grammars
from agentrl.errors import RequestError


def chat_tokenizer(folder: Path) -> tuple[int, ...]:
    """Bytes, the piece "}}", and control tokens of both kinds; returns the ids of the latter."""
    vocab = {**IDS, "}}": 256}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("}", "}")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return tuple(tokenizer.token_to_id(name) for name in ("<|end|>", "<tool_call>"))


def test_control_tokens_are_never_text_of_a_reply(tmp_path: Path) -> None:
    controls = chat_tokenizer(tmp_path)
    # The model's logits are wider than its tokenizer.
    constraint = Grammars(tmp_path, 300).compile('{"type": "string"}').begin([controls[0]])
    constraint.take(IDS['"'])
    inside = constraint.allowed()
    assert not inside[list(controls)].any()
    assert inside[256]
    assert inside[IDS["<"]]
    assert not inside[259:].any()

    constraint.take(IDS['"'])
    assert np.flatnonzero(constraint.allowed()).tolist() == [controls[0]]


def test_ids_of_several_letters_are_followed_too(tmp_path: Path) -> None:
    chat_tokenizer(tmp_path)
    constraint = Grammars(tmp_path, 259).compile("regex:a}{1,2}").begin([])
    constraint.take(IDS["a"])

    assert np.flatnonzero(constraint.allowed()).tolist() == [IDS["}"], 256]
    constraint.take(256)
    assert constraint.complete


def page_tokenizer(folder: Path) -> None:
    """Bytes, and runs of "a" of which ids 263 and 264 stand for 256 and 512 letters."""
    runs = ["a" * 2**power for power in range(10)]
    vocab = {**IDS, **{run: 255 + power for power, run in enumerate(runs) if power}}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[(run, run) for run in runs[:-1]]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))


def test_an_id_that_stands_for_a_whole_page_is_passed_over_and_its_text_is_spelled(tmp_path: Path) -> None:
    page_tokenizer(tmp_path)
    constraint = Grammars(tmp_path, 265).compile(json.dumps({"const": "a" * 600})).begin([])

    constraint.take(IDS['"'])
    # 128 letters are the most
    for _ in range(4):
        assert np.flatnonzero(constraint.allowed()).max() == 262
        constraint.take(262)
    assert np.flatnonzero(constraint.allowed()).max() == 261


@pytest.mark.parametrize("inside", ["<|long 263|>", "<|end of grammar 265|>"])
def test_text_that_looks_like_a_hidden_id_is_spelled(tmp_path: Path, inside: str) -> None:
    page_tokenizer(tmp_path)
    constraint = Grammars(tmp_path, 265).compile(json.dumps({"const": inside})).begin([])

    for letter in json.dumps(inside).replace(" ", "\u0120"):
        assert np.flatnonzero(constraint.allowed()).tolist() == [IDS[letter]]
        constraint.take(IDS[letter])
    assert constraint.complete


@pytest.mark.parametrize("inside", ["<tool_call>", "<|end|>"])
def test_text_that_looks_like_a_control_token_is_spelled(tmp_path: Path, inside: str) -> None:
    controls = chat_tokenizer(tmp_path)
    constraint = Grammars(tmp_path, 259).compile(json.dumps({"const": inside})).begin([controls[0]])
    spelled = ""
    while not constraint.complete:
        (token_id,) = np.flatnonzero(constraint.allowed()).tolist()
        spelled += LETTERS[token_id]
        constraint.take(token_id)

    assert spelled == json.dumps(inside)


def test_bytes_and_letters_of_a_sentencepiece_vocabulary_are_followed(tmp_path: Path) -> None:
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *'▁abe{}:"</>']
    vocab = {name: i for i, name in enumerate(names)}
    merges = [("▁", "a")]
    vocab["▁a"] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<unk>", "<s>", "</s>")])
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    assert spelled_by(tmp_path, tokenizer, '{"const": "é a</s>"}') == '"é a</s>"'


def test_pieces_of_a_unigram_vocabulary_are_followed(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -3.0) for letter in '▁abe"</s>'), ("▁a", -1.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<unk>", "</s>")])
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    assert spelled_by(tmp_path, tokenizer, '{"const": "b a</s>"}') == '"b a</s>"'


def spelled_by(folder: Path, tokenizer: Tokenizer, grammar: str) -> str:
    """The text of the only reply, by one of its spellings. No control token may be in it."""
    constraint = Grammars(folder, tokenizer.get_vocab_size()).compile(grammar).begin([])
    controls = [i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    spelled: list[int] = []
    while not constraint.complete:
        mask = constraint.allowed()
        assert not mask[controls].any()
        spelled.append(int(np.flatnonzero(mask)[-1]))
        constraint.take(spelled[-1])
    return str(tokenizer.decode(spelled, skip_special_tokens=False))


def test_a_tokenizer_whose_ids_are_no_bytes_refuses_grammars_and_nothing_else(tmp_path: Path) -> None:
    Tokenizer(models.WordLevel(vocab={"a": 0, "b": 1}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    grammars = Grammars(tmp_path, 2)

    with pytest.raises(RequestError, match="cannot be constrained to a grammar"):
        grammars.compile("{}")
