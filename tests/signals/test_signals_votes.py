"""From answers to a judgement: what a vote may say, and what all of them say together."""

import json

import pytest

from agentrl.errors import JudgeError
from agentrl.signals.judge_prompt import FAULTS, KINDS
from agentrl.signals.votes import Vote, aggregated, is_quote, read_json, read_vote

SEEN = ("Perfect, the  dates are right\nnow.",)


def answer(**changes: object) -> str:
    said = {"evidence": "", "kind": "correction", "fault": "agent", "reward": -1, "hint": None}
    return json.dumps(said | changes)


def vote(reward: int | None, **changes: object) -> Vote:
    said = {"kind": "error", "fault": "agent", "reward": reward, "evidence": "", "hint": None}
    return Vote(**(said | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "fault", "reward", "evidence", "meant"),
    [
        ("correction", "agent", -1, "", -1),
        ("error", "agent", -1, "", -1),
        ("gamed", "agent", -1, "", -1),
        ("gamed", "agent", 0, "", 0),
        ("gamed", "agent", 1, "the dates are right", None),
        ("regenerated", "none", -1, "", -1),
        # A success is believed with words that show it, and only with them.
        ("praise", "none", 1, "the dates are right", 1),
        ("praise", "none", 1, "THE DATES ARE RIGHT now", 1),
        ("praise", "none", 1, "", None),
        ("praise", "none", 1, "all tests pass", None),
        ("progress", "none", 1, "Perfect", 1),
        ("progress", "none", 1, "exit code 0", None),
        # The mere absence of an error is nothing.
        ("no_error", "none", 1, "Perfect", None),
        ("no_error", "none", 0, "", None),
        ("none", "none", -1, "", None),
        # What the machine did is nobody's lesson.
        ("infrastructure", "none", -1, "", None),
        ("error", "infrastructure", -1, "Perfect", None),
        ("error", "infrastructure", 1, "Perfect", None),
        # A new task says nothing of the turn before it, unless its words do.
        ("new_task", "none", -1, "", None),
        ("new_task", "none", 0, "", None),
        ("new_task", "none", 1, "", None),
        ("new_task", "none", 1, "Perfect", 1),
        ("new_task", "agent", -1, "the dates are right", -1),
        # Kind and reward that say the opposite cancel out.
        ("praise", "none", -1, "Perfect", None),
        ("correction", "agent", 1, "Perfect", None),
        ("error", "none", 1, "Perfect", None),
        ("error", "agent", None, "", None),
    ],
)
def test_a_vote_has_the_reward_that_its_own_words_bear(
    kind: str, fault: str, reward: int | None, evidence: str, meant: int | None
) -> None:
    read = read_vote(answer(kind=kind, fault=fault, reward=reward, evidence=evidence), SEEN)

    assert read.reward == meant
    assert read.contradicts == (meant != reward)


def test_every_kind_and_fault_of_the_schema_can_be_read() -> None:
    for kind in KINDS:
        for fault in FAULTS:
            assert read_vote(answer(kind=kind, fault=fault, reward=None), SEEN).kind == kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The turn was fine.",
        "[1]",
        "-1",
        '{"reward": -1}',
        answer(reward=2),
        answer(reward=0.5),
        answer(reward=True),
        answer(reward="good"),
        answer(kind="splendid"),
        answer(fault="the weather"),
        answer(hint=3),
        answer()[:-3],
        "[" * 100_000,
    ],
)
def test_an_answer_that_is_no_verdict_is_an_error_and_not_a_zero(text: str) -> None:
    with pytest.raises(JudgeError):
        read_vote(text, SEEN)


@pytest.mark.parametrize("reward", [-1, -1.0, "-1", " -1 "])
def test_a_reward_may_be_written_as_models_write_numbers(reward: object) -> None:
    assert read_vote(answer(reward=reward), SEEN).reward == -1


@pytest.mark.parametrize(
    "text", ['{"a": 1}', '```json\n{"a": 1}\n```', '<think>\n{"a": 2}\n</think>\n{"a": 1}', '  {"a": 1}\n']
)
def test_json_is_read_behind_thoughts_and_in_a_fence(text: str) -> None:
    assert read_json(text) == {"a": 1}


def test_a_hint_is_kept_where_something_was_wrong_and_it_is_short() -> None:
    def hint(**changes: object) -> str | None:
        said = {"hint": "Use \n ls.", "evidence": "the dates are right"}
        return read_vote(answer(**(said | changes)), SEEN).hint

    assert hint() == "Use ls."
    assert hint(kind="error", reward=0) == "Use ls."
    assert hint(kind="praise", reward=1, evidence="Perfect") is None
    assert hint(fault="infrastructure") is None
    assert hint(reward=None) is None
    assert hint(hint="x" * 241) is None
    assert hint(hint="  ") is None


@pytest.mark.parametrize(
    ("kind", "evidence", "is_kept"),
    [
        ("correction", "the dates are right", True),
        ("correction", "the dates are left", False),
        ("correction", "", False),
        ("error", "the dates are left", False),
        ("gamed", "", False),
        # Of another answer nobody says a word.
        ("regenerated", "", True),
        ("edited", "", True),
    ],
)
def test_a_hint_rests_on_words_that_followed(kind: str, evidence: str, is_kept: bool) -> None:
    read = read_vote(answer(kind=kind, evidence=evidence, hint="Use ls."), SEEN)

    assert read.hint == ("Use ls." if is_kept else None)
    assert read.unfounded == (not is_kept)
    # What was wrong stays wrong: the kind alone says so.
    assert read.reward == -1


@pytest.mark.parametrize("quote", ["", ".", "…", "dates are wrong", "right now and then"])
def test_what_does_not_stand_in_the_next_state_is_no_quote(quote: str) -> None:
    assert not is_quote(quote, SEEN)


def test_a_quote_is_found_in_what_the_model_was_shown_of_a_control_token() -> None:
    assert is_quote("< |im_end|> fine", ("done <|im_end|> fine",))


def test_votes_that_agree_give_the_reward_of_most_and_are_recorded() -> None:
    votes = [vote(-1, hint="Use ls."), vote(-1, hint="Use ls.", evidence="no such"), vote(1, kind="progress")]

    found = aggregated(votes, num_lost=1, min_agreement=0.6)

    assert found.reward == -1.0
    assert found.votes == (-1.0, -1.0, 1.0)
    assert found.agreement == pytest.approx(2 / 3)
    assert found.hint == "Use ls."
    assert found.evidence == 'error; fault: agent; 2 of 3 votes agree, 1 unreadable: "no such"'


@pytest.mark.parametrize(
    ("rewards", "threshold", "reward"),
    [
        ((-1,), 1.0, -1.0),
        ((-1, -1, -1), 1.0, -1.0),
        ((-1, -1, 1), 0.7, None),  # two thirds agree
        ((-1, -1, 1), 0.66, -1.0),
        ((-1, 1), 0.0, None),  # a tie is no agreement
        ((-1, -1, 1, 1, None), 0.0, None),
        ((None, None, -1), 0.0, None),  # most abstain
        ((-1, -1, None), 0.6, -1.0),  # an abstention is no vote for 0
        ((-1, None), 0.0, None),
        ((0, 0, 1), 0.6, 0.0),  # the mean would reward what most call neutral
        ((1, 1, 0, None), 0.5, 1.0),
    ],
)
def test_a_judgement_needs_the_agreement_asked_for(
    rewards: tuple[int | None, ...], threshold: float, reward: float | None
) -> None:
    found = aggregated([vote(each) for each in rewards], num_lost=0, min_agreement=threshold)

    assert found.reward == reward
    assert found.votes == tuple(float(each) for each in rewards if each is not None)
    assert found.hint is None


def test_votes_that_disagree_say_so() -> None:
    found = aggregated([vote(-1), vote(1), vote(None)], num_lost=0, min_agreement=0.6)

    assert found.evidence == "the votes disagree: -1, +1, nothing"
    assert (found.reward, found.hint) == (None, None)


def test_of_several_hints_the_one_that_most_give_is_taken_and_then_the_shortest() -> None:
    def chosen(*hints: str) -> str | None:
        return aggregated([vote(-1, hint=hint) for hint in hints], num_lost=0, min_agreement=0).hint

    assert chosen("Use ls.", "Use the command ls.", "Use the command ls.") == "Use the command ls."
    assert chosen("Use the command ls.", "Use ls.") == "Use ls."


def test_the_hint_of_a_vote_that_lost_is_not_taken() -> None:
    votes = [vote(0, kind="correction"), vote(0, kind="correction"), vote(-1, hint="Use ls.")]

    assert aggregated(votes, num_lost=0, min_agreement=0.6).hint is None
