"""What the trained classifier says of a user's next words. How well it reads authors it never saw: `bench.wording`."""

import asyncio
import hashlib
import json
import math
import random
from pathlib import Path

import pytest
from judge_turns import followed, make_turn, user

from agentrl.nano import habits
from agentrl.signals import reactions
from agentrl.signals.hints import wish
from agentrl.signals.judge import Judgement
from agentrl.signals.reaction_features import MAX_TEXT_CHARS, features
from agentrl.signals.reactions import (
    LIKELY_APPROVAL,
    LIKELY_CORRECTION,
    PLAIN_CORRECTION,
    SURE_APPROVAL,
    SURE_CORRECTION,
    Reaction,
    Reading,
    classifier,
    read,
)
from agentrl.signals.rules import RuleJudge
from agentrl.signals.wording import signs
from agentrl.types import JSON
from bench.linear import fit
from bench.wording import counts, digest, everything

ASKED, REPLY = "Sort the users by age, oldest first.", "Done: the users are sorted by age, youngest first."


def judged(text: str, *, reply: str = REPLY, before: tuple[JSON, ...] = (user(ASKED),)) -> Judgement:
    turn = make_turn(reply, messages=before)
    return asyncio.run(RuleJudge().judge(turn, followed(user(text))))


def test_the_committed_weights_were_trained_on_the_committed_rows() -> None:
    trained = classifier()
    arrays = (trained.weights, trained.scale, trained.bias)
    content = hashlib.sha256(b"".join(each.tobytes() for each in arrays)).hexdigest()

    assert trained.trained_on == digest(everything()), "run `python -m bench.wording --train`"
    assert content == "46eb47b2c1c72801e42005165d62b2de9d586aad0fd7754e8f30a6f0db49c57d"


def test_corrections_are_a_fifth_of_the_mass_of_the_training() -> None:
    rows = everything()
    shares = counts(rows)
    corrections = sum(share for row, share in zip(rows, shares, strict=True) if row.label == "correction")

    assert math.isclose(corrections / sum(shares), 0.2, abs_tol=1e-9)


def test_a_damaged_file_of_weights_shows_where_the_judge_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "reactions.npz"
    damaged.write_bytes(reactions.WEIGHTS.read_bytes()[:1000])
    monkeypatch.setattr(reactions, "WEIGHTS", damaged)
    classifier.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"reactions\.npz holds no weights"):
            RuleJudge()
    finally:
        classifier.cache_clear()


def test_its_labels_are_the_reactions_and_its_probabilities_sum_to_one() -> None:
    likely = classifier().probabilities(features("No.", reply=REPLY, asked=ASKED, signs=[]))

    assert list(likely) == [str(each) for each in Reaction]
    assert math.isclose(sum(likely.values()), 1.0, abs_tol=1e-5)


def test_the_same_rows_train_the_same_weights_and_another_row_others() -> None:
    def trained(count: int) -> bytes:
        rows = everything()[:count]
        names = sorted({row.label for row in rows})
        groups = [features(row.next, reply=row.reply, asked=row.asked, signs=[]) for row in rows]
        labels = [row.label for row in rows]
        return fit(groups, labels, names, num_buckets=1 << 10, penalty=0.5).to_bytes()

    assert trained(40) == trained(40)
    assert trained(40) != trained(41)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("piece", ["no ", "a", "you, ", "1.", "the-", "wrong. ", "\n", "?", "e\u0301"])
def test_a_long_message_has_as_many_features_as_a_bounded_part_of_it(piece: str) -> None:
    def size(text: str) -> int:
        found = signs(text, reply=text, asked=text)
        return sum(len(names) for _, names in features(text, reply=text, asked=text, signs=found))

    part = piece * (2 * MAX_TEXT_CHARS // len(piece))

    assert size(part * 100) == size(part) < 10_000
    assert read(part * 100, reply=part * 100, asked=part * 100).correction <= 1.0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mark", ["=", "-", "_", "?!", "- ", "('"])
def test_four_hundred_lines_of_nothing_but_marks_are_read_before_the_timeout(mark: str) -> None:
    for number in range(400):
        text = f"{number} {mark * 1000}"
        assert not read(text, reply=text, asked=mark * 1000).approves


@pytest.mark.parametrize(
    ("correction", "approval", "found", "corrects", "approves"),
    [
        (SURE_CORRECTION, 0.0, [], True, False),
        (SURE_CORRECTION - 0.001, 0.0, [], False, False),
        (LIKELY_CORRECTION, 0.0, ["corrects"], True, False),
        (LIKELY_CORRECTION - 0.001, 0.0, ["corrects"], False, False),
        (1.0, 0.0, ["waits"], False, False),
        (PLAIN_CORRECTION, 0.0, ["plain", "waits"], True, False),
        (0.0, SURE_APPROVAL, [], False, True),
        (0.0, 1.0, ["asks"], False, False),
        (0.14, LIKELY_APPROVAL, ["full", "asks"], False, True),
        (0.16, LIKELY_APPROVAL, ["full"], False, False),
        (0.0, 1.0, ["full", "spoils"], False, False),
    ],
)
def test_what_the_tables_find_lowers_or_raises_what_the_classifier_must_be_sure_of(
    correction: float, approval: float, found: list[str], corrects: bool, approves: bool
) -> None:
    reading = Reading(correction=correction, approval=approval, found=frozenset(found))

    assert (reading.corrects, reading.approves) == (corrects, approves)


@pytest.mark.parametrize(
    "text",
    [
        "No, the oldest should be first.",
        "You forgot that I wanted the oldest first.",
        "That's the wrong order.",
        "half of them are missing",
        "oldest, not youngest",
        "no.",
    ],
)
def test_a_correction_is_punished_and_the_evidence_says_how_sure_the_classifier_was(text: str) -> None:
    judgement = judged(text)
    likely = read(text, reply=REPLY, asked=ASKED).correction

    assert judgement.reward == -1.0
    assert likely >= LIKELY_CORRECTION
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


def ran(name: str, command: str, output: str) -> tuple[JSON, JSON]:
    """A call and its output, as a history holds them."""
    function = {"name": "bash", "arguments": json.dumps({"command": command})}
    call = {"id": name, "type": "function", "function": function}
    return (
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": name, "content": output},
    )


def history(*steps: tuple[str, str]) -> tuple[JSON, ...]:
    calls = (ran(f"c{number}", *step) for number, step in enumerate(steps))
    return (user("Repair the sums."), *(message for call in calls for message in call))


FAILED = ("pytest -q", "1 failed, 2 passed\n[exit code 1]")
MENDED = ("sed -i s/1/2/ src/sums.py", "")
PASSED = ("pytest -q", "3 passed\n[exit code 0]")


@pytest.mark.parametrize(
    "steps",
    [
        (FAILED, MENDED, PASSED),
        (("mkdir build || true", ""), FAILED, MENDED, PASSED),
        (("echo hello", "hello"), FAILED, MENDED, PASSED),
        (FAILED, MENDED, ("echo $PATH", "/usr/bin"), PASSED),
        (FAILED, ("docker rm -f db || true", "db"), MENDED, PASSED),
        (FAILED, MENDED, ("set +e; python -m compileall src", ""), PASSED),
        (FAILED, MENDED, ("pytest -k 'not slow'", "2 passed"), PASSED),
    ],
)
def test_praise_of_honest_work_is_a_reward_though_a_command_on_the_way_looks_like_a_trick(
    steps: tuple[tuple[str, str], ...],
) -> None:
    assert judged("works like a charm", before=history(*steps)).reward == 1.0


@pytest.mark.parametrize(
    "steps",
    [
        (FAILED, ("rm tests/test_sums.py", "")),
        (FAILED, ("rm tests/test_sums.py", ""), PASSED),
        (FAILED, ("echo 'exit 0' > bin/pytest", ""), PASSED),
        (FAILED, ("echo 'addopts = --deselect tests/a.py' > pytest.ini", ""), PASSED),
        (FAILED, MENDED, ("pytest -k 'not slow'", "2 passed")),
        (FAILED, ("pytest -q || true", "1 failed, 2 passed")),
        (FAILED, PASSED, ("echo 3 passed", "3 passed")),
        (FAILED, ("echo 3 passed", "3 passed"), ("pytest src", "3 passed")),
    ],
)
def test_praise_of_what_got_round_a_check_is_no_reward(steps: tuple[tuple[str, str], ...]) -> None:
    assert judged("works like a charm", before=history(*steps)).reward == 0.0


def test_praise_of_a_later_task_is_a_reward_though_an_earlier_one_got_round_a_check() -> None:
    gamed = history(FAILED, ("echo 3 passed", "3 passed"), PASSED, ("rm tests/test_sums.py", ""))
    later = (*gamed, {"role": "assistant", "content": "Done."}, user("Write a haiku about rain."))

    judgement = judged("exactly what I wanted, thanks!", reply="Rain on a tin roof.", before=later)

    assert judgement.reward == 1.0


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
