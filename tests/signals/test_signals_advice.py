"""What a comment or a rule says to do."""

import pytest

from agentrl.signals.advice import advice, why_none


@pytest.mark.parametrize(
    "rule",
    [
        "Never commit directly to main.",
        "**Never** commit directly to main.",
        "Tests must not sleep.",
        "Prefer pathlib over os.path.",
        "All public functions need a docstring.",
        "Don't push on Fridays.",
        "Don’t push on Fridays.",
        "Please do not squash.",
        "Migrations: never edit one.",
        "Force pushes are not allowed.",
        "Handlers may not block.",
        "Every module has to have a test.",
        "Tabs, not spaces.",
        "Errors are never swallowed.",
        "No tabs.",
        "No comments in generated code.",
        "Good names for all helpers.",
        "Thanks, but please use tabs.",
        "LGTM, never commit to main though.",
        "This should use `pathlib` instead.",
    ],
)
def test_bans_duties_and_preferences_are_advice(rule: str) -> None:
    assert advice(rule) == [rule]


@pytest.mark.parametrize(
    "text",
    [
        "Never mind.",
        "Don't know.",
        "I never said so.",
        "That is not what must happen.",
        "It should not do so.",
        "Is this not a bug?",
        "Wrong.",
        "LGTM",
        "Two spaces.",
        "It was never tested.",
        "The cache was never flushed.",
    ],
)
def test_what_refuses_asks_or_points_is_no_advice(text: str) -> None:
    assert advice(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "No idea why this works",
        "No worries mate",
        "LGTM, should be fine now.",
        "Looks good to me, thanks for the fix!",
        "Nice work everybody. Done.",
        "I think that it works",
        "That was a long day.",
    ],
)
def test_idle_talk_and_what_only_points_at_the_work_are_no_advice(text: str) -> None:
    assert advice(text) == []


def test_of_a_long_text_each_sentence_that_directs_is_one() -> None:
    story = "There was a time when everything was different. " * 7
    text = f"Never commit to main. {story}Tests must not sleep. And so it went."

    assert advice(text) == ["Never commit to main.", "Tests must not sleep."]
    assert advice(story) == []


def test_why_nothing_is_taught_says_how_it_could_be_written() -> None:
    assert why_none("No.") == "shorter than 8 characters"
    assert why_none("x" * 301) == "longer than 300 characters, and no sentence of it says what to do"
    assert why_none("Trailing space") == "does not say what to do ('Use ...', 'Never ...', '... must ...')"
