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
    ],
)
@pytest.mark.parametrize("is_rule", [True, False])
def test_bans_duties_and_preferences_are_advice_in_any_comment(rule: str, is_rule: bool) -> None:
    assert advice(rule, is_rule=is_rule) == [rule]


@pytest.mark.parametrize("rule", ["Errors are never swallowed.", "No tabs."])
def test_what_only_denies_is_advice_as_an_item_of_a_list_alone(rule: str) -> None:
    assert advice(rule, is_rule=True) == [rule]
    assert advice(rule, is_rule=False) == []


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
    ],
)
@pytest.mark.parametrize("is_rule", [True, False])
def test_what_refuses_asks_or_points_is_no_advice(text: str, is_rule: bool) -> None:
    assert advice(text, is_rule=is_rule) == []


def test_of_a_long_text_each_sentence_that_directs_is_one() -> None:
    story = "There was a time when everything was different. " * 7
    text = f"Never commit to main. {story}Tests must not sleep. And so it went."

    assert advice(text, is_rule=False) == ["Never commit to main.", "Tests must not sleep."]
    assert advice(story, is_rule=False) == []


def test_why_nothing_is_taught_says_how_it_could_be_written() -> None:
    assert why_none("No.") == "shorter than 8 characters"
    assert why_none("x" * 301) == "longer than 300 characters, and no sentence of it says what to do"
    assert why_none("Trailing space") == "does not say what to do ('Use ...', 'Never ...', '... must ...')"
