"""The simulated user of the personal-assistant environment, and how a conversation goes."""

import random

import pytest

from agentrl.errors import ConfigError
from agentrl.nano import habits
from agentrl.nano.habits import Measure, Topic
from agentrl.types import Reply
from envs.loading import load_environment
from envs.personal import THINGS, Personal, User, style_of

LAMP = Topic(
    thing="lamp",
    measures=(
        Measure(name="weight", metric="3 kg", imperial="7 lb"),
        Measure(name="height", metric="2 m", imperial="7 ft"),
    ),
)
PICKY = User(preferences={"form": "list", "units": "imperial"}, wordings=("Please use {x} and not {y}.",))


def content(result: object) -> str:
    [message] = result.messages  # type: ignore[attr-defined]
    assert message["role"] == "user"
    return str(message["content"])


def test_a_seed_draws_one_to_four_preferences_and_always_the_same() -> None:
    users = [User.draw(seed) for seed in range(200)]

    assert {len(user.preferences) for user in users} == {1, 2, 3, 4}
    assert users == [User.draw(seed) for seed in range(200)]
    assert all(value in habits.AXES[axis] for user in users for axis, value in user.preferences.items())
    assert [len(User.draw(seed, preferences=3).preferences) for seed in range(5)] == [3] * 5
    assert set(User.draw(0).wordings).isdisjoint(User.draw(0, wordings="withheld").wordings)
    with pytest.raises(ConfigError, match="a user has 1 to 4"):
        User.draw(0, preferences=5)
    with pytest.raises(ConfigError, match="use known or withheld"):
        User.draw(0, wordings="strange")  # type: ignore[arg-type]


def test_training_and_held_out_tasks_are_about_different_things() -> None:
    env = Personal(seed=4)
    seen = {
        split: {topic.thing for index in range(300) for topic in env.task(split, index).data}
        for split in ("train", "held_out")
    }

    assert {split: len(things) for split, things in seen.items()} == {"train": 20, "held_out": 20}
    assert seen["train"].isdisjoint(seen["held_out"])
    assert seen["train"] == set(THINGS["train"])
    assert env.task("train", 7) == Personal(seed=4).task("train", 7) != env.task("train", 8)


def test_the_user_reads_the_style_of_every_note_and_says_nothing_of_what_is_none() -> None:
    note = "Certainly.\nThe lamp:\n- weight: 3 kg\n- height: 2 m\nCheers"
    assert style_of(note, LAMP) == {"form": "list", "tone": "formal", "units": "metric", "ending": "cheers"}
    note = "| weight | 3 kg (7 lb) |\n| height | 2 m (7 ft) |"
    assert style_of(note, LAMP) == {"form": "table", "tone": "dry", "units": "both", "ending": "none"}
    note = "The lamp has weight 13 kg and height 7 ft."
    assert style_of(note, LAMP) == {"form": "sentence", "tone": "dry", "units": None, "ending": "none"}
    assert style_of("You are welcome.", LAMP)["form"] is None
    assert style_of("", LAMP) == {"form": None, "tone": "dry", "units": None, "ending": "none"}


def test_a_length_in_metres_is_not_found_in_one_in_millimetres() -> None:
    topic = Topic(
        thing="door",
        measures=(
            Measure(name="height", metric="3 m", imperial="10 ft"),
            Measure(name="width", metric="103 mm", imperial="4 in"),
        ),
    )
    assert style_of("The door has height 10 ft and width 103 mm.", topic)["units"] is None
    assert style_of("The door has height 3 m and width 103 mm.", topic)["units"] == "metric"


async def test_one_unmet_preference_is_corrected_a_turn_then_thanks_then_the_end() -> None:
    env = Personal(user=PICKY)
    task = next(task for task in (env.task("train", i) for i in range(50)) if len(task.data) == 1)
    [topic] = task.data
    begin = await env.reset(task)
    assert [message["role"] for message in begin.messages] == ["system", "user"]
    assert topic.facts in begin.messages[1]["content"]

    style = {"form": "sentence", "tone": "dry", "units": "metric", "ending": "none"}
    said = []
    for _ in range(2):
        result = await env.step(Reply(text=habits.note(random.Random(0), topic, style)))
        said.append(content(result))
        axis = "form" if " list" in said[-1] else "units"
        style[axis] = PICKY.preferences[axis]
    assert sorted(" list" in text for text in said) == [False, True]
    assert all(text.startswith("Please use ") and " and not " in text for text in said)

    result = await env.step(Reply(text=habits.note(random.Random(0), topic, style)))
    assert content(result) in habits.THANKS
    assert (result.done, result.reward) == (False, None)
    result = await env.step(Reply(text="You are welcome."))
    assert (result.done, result.reward, result.messages) == (True, None, ())
    assert result.info["corrections"] == {"form": 1, "units": 1}
    assert (result.info["first"], result.info["first_try"]) == ({"form": False, "units": False}, False)
    assert result.info["satisfied"] is True


async def test_who_is_content_asks_for_further_notes_in_the_same_conversation() -> None:
    env = Personal(user=PICKY, rewarded=True)
    task = next(task for task in (env.task("train", i) for i in range(50)) if len(task.data) == 3)
    style = {"form": "list", "tone": "friendly", "units": "imperial", "ending": "cheers"}
    await env.reset(task)

    for number, topic in enumerate(task.data):
        result = await env.step(Reply(text=habits.note(random.Random(1), topic, style)))
        assert result.done is False
        if number < 2:
            assert task.data[number + 1].facts in content(result)
    result = await env.step(Reply(text="You are welcome."))
    assert (result.done, result.reward) == (True, 1.0)
    assert result.info["num_steps"] == 4


async def test_a_conversation_has_at_most_so_many_replies() -> None:
    for max_turns in (1, 8):
        env = Personal(user=PICKY, max_turns=max_turns)
        await env.reset(env.task("train", 0))
        for number in range(max_turns):
            result = await env.step(Reply(text="no note at all"))
            assert result.done is (number == max_turns - 1)
        assert sum(result.info["corrections"].values()) == max_turns - 1
    with pytest.raises(ConfigError, match="at least 1"):
        Personal(max_turns=0)


async def test_told_wishes_stand_in_the_system_message_alone() -> None:
    for told in (False, True):
        env = Personal(seed=9, preferences=4, wordings="withheld", told=told)
        begin = await env.reset(env.task("held_out", 0))
        system = str(begin.messages[0]["content"])
        assert system.startswith(habits.ASSISTANT_SYSTEM)
        assert system.count("Hint: ") == (4 if told else 0)
        assert "Hint" not in str(begin.messages[1]["content"])


def test_the_environment_has_a_name_of_its_own() -> None:
    assert load_environment("personal") is Personal
