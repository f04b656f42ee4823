"""Secrets are found where they stand, replaced in equal length, and found again in ids."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.errors import ConfigError
from agentrl.text.redaction import Found, Redactor, hidden_ids, redact_messages, redact_text
from agentrl.text.renderer import ChatRenderer

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/=\nAbc9\n-----END RSA PRIVATE KEY-----"

SECRETS = [
    ("export OPENAI_API_KEY={}", "sk-proj-abcdEFGH1234567890abcd", "openai_key"),
    ("İİİ {}", "sk-proj-abcdEFGH1234567890abcd", "openai_key"),
    ("use {} here", "sk-ant-api03-abcdefghij0123456789", "openai_key"),
    ("curl -H 'Authorization: Bearer {}'", "abcdefghijklmnop", "authorization"),
    ("Authorization: Basic {}", "dXNlcjpwYXNz", "authorization"),
    ("x-token: bearer {}", "a1b2c3d4e5", "bearer"),
    ("git clone https://user:{}@example.org/x.git", "hunter22", "url_password"),
    ("postgres://app:{}@db:5432/x", "s3cr3t", "url_password"),
    ("token {}", "ghp_" + "aB3" * 12, "github_token"),
    ("token {}", "glpat-abcdefghij0123456789", "gitlab_token"),
    ("id {} end", "AKIAIOSFODNN7EXAMPLE", "aws_key_id"),
    ("key={}", "AIza" + "aB3-_" * 7, "google_key"),
    ("{}", "xoxb-123456789012-abcdef", "slack_token"),
    ("{}", "sk_live_" + "abc123" * 4, "stripe_key"),
    ("login --token {}", "hf_" + "aBcDe" * 6, "huggingface_token"),
    ("{}", "npm_" + "a1" * 18, "package_token"),
    ("cookie {}", "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSMeKKF2Q", "jwt"),
    ("DB_PASSWORD={} ./run", "abc12345xyz", "assignment"),
    ('password: "{}"', "correct horse battery", "assignment"),
    ('{{"api_key": "{}"}}', r"ab\"cdef", "assignment"),
    (r"{{\"secret\": \"{}\"}}", "AbCdefgh", "assignment"),
    ("before {} after", PEM, "private_key"),
    ("before {}", json.dumps(PEM)[1:-1], "private_key"),
    ("cut off: {}", PEM[:50], "private_key"),
]


@pytest.mark.parametrize(("around", "secret", "rule"), SECRETS)
def test_a_secret_is_replaced_by_a_run_of_equal_length(around: str, secret: str, rule: str) -> None:
    text = around.format(secret)
    redacted, spans = redact_text(text)
    assert redacted == around.format("*" * len(secret))
    (span,) = spans
    assert (text[span.start : span.end], span.rule) == (secret, rule)


@pytest.mark.parametrize(
    "text",
    [
        "token = tokenizer.encode(text)",
        "api_key = os.environ['KEY']",
        "password: none",
        "the secretary said: hello",
        "basic understanding of things, bearer of news",
        "task-sk-1 and risk-adjusted",
        "see http://example.org:8080/a@b",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert redact_text(text) == (text, ())


def test_every_string_leaf_of_a_message_is_searched_and_the_rest_is_shared() -> None:
    key = "sk-abcdefghijklmnop0123"
    call = {
        "id": "c",
        "type": "function",
        "function": {"name": "bash", "arguments": json.dumps({"command": key})},
    }
    quiet = {"role": "user", "content": "hello"}
    messages = [
        quiet,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": f"it is {key}."}]},
    ]
    redacted, spans = redact_messages(messages)
    assert [span.path for span in spans] == [
        "messages.1.tool_calls.0.function.arguments",
        "messages.2.content.0.text",
    ]
    assert key not in json.dumps(redacted)
    assert json.loads(redacted[1]["tool_calls"][0]["function"]["arguments"]) == {"command": "*" * len(key)}
    assert redacted[0] is quiet
    assert messages[2]["content"][0]["text"] == f"it is {key}.", "the original is not touched"


def test_a_value_known_from_earlier_is_found_without_its_name() -> None:
    redactor = Redactor()
    known = redactor.secrets([{"role": "user", "content": "password=Tr0ub4dor&3"}])
    assert known == {"Tr0ub4dor&3"}
    assert redactor.text("echo Tr0ub4dor&3 | login", known=known)[0] == "echo *********** | login"
    assert redactor.text("echo Tr0ub4dor&3 | login")[1] == ()
    assert redactor.text("a b c", known={"b"}) == ("a b c", ()), "too short to be looked for alone"


def test_patterns_of_the_operator_count_and_bad_ones_are_refused_by_name() -> None:
    redactor = Redactor({"employee": r"EMP-(\d{6})"})
    assert redactor.text("ask EMP-123456")[0] == "ask EMP-******"
    with pytest.raises(ConfigError, match="broken"):
        Redactor({"broken": "("})
    with pytest.raises(ConfigError, match="empty text"):
        Redactor({"all": "x*"})


def test_overlapping_secrets_are_one_span() -> None:
    text = "api_key='sk-abcdefghijklmnop0123'"
    redacted, spans = redact_text(text)
    assert redacted == "api_key='" + "*" * 23 + "'"
    assert len(spans) == 1


@given(
    st.lists(
        st.sampled_from([secret for _, secret, _ in SECRETS] + ["İ", "é ", " word ", "\n", "日", "="]),
        max_size=8,
    )
)
@settings(max_examples=200, deadline=None)
def test_redaction_keeps_the_length_and_leaves_nothing_to_find(parts: list[str]) -> None:
    text = " ".join(parts)
    redacted, spans = redact_text(text)
    assert len(redacted) == len(text)
    kept = list(text)
    for span in spans:
        kept[span.start : span.end] = "*" * (span.end - span.start)
    assert "".join(kept) == redacted
    assert redact_text(redacted)[0] == redacted


def test_the_ids_that_hold_a_secret_are_found(qwen3: ChatRenderer) -> None:
    text = "日本 key sk-abcdefghijklmnop0123 🙂 end"
    ids = qwen3.encode_plain(text)
    found = Redactor().find(qwen3.decode(ids))
    hidden = hidden_ids(qwen3.offsets(ids), found)
    rest = qwen3.decode([token_id for token_id, secret in zip(ids, hidden, strict=True) if not secret])
    assert rest == "日本 key 🙂 end" or rest == "日本 key  🙂 end"
    assert len(hidden) == len(ids)


def test_ids_at_the_edge_of_a_secret_count_and_neighbours_do_not() -> None:
    offsets = [(0, 2), (2, 4), (4, 4), (4, 6), (6, 8), (8, 9)]
    assert hidden_ids(offsets, [Found(start=3, end=6, rule="x"), Found(start=8, end=9, rule="x")]) == [
        False,
        True,
        True,
        True,
        False,
        True,
    ]


@pytest.mark.timeout(120)
def test_a_long_run_of_one_letter_takes_linear_time() -> None:
    for text in (
        "sk-" * 60_000,
        "password=" * 20_000,
        "://" + "a" * 200_000,
        "-----BEGIN " * 20_000,
        "eyJ" + "a" * 200_000,
    ):
        redact_text(text)
