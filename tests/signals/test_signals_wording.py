import pytest

from agentrl.signals.wording import approves, awaits, consents, corrects, signs

ASKED, REPLY = "Sort the users by age.", "I sorted them by their name, in Berlin."


@pytest.mark.parametrize(
    "text",
    [
        "No, use the age.",
        "You forgot the age.",
        "This still fails.",
        "By age!",
        "Age, not name.",
        "The name is wrong.",
        "Berlin? It was Bern.",
        "I said age.",
        "Shorter, please.",
        "Thanks, but it is upside down.",
        "Please undo that and don't touch anything else.",
        "You sorted them by name.",
        "We never sort by name here.",
        "It should be the age.",
        "why didn't you sort by age?",
        "Users are sorted by age in every report.",
    ],
)
def test_words_that_turn_the_answer_down_are_a_correction(text: str) -> None:
    assert corrects(text, reply=REPLY, asked=ASKED)
    assert not approves(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ok",
        "No problem.",
        "No, I'm good, thanks.",
        "Stop the server.",
        "Undo the last commit.",
        "You sorted them, now print them.",
        "We use Postgres. Write a migration.",
        "It should be ready on Friday, remind me.",
        "I said I'd call Bob. Draft a mail?",
        "The printer is broken. How do I mend it?",
        "That's not urgent.",
        "Please use the first user to test the login.",
        "Wrong numbers keep calling me, what can I do?",
        "My connection dropped, the answer got cut off.",
        "What is wrong with Berlin?",
    ],
)
def test_other_words_are_none_though_they_begin_alike(text: str) -> None:
    assert not corrects(text, reply=REPLY, asked=ASKED)


def test_what_answers_a_question_of_the_agent_is_no_correction_unless_it_finds_fault() -> None:
    for reply in ("By age or by name?", "Please tell me the order number."):
        assert not corrects("No, by name.", reply=reply)
        assert not corrects("The order number is 4711.", reply=reply)
        assert corrects("That's wrong.", reply=reply)


def test_praise_is_plain_or_full_and_politeness_before_a_task_is_none() -> None:
    assert all(map(approves, ("Thanks!", "That did the trick.", "Great work, merging now.", "It works now.")))
    assert not any(
        map(
            approves,
            ("Great, now sort it.", "Thanks. And the rest?", "It works only when I restart it.", "ok"),
        )
    )


def test_consent_is_short() -> None:
    assert consents("Yes, go ahead.")
    assert not consents("Please use the search tool to find flights to Rome.")


@pytest.mark.parametrize(
    ("text", "reply", "is_plain"),
    [
        ("That's wrong.", "I sorted them by name.", True),
        ("You forgot the age.", "Press it, then tell me what it shows.", True),
        ("It doesn't print.", "Press it, then tell me what it shows.", False),
        ("It doesn't print.", "The printer reports an error.", False),
        ("That's wrong, change it to 80.", "The port is 8080.", False),
        ("That is not what I want. Use the age.", "I sorted them by name.", True),
        ("Sorry, not that one, my mistake.", "I sorted them by name.", False),
        ("Undo that, please.", "I sorted them by name.", False),
    ],
)
def test_a_plain_correction_answers_nothing_takes_nothing_back_and_speaks_of_no_fault_of_the_world(
    text: str, reply: str, is_plain: bool
) -> None:
    assert ("plain" in signs(text, reply=reply, asked=ASKED)) == is_plain


@pytest.mark.parametrize(
    ("text", "is_spoilt"),
    [
        ("It works now.", False),
        ("Exactly what I wanted, thanks!", False),
        ("It works now, I restarted it.", True),
        ("I wish it worked.", True),
        ("My aunt loved it.", True),
        ("Great, then it froze.", True),
        ("Well done, you broke it.", True),
        ("works perfectly...", True),
    ],
)
def test_praise_by_others_of_ones_own_deed_or_in_bitterness_is_spoilt(text: str, is_spoilt: bool) -> None:
    assert ("spoils" in signs(text, reply=REPLY, asked=ASKED)) == is_spoilt


def test_a_reply_that_wants_to_be_told_something_asks_for_it() -> None:
    assert awaits("Restart it, then tell me what happens.")
    assert not awaits("I restarted it.")
