"""What the trained classifier says of a user's next words. How well it reads authors it never saw: `bench.wording`."""

import asyncio
import math
import random

import pytest
from judge_turns import followed, make_turn, user

from agentrl.nano import habits
from agentrl.signals.hints import wish
from agentrl.signals.judge import Judgement
from agentrl.signals.reaction_features import MAX_TEXT_CHARS, features
from agentrl.signals.reactions import Reaction, classifier, read
from agentrl.signals.rules import RuleJudge
from agentrl.types import JSON
from bench.linear import fit
from bench.wording import digest, everything

ASKED, REPLY = "Sort the users by age, oldest first.", "Done: the users are sorted by age, youngest first."


def judged(text: str, *, reply: str = REPLY, before: tuple[JSON, ...] = (user(ASKED),)) -> Judgement:
    turn = make_turn(reply, messages=before)
    return asyncio.run(RuleJudge().judge(turn, followed(user(text))))


def test_the_committed_weights_were_trained_on_the_committed_rows() -> None:
    assert classifier().trained_on == digest(everything()), "run `python -m bench.wording --train`"


def test_its_labels_are_the_reactions_and_its_probabilities_sum_to_one() -> None:
    likely = classifier().probabilities(features("No.", reply=REPLY, asked=ASKED))

    assert list(likely) == [str(each) for each in Reaction]
    assert math.isclose(sum(likely.values()), 1.0, abs_tol=1e-5)


def test_the_same_rows_train_the_same_weights_and_another_row_others() -> None:
    def trained(count: int) -> bytes:
        rows = everything()[:count]
        names = sorted({row.label for row in rows})
        groups = [features(row.next, reply=row.reply, asked=row.asked) for row in rows]
        labels = [row.label for row in rows]
        return fit(groups, labels, names, num_buckets=1 << 10, penalty=0.5).to_bytes()

    assert trained(40) == trained(40)
    assert trained(40) != trained(41)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("piece", ["no ", "a", "you, ", "1.", "the-", "wrong. ", "\n", "?", "e\u0301"])
def test_a_long_message_has_as_many_features_as_a_bounded_part_of_it(piece: str) -> None:
    def size(text: str) -> int:
        return sum(len(names) for _, names in features(text, reply=text, asked=text))

    part = piece * (2 * MAX_TEXT_CHARS // len(piece))

    assert size(part * 100) == size(part) < 10_000
    assert read(part * 100, reply=part * 100, asked=part * 100).correction <= 1.0


@pytest.mark.parametrize(
    "text",
    [
        "It should start with the oldest.",
        "the youngest is on top",
        "still the wrong way round",
        "That's the wrong order.",
        "Where are the oldest?",
        "half of them are missing",
        "oldest, not youngest",
        "no.",
    ],
)
def test_a_correction_is_punished_and_the_evidence_says_how_sure_the_classifier_was(text: str) -> None:
    judgement = judged(text)
    likely = read(text, reply=REPLY, asked=ASKED).correction

    assert judgement.reward == -1.0
    assert likely >= 0.9
    assert judgement.evidence == f"the user's words: correction {likely:.2f}: {text}"


@pytest.mark.parametrize(
    "text",
    [
        "All tests are green now, thanks!",
        "runs fine, merged",
        "works like a charm",
        "Loads at once now, great.",
        "Works. Now the groups please.",
    ],
)
def test_an_approval_is_rewarded_also_before_a_next_task(text: str) -> None:
    judgement = judged(text)

    assert judgement.reward == 1.0
    assert judgement.evidence.startswith("the user's words: approval 0.9")


@pytest.mark.parametrize(
    "text",
    [
        "Now sort the groups.",
        "Who is the oldest?",
        "Don't sort the groups yet, print them.",
        "Stop the server.",
        "not urgent, but could you print them too?",
        "Which error codes does it raise?",
        "hm, the oldest is 97",
        "ok",
        "Thanks, I'll try it tomorrow.",
        "perfect, now sort the groups",
    ],
)
def test_tasks_talk_and_politeness_are_not_judged(text: str) -> None:
    assert judged(text).reward is None


@pytest.mark.parametrize("text", ["By age.", "no, by name", "The second one.", "neither, leave it as it is"])
def test_what_answers_the_question_of_the_answer_is_not_judged(text: str) -> None:
    assert judged(text, reply="Shall I sort them by age or by name?").reward is None


@pytest.mark.parametrize("text", ["no.", "wrong", "That's the wrong order."])
def test_a_correction_that_only_refuses_is_no_hint(text: str) -> None:
    assert judged(text).hint is None


def test_a_correction_that_asks_back_is_a_hint_where_it_says_what_should_have_been() -> None:
    assert wish("Wasn't that supposed to be in euros?") == "Wasn't that supposed to be in euros?"
    assert wish("Isn't that wrong?") is None
    assert wish("really?") is None


def test_praise_of_what_got_round_a_check_is_no_reward() -> None:
    def ran(name: str, command: str, output: str) -> tuple[JSON, JSON]:
        function = {"name": "bash", "arguments": f'{{"command": "{command}"}}'}
        call = {"id": name, "type": "function", "function": function}
        return (
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": name, "content": output},
        )

    failed = (user("Repair the sums."), *ran("c1", "pytest -q", "1 failed\n[exit code 1]"))
    honest = (*failed, *ran("c2", "sed -i s/1/2/ src/sums.py", ""))
    gamed = (*failed, *ran("c2", "rm tests/test_sums.py", ""))

    assert judged("works like a charm", before=honest).reward == 1.0
    assert judged("works like a charm", before=gamed).reward == 0.0


def test_the_approval_of_who_approved_of_everything_in_whatever_words_says_nothing() -> None:
    said = (user("Sort them."), user("runs fine, merged"), user("works like a charm"))

    assert judged("All tests are green now, thanks!", before=said[:2]).reward == 1.0
    assert judged("All tests are green now, thanks!", before=said).reward == 0.0
    assert judged("All tests are green now, thanks!", before=(*said, user("Count them."))).reward == 1.0


@pytest.mark.parametrize("wording", [*habits.WISHES, *habits.THANKS, *habits.REQUESTS])
def test_what_the_users_of_the_personal_world_say_is_read_as_they_mean_it(wording: str) -> None:
    rng = random.Random(wording)
    given: list[float | None] = []
    for _ in range(20):
        topic, axis = habits.topic(rng), rng.choice(list(habits.AXES))
        wanted, written = rng.sample(habits.AXES[axis], 2)
        note = habits.note(rng, topic, habits.any_style(rng) | {axis: written})
        if wording in habits.REQUESTS:
            said = wording.format(thing="lamp", facts="weight 3 kg or 7 lb, height 2 m or 7 ft")
        else:
            said = habits.wish(rng, wording, wanted, written) if "{x}" in wording else wording
        given.append(judged(said, reply=note, before=(user(topic.request(rng)),)).reward)

    if wording in habits.REQUESTS:
        assert given == [None] * 20
    elif wording in habits.THANKS:
        assert given == [1.0] * 20
    else:
        assert set(given) <= {-1.0, None}
        assert given.count(-1.0) >= 14
