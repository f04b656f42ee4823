"""The operator's own redaction patterns: what is refused at the start, and by which name."""

import pytest

from agentrl.errors import ConfigError
from agentrl.text.own_patterns import own_redactor, refuse_slow


def test_patterns_are_rules_behind_the_built_in_ones() -> None:
    redactor = own_redactor([r"EMP-(\d{6})", r"\bproject-[a-z]{3,20}\b"])

    said, spans = redactor.text("EMP-123456 asked sk-abcdefghijklmnop1234 of project-xyz")

    assert said == "EMP-****** asked *********************** of ***********"
    assert [span.rule for span in spans] == ["redact_patterns[0]", "openai_key", "redact_patterns[1]"]


@pytest.mark.parametrize(
    ("pattern", "why"),
    [("(", "does not compile"), ("a{99999999999}", "does not compile"), ("x*", "empty text")],
)
def test_a_pattern_that_cannot_be_one_is_refused_by_its_place(pattern: str, why: str) -> None:
    with pytest.raises(ConfigError, match=rf"'redact_patterns\[1\]' .*{why}"):
        own_redactor(["fine", pattern])


def test_of_a_pattern_with_several_groups_all_are_kept_from_disk() -> None:
    redactor = own_redactor([r"EMP-(\d{6})(-[A-Z])?"])

    assert redactor.text("EMP-123456-A and EMP-654321")[0] == "EMP-******** and EMP-******"


@pytest.mark.timeout(120)
def test_a_text_full_of_secrets_takes_linear_time() -> None:
    """Copying the text for each secret would take minutes."""
    said, spans = own_redactor([r"\d{6}"]).text("1234567890" * 240_000)

    assert said == "*" * 2_400_000
    assert len(spans) == 400_000


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(\w+\s?)*:", r"(z|z)*!", r"\d+x", r"(?s)a.*b"])
def test_a_pattern_that_would_hold_up_replies_is_refused_with_the_remedy(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"redact_patterns\[1\].*bound its repeats"):
        refuse_slow(["EMP-[0-9]{6}", pattern])


def test_ordinary_patterns_pass() -> None:
    refuse_slow(
        [r"\bEMP-\d{1,9}\b", r"(?i:customer)[ _-]?id\W{1,3}([A-Z0-9]{4,20})", r"[\w.+-]{1,64}@corp\.example"]
    )
