"""The tokenizer without control tokens agrees with the original on everything else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import CHATML, CORPUS, MARKUP, byte_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from agentrl.errors import ModelError
from agentrl.text.plain import PlainTokenizer, _TextCache, is_control

characters = st.text(st.sampled_from("ab <|>/_\n\t.,日🙂é\u0301\x00thinkend"), max_size=30)


def byte_level() -> Tokenizer:
    tokenizer = byte_tokenizer(CHATML, MARKUP)
    tokenizer.add_tokens([AddedToken("    ", normalized=False), AddedToken("blorp", normalized=False)])
    return tokenizer


def sentencepiece(*, prepend: str = "first") -> Tokenizer:
    """Llama's old kind: spaces as ▁, one before the first word; bytes for what is not in the vocabulary."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=True)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    tokenizer.add_special_tokens(["<|user|>", "<|end|>"])
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>", "</s>", "<sep>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    return tokenizer


TOKENIZERS = {
    "byte_level": byte_level(),
    "sentencepiece": sentencepiece(),
    "sentencepiece_always": sentencepiece(prepend="always"),
    "unigram": unigram(),
}
PLAIN = {name: PlainTokenizer(tokenizer, unk_token="<unk>") for name, tokenizer in TOKENIZERS.items()}
CONTROLS = {name: tuple(plain._controls) for name, plain in PLAIN.items()}


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=characters)
@settings(max_examples=150, deadline=None)
def test_text_without_control_tokens_has_the_ids_of_the_original(name: str, text: str) -> None:
    if any(token in text for token in CONTROLS[name]):
        return
    expected = TOKENIZERS[name].encode(text, add_special_tokens=False).ids
    assert PLAIN[name].plain(text) == expected
    assert PLAIN[name].encode(text) == expected


@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_with_control_tokens_is_split_as_the_original_splits_it(name: str) -> None:
    @given(parts=st.lists(characters | st.sampled_from(CONTROLS[name]), max_size=6))
    @settings(max_examples=150, deadline=None)
    def holds(parts: list[str]) -> None:
        text = "".join(parts)
        assert PLAIN[name].encode(text) == TOKENIZERS[name].encode(text, add_special_tokens=False).ids

    holds()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_plain_text_never_has_a_control_id(name: str) -> None:
    plain = PLAIN[name]
    assert plain.control_ids

    @given(parts=st.lists(characters | st.sampled_from(CONTROLS[name]), max_size=6))
    @settings(max_examples=150, deadline=None)
    def holds(parts: list[str]) -> None:
        assert plain.control_ids.isdisjoint(plain.plain("".join(parts)))

    holds()


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_ids_fed_one_at_a_time_decode_to_the_whole(name: str, data: st.DataObject) -> None:
    plain = PLAIN[name]
    ids = data.draw(st.lists(st.integers(0, plain.vocab_size + 1), max_size=20) | characters.map(plain.plain))
    whole = plain.decode(ids)
    stream = plain.detokenizer()
    assert "".join([stream.feed(token_id) for token_id in ids]) + stream.flush() == whole
    ranges = plain.offsets(ids)
    assert len(ranges) == len(ids)
    assert all(0 <= start <= end <= len(whole) for start, end in ranges)
    assert {at for start, end in ranges for at in range(start, end)} == set(range(len(whole)))


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=characters)
@settings(max_examples=150, deadline=None)
def test_ids_of_a_text_decode_as_the_original_decodes_them(name: str, text: str) -> None:
    ids = PLAIN[name].encode(text)
    assert PLAIN[name].decode(ids) == TOKENIZERS[name].decode(ids, skip_special_tokens=False)


@given(ids=st.lists(st.integers(0, 440), max_size=20))
@settings(max_examples=300, deadline=None)
def test_any_ids_of_a_byte_level_tokenizer_decode_as_the_original_decodes_them(ids: list[int]) -> None:
    expected = TOKENIZERS["byte_level"].decode(ids, skip_special_tokens=False)
    assert PLAIN["byte_level"].decode(ids) == expected


def test_offsets_name_every_id_of_a_character_and_no_other() -> None:
    plain = PLAIN["byte_level"]
    ids = [*plain.plain("a"), *plain.plain("🙂"), *plain.plain("b")]
    assert plain.offsets(ids) == [(0, 1), *[(1, 2)] * (len(ids) - 2), (2, 3)]


def test_a_decoder_that_needs_the_whole_text_is_refused() -> None:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    with pytest.raises(ModelError, match="WordPiece"):
        PlainTokenizer(tokenizer)


def test_markup_and_special_tokens_are_control_tokens_and_words_and_spaces_are_not() -> None:
    assert is_control(AddedToken("<|im_end|>", special=True))
    assert is_control(AddedToken("<tool_call>", special=False))
    assert is_control(AddedToken("]~b]", special=True))
    assert not is_control(AddedToken("    ", special=False))
    assert not is_control(AddedToken("blorp", special=False))
    assert PLAIN["byte_level"].plain("    blorp") == [
        TOKENIZERS["byte_level"].token_to_id(t) for t in ("    ", "blorp")
    ]


def test_tokens_that_eat_the_space_around_them_do_so_here_too() -> None:
    tokenizer = byte_tokenizer(CHATML)
    tokenizer.add_special_tokens([AddedToken("<|user|>", rstrip=True), AddedToken("<|left|>", lstrip=True)])
    tokenizer.add_special_tokens([AddedToken("<|word|>", single_word=True)])
    plain = PlainTokenizer(tokenizer)
    for text in (
        "a <|user|>  \n b",
        " <|left|> x",
        "<|user|> ",
        "  <|left|>",
        "a<|word|> <|word|> <|word|>b",
    ):
        assert plain.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids, text


def test_the_cache_holds_no_more_than_its_limit_and_gives_back_what_was_made() -> None:
    cache = _TextCache(10)
    made: list[str] = []

    def get(text: str) -> tuple[int, ...]:
        return cache.get((text, True), lambda: (made.append(text), len(text))[1:])

    assert get("aaaa") == get("aaaa") == (4,)
    get("bbbb")
    get("aaaa")
    get("cccc")
    assert made == ["aaaa", "bbbb", "cccc"]
    assert cache.num_chars == 8
    get("bbbb")
    assert made == ["aaaa", "bbbb", "cccc", "bbbb"], "the least used went first"
    get("x" * 11)
    assert cache.num_chars == 8
