"""A field that reads like a slip of a known one is told of; those of other servers are ignored in silence."""

import json
import logging
from pathlib import Path

import pytest
from server_house import says, serving

from server.wire.chat import read_body
from server.wire.chat_body import ChatBody
from server.wire.near_miss import HEADER, MAX_REMEMBERED, NearMisses, nearest, slips

KNOWN = tuple(ChatBody.model_fields)
ASKED = {"model": "nano", "messages": [{"role": "user", "content": "Hi"}]}
OF_OTHERS = (
    "min_tokens", "min_p", "top_a", "models", "provider", "transforms", "route", "repetition_penalty",
    "repeat_penalty", "length_penalty", "best_of", "use_beam_search", "stop_token_ids",
    "include_stop_str_in_output", "ignore_eos", "skip_special_tokens", "prompt_logprobs", "echo",
    "add_generation_prompt", "chat_template", "chat_template_kwargs", "guided_json", "guided_regex", "priority",
    "truncate_prompt_tokens", "n_predict", "n_keep", "typical_p", "mirostat", "mirostat_tau", "cache_prompt",
    "n_probs", "samplers", "user", "store", "service_tier", "parallel_tool_calls", "reasoning_effort", "verbosity",
    "prediction", "modalities", "audio", "web_search_options", "safety_identifier", "prompt_cache_key",
    "function_call", "min_new_tokens", "regex", "ebnf", "separate_reasoning", "stop_regex", "keep_alive", "options",
    "format", "thinking", "enable_thinking", "documents", "plugins", "reasoning", "usage", "extra_body", "num_ctx",
    "tfs_z", "seed_offset", "user_id",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_tokns", "max_tokens"),
        ("max_token", "max_tokens"),
        ("maxTokens", "max_tokens"),
        ("temprature", "temperature"),
        ("temperatrue", "temperature"),
        ("Temperature", "temperature"),
        ("steam", "stream"),
        ("tool_choise", "tool_choice"),
        ("respones_format", "response_format"),
        ("topp", "top_p"),
        ("tool", "tools"),
    ],
)
def test_a_slip_is_recognised(name: str, meant: str) -> None:
    assert nearest(name, KNOWN) == meant


@pytest.mark.parametrize("name", [*OF_OTHERS, "m", "nn", "max_tökens", "max_tokens\r\nX-Evil: 1", "m" * 41])
def test_fields_of_other_servers_and_what_fits_no_header_are_no_slips(name: str) -> None:
    assert NearMisses(KNOWN).of([name]) == []


@pytest.mark.parametrize(
    ("one", "other", "num"),
    [("stop", "stop", 0), ("stpo", "stop", 1), ("top", "stop", 1), ("stoop", "stop", 1), ("step", "stop", 1),
     ("store", "stop", 2), ("", "stop", 4)],
)  # fmt: skip
def test_slips_are_letters_added_left_out_changed_or_swapped(one: str, other: str, num: int) -> None:
    assert slips(one, other) == num


def test_each_name_is_told_once_and_ever_new_ones_fill_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    found = NearMisses(KNOWN)
    with caplog.at_level(logging.WARNING):
        assert found.of(("max_tokns", "min_p")) == ["max_tokns"]
        assert found.of(("max_tokns",)) == ["max_tokns"]
        assert found.of(f"field_{number}" for number in range(2 * MAX_REMEMBERED)) == []

    assert [record.getMessage() for record in caplog.records] == [
        "a request's field 'max_tokns' is not known and was ignored: was 'max_tokens' meant?"
    ]
    assert len(found._found) <= MAX_REMEMBERED


def test_the_slip_of_a_client_that_goes_on_is_told_once_whatever_others_send(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = NearMisses(KNOWN)
    with caplog.at_level(logging.WARNING):
        for number in range(10):
            found.of(f"field_{number}_{other}" for other in range(100))
            assert found.of(("max_tokns",)) == ["max_tokns"]

    assert len(caplog.records) == 1
    assert "max_tokns" in found._found


def test_ever_new_slips_are_told_in_the_log_as_far_as_a_person_reads_and_to_their_client_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = NearMisses(KNOWN)
    letters = "abcdfghijklmnopqrstuvwxyz"
    names = [f"tem{one}erat{other}re" for one in letters for other in letters]
    with caplog.at_level(logging.WARNING):
        for name in names:
            assert found.of((name,)) == [name]

    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 65
    assert all("was 'temperature' meant?" in line for line in said[:64])
    assert said[64] == f"more such fields are told of in the reply's header {HEADER} alone"


def test_a_name_as_long_as_a_body_is_not_remembered() -> None:
    found = NearMisses(KNOWN)
    assert found.of(["m" * 1_000_000, "max_tokns"]) == ["max_tokns"]
    assert list(found._found) == ["max_tokns"]


def test_of_many_slips_the_first_eight_are_told(caplog: pytest.LogCaptureFixture) -> None:
    names = [f"temperatur{letter}" for letter in "abcdfghijklmnop"]
    with caplog.at_level(logging.WARNING):
        assert NearMisses(KNOWN).of(names) == names[:8]
    assert len(caplog.records) == 8


@pytest.mark.timeout(30)
def test_a_body_of_ever_so_many_unknown_fields_is_looked_at_as_far_as_a_person_may_have_written_it() -> None:
    names = [
        f"{number:07d}".translate(str.maketrans("0123456789", "abcdefghij")) for number in range(100_000)
    ]
    fields = {f"response_{name}": 0 for name in names}
    body = read_body(json.dumps(ASKED | {"max_tokns": 5} | fields).encode())

    assert body.ignored == ("max_tokns", *list(fields)[:31])
    assert NearMisses(KNOWN).of(body.ignored) == ["max_tokns"]


def test_names_of_other_lengths_than_a_slip_has_are_compared_with_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[tuple[str, str]] = []

    def counted(one: str, other: str) -> int:
        compared.append((one, other))
        return slips(one, other)

    monkeypatch.setattr("server.wire.near_miss.slips", counted)
    found = NearMisses(KNOWN)
    assert found.of(f"{number:040d}".replace("0", "a") for number in range(300)) == []
    assert found.of(["max_completion_tokns"]) == ["max_completion_tokns"]
    assert compared == [("max_completion_tokns", "max_completion_tokens")]


def test_what_an_ignored_field_holds_is_let_go_once_the_body_is_read() -> None:
    body = read_body(
        json.dumps(ASKED | {"extra_body": {"text": "x" * 1000}, "n": 2, "_ignored": 1, "ignored": 2}).encode()
    )

    assert (body.ignored, body.n) == (("extra_body", "_ignored", "ignored"), 2)
    assert (body.model_extra, "xxx" in repr(body)) == ({}, False)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_names_the_fields_that_were_probably_meant_otherwise(
    tmp_path: Path, stream: bool
) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        slip = await house.ask("Hi", max_tokns=5, temprature=0, min_p=0.1, stream=stream)
        plain = await house.ask("Hi", min_p=0.1, models=["x"], stream=stream)

    assert (slip.status_code, slip.headers["X-Agentrl-Ignored"]) == (200, "max_tokns,temprature")
    assert plain.status_code == 200
    assert "X-Agentrl-Ignored" not in plain.headers
