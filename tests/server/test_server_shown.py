"""Lessons in served prompts: who is shown which, what is recorded of it, and when a lesson leaves."""

from pathlib import Path

import pytest
from server_house import BASH, decode, eventually, serving
from shown_house import (
    ERROR,
    FAR,
    LESSON,
    SYSTEM,
    another,
    begin,
    corrected,
    history,
    imported,
    probed,
    session,
    showing,
    shown,
    stand,
    wished,
)

from agentrl.config import load_config
from agentrl.errors import ConfigError
from agentrl.signals.lessons import gather
from agentrl.store.account import Reason
from agentrl.store.learning_log import LearningLog
from agentrl.store.outcomes import outcomes
from agentrl.text.turns import without_spans
from agentrl.types import Arm, LessonState
from server.progress import without_help
from server.run_folder import drawn, read_secret
from server.shown import may_show


async def test_the_next_conversation_after_a_correction_has_the_lesson_in_its_prompt(tmp_path: Path) -> None:
    async with showing(tmp_path) as house:
        lesson = await corrected(house, tmp_path, session(tmp_path, "first"))
        await stand(house, 1)
        client = house.client(f"/s/{session(tmp_path, 'next')}/v1")
        raw = await client.chat.completions.with_raw_response.create(
            model="nano",
            messages=[SYSTEM, {"role": "user", "content": "Show the file b.txt"}],  # type: ignore[list-item]
            tools=[BASH],  # type: ignore[list-item]
            extra_headers={"X-Task-Key": "t"},
        )

        assert raw.headers["X-Agentrl-Lessons"] == lesson
        turn = await house.turn(raw.headers["X-Turn-Id"])
        assert turn.shown_lessons == (lesson,)
        [(start, end)] = turn.block_spans
        assert decode(turn.prompt_ids[start:end]) == LESSON
        assert house.engine.requests[-1].prompt_ids == turn.prompt_ids
        told = await house.runtime.log.explain(turn.id)
        assert told["turn"]["shown_lessons"] == [lesson]
        assert house.runtime.metrics.total("lesson_turns_total") == 1
        report = (await house.http.get("/v1/status")).json()["shown"]
        assert report == {"share": 0.5, "num_lessons": 1, "num_turns_since_start": 1}


async def test_a_learner_in_a_long_step_does_not_keep_a_lesson_from_the_next_conversation(
    tmp_path: Path,
) -> None:
    async with showing(tmp_path) as house:
        await stand(house, 0)
        turn_id = await wished(house, session(tmp_path, "first", shows=False))
        await stand(house, 1)
        early = await house.ask(FAR, path=f"/s/{session(tmp_path, 'next')}", headers={"X-Task-Key": "t"})
        with LearningLog(tmp_path) as log:
            assert log.lessons() == []
            gather(log, "default", "auto")
            [lesson] = log.lessons()
        assert lesson.turn_ids == (turn_id,)
        assert shown(early) == lesson.id, "its name is the one that the learner gives it"

        probed(tmp_path, lesson.id)
        await stand(house, 0)


async def test_in_review_nothing_is_shown_before_it_is_approved(tmp_path: Path) -> None:
    async with showing(tmp_path, learn__approve="review") as house:
        headers = {"X-Task-Key": "t"}
        await wished(house, session(tmp_path, "first", shows=False))
        another(tmp_path)
        await stand(house, 1)
        early = await house.ask(FAR, path=f"/s/{session(tmp_path, 'next')}", headers=headers)
        with LearningLog(tmp_path) as log:
            gather(log, "default", "review")
            log.decide([lesson.id for lesson in log.lessons()], LessonState.APPROVED)
        await stand(house, 2)
        later = await house.ask(FAR, path=f"/s/{session(tmp_path, 'later')}", headers=headers)

        assert shown(early) is None
        assert shown(later) is not None


async def test_without_being_asked_for_by_name_nothing_is_shown(tmp_path: Path) -> None:
    async with showing(tmp_path, learn__show_lessons=False) as house:
        await corrected(house, tmp_path, session(tmp_path, "first"))
        answer = await begin(house, session(tmp_path, "next"))

        assert shown(answer) is None
        assert (await house.turn(answer.headers["X-Turn-Id"])).block_spans == ()
        assert (await house.http.get("/v1/status")).json()["shown"] is None


@pytest.mark.parametrize("system", [True, False])
@pytest.mark.parametrize("tools", [True, False])
async def test_without_the_lesson_the_prompt_is_what_it_would_have_been(
    tmp_path: Path, tools: bool, system: bool
) -> None:
    async with showing(tmp_path) as house:
        await corrected(house, tmp_path, session(tmp_path, "first"))
        await stand(house, 1)
        said = [*([SYSTEM] if system else []), {"role": "user", "content": "Show the file b.txt"}]
        body = {"headers": {"X-Task-Key": "t"}} | ({"tools": [BASH]} if tools else {})
        name = session(tmp_path, "next")
        helped = await house.ask(*said, path=f"/s/{name}", **body)
        alone = await house.ask(*said, path=f"/s/{name}/eval", **body)

        turn = await house.turn(helped.headers["X-Turn-Id"])
        bare = (await house.turn(alone.headers["X-Turn-Id"])).prompt_ids
        assert turn.block_spans
        assert without_spans(turn.prompt_ids, turn.block_spans) == bare
        assert turn.prompt_ids != bare


async def test_a_lesson_comes_back_where_a_later_version_breaks_it(tmp_path: Path) -> None:
    async with showing(tmp_path) as house:
        lesson = await corrected(house, tmp_path, session(tmp_path, "first"))
        probed(tmp_path, lesson, passed=True)
        await stand(house, 0)
        probed(tmp_path, lesson, passed=False)
        await stand(house, 1)

        assert shown(await begin(house, session(tmp_path, "next"))) == lesson


@pytest.mark.parametrize("passed", [True, None])
async def test_a_wish_in_plain_words_leaves_once_the_weights_do_it_or_where_it_changes_nothing(
    tmp_path: Path, passed: bool | None
) -> None:
    async with showing(tmp_path) as house:
        await wished(house, session(tmp_path, "first"), "No, use metric units.")
        await stand(house, 1)
        with LearningLog(tmp_path) as log:
            gather(log, "default", "auto")
            [lesson] = log.lessons()
        probed(tmp_path, lesson.id, passed=False)
        await stand(house, 1)
        probed(tmp_path, lesson.id, passed=passed)
        await stand(house, 0)


@pytest.mark.parametrize("state", [LessonState.RETIRED, LessonState.REJECTED, LessonState.PROPOSED])
async def test_only_approved_lessons_are_shown(tmp_path: Path, state: LessonState) -> None:
    async with showing(tmp_path) as house:
        lesson = await corrected(house, tmp_path, session(tmp_path, "first"))
        await stand(house, 1)
        with LearningLog(tmp_path) as log:
            log.decide([lesson], state)
        await stand(house, 0)

        assert shown(await begin(house, session(tmp_path, "next"))) is None


async def test_lessons_never_cross_scopes(tmp_path: Path) -> None:
    keys = tuple({"key": f"key-of-{scope}", "scope": scope} for scope in ("ours", "theirs"))
    async with showing(tmp_path, server__api_keys=keys) as house:
        house.http.headers["Authorization"] = "Bearer key-of-ours"
        name = session(tmp_path, "first", scope="ours")
        lesson = await corrected(house, tmp_path, name, key="key-of-ours")
        await stand(house, 1)
        ours = await begin(house, session(tmp_path, "next", scope="ours"), key="key-of-ours")
        theirs = await begin(house, session(tmp_path, "next", scope="theirs"), key="key-of-theirs")

        assert (shown(ours), shown(theirs)) == (lesson, None)


async def test_neither_evaluations_nor_the_control_arm_nor_side_requests_are_shown_any(
    tmp_path: Path,
) -> None:
    async with showing(tmp_path, learn__control_share=0.5) as house:
        secret = read_secret(tmp_path)
        assert secret is not None
        learns = next(f"s{n}" for n in range(40, 99) if drawn(secret, "arm", "default", f"s{n}") >= 0.5)
        lesson = await corrected(house, tmp_path, learns)
        await stand(house, 1)
        arms: dict[Arm, set[str | None]] = {Arm.LEARNING: set(), Arm.CONTROL: set()}
        for number in range(40):
            name = f"s{number}"
            if may_show(secret, 0.5, "default", name, "t"):
                answer = await begin(house, name)
                arms[(await house.turn(answer.headers["X-Turn-Id"])).arm].add(shown(answer))
        name = session(tmp_path, "next")
        evaluation = await begin(house, name, prefix="/eval")
        headers = {"X-Task-Key": "t", "X-Turn-Type": "side"}
        side = await house.ask("Show the file a.txt", path=f"/s/{name}", headers=headers)

        assert arms == {Arm.LEARNING: {lesson}, Arm.CONTROL: {None}}
        assert (shown(evaluation), shown(side)) == (None, None)


async def test_who_was_not_drawn_or_names_a_version_goes_without(tmp_path: Path) -> None:
    async with showing(tmp_path) as house:
        await corrected(house, tmp_path, session(tmp_path, "first"))
        await stand(house, 1)
        undrawn = await begin(house, session(tmp_path, "next", shows=False))
        pinned = await begin(house, session(tmp_path, "next"), model="nano@0")

        assert (shown(undrawn), shown(pinned)) == (None, None)


@pytest.mark.parametrize("recipe", ["hint_opsd", "kepo"])
async def test_episodes_of_a_group_go_without_where_the_recipe_compares_them(
    tmp_path: Path, recipe: str
) -> None:
    async with showing(tmp_path, learn__recipe=recipe) as house:
        lesson = await corrected(house, tmp_path, session(tmp_path, "first"))
        await stand(house, 1)
        answer = await begin(house, session(tmp_path, "play~g1~"))

        assert shown(answer) == {"hint_opsd": lesson, "kepo": None}[recipe]


async def test_a_request_for_something_else_is_not_shown_the_lesson(tmp_path: Path) -> None:
    async with showing(tmp_path) as house:
        lesson = await corrected(house, tmp_path, session(tmp_path, "first"))
        await stand(house, 1)
        name = session(tmp_path, "next")
        like = await begin(house, name, said="show the file notes/of/today.md")
        other = await begin(house, session(tmp_path, "another"), said="Count the lines of a.txt")

        assert (shown(like), shown(other)) == (lesson, None)


async def test_what_was_said_after_another_wording_of_the_request_finds_the_lesson_too(
    tmp_path: Path,
) -> None:
    async with showing(tmp_path) as house:
        lesson = await corrected(house, tmp_path, session(tmp_path, "first"))
        name = session(tmp_path, "second", shows=False)
        first = await begin(house, name, said="What stands in a.txt?")
        said = history(first, f"{ERROR}\n[exit code 127]")
        said[1] = {"role": "user", "content": "What stands in a.txt?"}
        await house.ask(*said, path=f"/s/{name}", tools=[BASH], headers={"X-Task-Key": "t"})
        await eventually(lambda: house.runtime.log.signals(first.headers["X-Turn-Id"]))
        with LearningLog(tmp_path) as log:
            gather(log, "default", "auto")

        async def found() -> bool:
            answer = await begin(house, session(tmp_path, "next"), said="What stands in b.txt?")
            return shown(answer) == lesson

        await eventually(found)


@pytest.mark.parametrize("standing", [0, 4])
async def test_a_users_wish_is_shown_whatever_is_asked_where_wishes_stand(
    tmp_path: Path, standing: int
) -> None:
    context = {"name": "hindsight_hint", "position": "tail", "recall": 0.8, "standing": standing}
    async with showing(tmp_path, learn__overrides={"context": context}) as house:
        await wished(house, session(tmp_path, "first", shows=False))
        await stand(house, 1)
        options = {"path": f"/s/{session(tmp_path, 'next')}", "headers": {"X-Task-Key": "t"}}
        answer = await house.ask("Write a note to Anna.", **options)

        assert (shown(answer) is not None) is bool(standing)


async def test_of_lessons_that_contradict_each_other_the_newer_is_shown(tmp_path: Path) -> None:
    async with showing(tmp_path) as house:
        await corrected(house, tmp_path, session(tmp_path, "first", shows=False))
        error = "cat is not installed. Use view instead."
        newer = await corrected(house, tmp_path, session(tmp_path, "second", shows=False), error)
        await stand(house, 2)

        assert shown(await begin(house, session(tmp_path, "next"))) == newer


@pytest.mark.parametrize(
    ("most", "ids", "expected"),
    [(3, 256, "L1 L2 L3"), (2, 256, "L2 L3"), (3, 46, "L2 L3"), (3, 24, "L3"), (3, 16, "L1")],
)
async def test_no_more_lessons_are_shown_than_the_operator_allows_in_number_and_ids(
    tmp_path: Path, most: int, ids: int, expected: str
) -> None:
    async with showing(tmp_path, learn__max_shown=most, learn__max_shown_tokens=ids) as house:
        with LearningLog(tmp_path) as log:
            texts = ("use show", "files of guests are under guests", "long lines need the option --wrap")
            log.add_lessons([imported(f"L{n}", text, 10.0 * n) for n, text in enumerate(texts, 1)])
        await stand(house, 3)
        answer = await begin(house, session(tmp_path, "next"))

        turn = await house.turn(answer.headers["X-Turn-Id"])
        assert " ".join(turn.shown_lessons) == expected, [len(range(*span)) for span in turn.block_spans]
        assert sum(end - start for start, end in turn.block_spans) <= ids
        said = decode(turn.prompt_ids)
        positions = [said.index(f"\n\nHint: {texts[int(name[1]) - 1]}") for name in turn.shown_lessons]
        assert positions == sorted(positions), "the newest stands last"


async def test_lessons_take_at_most_half_of_the_room_that_a_reply_has(tmp_path: Path) -> None:
    async with showing(tmp_path) as house:
        await corrected(house, tmp_path, session(tmp_path, "first"))
        await stand(house, 1)
        turn = await house.turn((await begin(house, session(tmp_path, "next"))).headers["X-Turn-Id"])
    [(start, end)] = turn.block_spans
    num_bare, length = len(turn.prompt_ids) - (end - start), end - start
    for room, expected in ((2 * length, True), (2 * length - 1, False)):
        async with showing(tmp_path, engine_options={"max_len": num_bare + room}) as house:
            await stand(house, 1)
            answer = await begin(house, session(tmp_path, f"room{room}-"), max_tokens=1)
            assert (shown(answer) is not None) is expected


@pytest.mark.timeout(120)
async def test_five_thousand_lessons_for_one_request_do_not_hold_up_the_loop(tmp_path: Path) -> None:
    """Each is about another matter. Compared word by word, each with each, they took minutes."""
    async with showing(tmp_path) as house:
        with LearningLog(tmp_path) as log:
            log.add_lessons(
                [imported(f"L{n}", f"matter{n} wants style{n} of kind{n}", n + 1.0) for n in range(5000)]
            )
        await stand(house, 5000)
        answer = await begin(house, session(tmp_path, "next"))

        assert shown(answer) == "L4997,L4998,L4999"


@pytest.mark.parametrize("reason", [Reason.CONTRADICTED, Reason.ROLLED_BACK, Reason.GATE])
async def test_a_hint_that_is_not_believed_is_not_shown(tmp_path: Path, reason: Reason) -> None:
    async with showing(tmp_path) as house:
        lesson = await corrected(house, tmp_path, session(tmp_path, "first"))
        await stand(house, 1)
        with LearningLog(tmp_path) as log:
            [found] = [one for one in log.lessons() if one.id == lesson]
            log.reject(list(found.turn_ids), reason)
        await stand(house, 0)

        assert shown(await begin(house, session(tmp_path, "next"))) is None


async def test_where_users_are_strangers_several_sessions_must_have_said_it(tmp_path: Path) -> None:
    async with showing(tmp_path, guards__min_sessions=2) as house:
        for number in (1, 2):
            await corrected(house, tmp_path, session(tmp_path, f"first{number}-", shows=False))
            another(tmp_path)
            await stand(house, number)


async def test_who_is_not_listened_to_puts_nothing_into_prompts(tmp_path: Path) -> None:
    async with showing(tmp_path, guards__trust={"rule": 0}) as house:
        await corrected(house, tmp_path, session(tmp_path, "first"))
        another(tmp_path)
        await stand(house, 1)

        assert shown(await begin(house, session(tmp_path, "next"))) == "L1"


async def test_a_shown_turn_is_counted_and_never_trained_although_it_was_corrected(tmp_path: Path) -> None:
    async with showing(tmp_path) as house:
        await corrected(house, tmp_path, session(tmp_path, "first", shows=False))
        await stand(house, 1)
        await corrected(house, tmp_path, session(tmp_path, "next"))
        with LearningLog(tmp_path) as log:
            turns = [
                (await house.turns(session(tmp_path, name, shows=shows)))[0].id
                for name, shows in (("first", False), ("next", True))
            ]
            fates = [log.fate(name) for name in turns]
            account = log.account()
            claimed = [one.turn.id for one in log.claim(limit=9, needs="hint", max_age_s=1e9)]

        assert fates == ["pending:waiting", "rejected:lesson_shown"]
        assert account.balanced
        assert account.rejected["lesson_shown"] == 2, (
            "the second request of the conversation is the other one"
        )
        assert claimed == turns[:1]


async def test_a_recipe_that_teaches_no_hints_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"learn\.show_lessons .* 'grpo' teaches no hints"):
        async with serving(tmp_path, [], learn__enabled=True, learn__recipe="grpo", learn__show_lessons=True):
            pass


@pytest.mark.parametrize("share", ["0", "1"])
def test_a_share_that_leaves_none_to_learn_from_or_none_to_show_is_refused(share: str) -> None:
    with pytest.raises(ConfigError, match="show_share"):
        load_config(None, [f"learn.show_share={share}"])


async def test_progress_compares_conversations_in_which_no_lesson_could_stand(tmp_path: Path) -> None:
    async with showing(tmp_path) as house:
        await corrected(house, tmp_path, session(tmp_path, "first", shows=False))
        await stand(house, 1)
        for name, shows in (("next", True), ("other", True), ("more", False)):
            await begin(house, session(tmp_path, name, shows=shows))
        config = house.runtime.config
    found = outcomes(tmp_path, "default", now=1e12, idle_s=1.0)
    secret = read_secret(tmp_path)
    off = load_config(None, ["learn.show_lessons=false"])

    assert sorted(one.is_shown for one in found) == [False, False, True, True]
    expected = {session(tmp_path, name, shows=False) for name in ("first", "more")}
    assert {one.session for one in without_help(found, config, secret)} == expected
    assert {one.session for one in without_help(found, off, secret)} == expected, "some were shown once"
    plain = [one for one in found if not one.is_shown]
    assert without_help(plain, off, secret) == plain
    assert without_help(found, config, None) == plain, "without the secret, by what the turns say themselves"
