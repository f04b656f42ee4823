import json
from dataclasses import replace

import pytest

from agentrl.teacher.recall import (
    MAX_REMEMBERED,
    HintMemory,
    Recalled,
    alike_unanswered,
    asked_words,
    matter,
    num_arguments,
    request_words,
    same_matter,
)
from agentrl.types import (
    Arm,
    Completion,
    FinishReason,
    MatchedBy,
    Purpose,
    Reply,
    Sampling,
    ToolCall,
    Turn,
    TurnKind,
    VersionSpan,
)


def turn(request: str, command: str, at: float, scope: str = "default") -> Turn:
    call = ToolCall(id="c1", name="bash", arguments=json.dumps({"command": command}))
    return Turn(
        id=f"t{at}",
        request_id=f"r{at}",
        session=f"s{at}",
        scope=scope,
        parent=None,
        matched_by=MatchedBy.NONE,
        kind=TurnKind.MAIN,
        kind_reason="",
        purpose=Purpose.TRAIN,
        arm=Arm.LEARNING,
        task_key="k",
        messages=({"role": "system", "content": "s"}, {"role": "user", "content": request}),
        tools=(),
        prompt_ids=(1,),
        prompt_built_by="rendered: first turn",
        completion=Completion(
            token_ids=(2,),
            logprobs=(0.0,),
            raw_logprobs=None,
            num_allowed=None,
            finish_reason=FinishReason.STOP,
            version_spans=(VersionSpan(version=0, start=0, end=1),),
        ),
        reply=Reply(text="", tool_calls=(call,)),
        sampling=Sampling(),
        policy="default",
        received_at=at,
    )


def said(found: Recalled | None) -> str | None:
    return None if found is None else found.hint


def test_a_request_is_its_words_without_what_the_action_took_over() -> None:
    found = request_words(turn("Search for paris in Notes.txt.", "grep paris Notes.txt", 1.0))

    assert found == {"search", "for", "_", "in"}


def test_a_hint_is_recalled_for_a_like_request_with_other_arguments() -> None:
    memory = HintMemory()
    memory.add(turn("Show the file a.txt.", "cat a.txt", 1.0), "use zorvex instead of cat")

    assert (
        said(memory.recall(turn("Show the file b.md.", "zor b.md", 2.0), None, 0.8))
        == "use zorvex instead of cat"
    )
    assert said(memory.recall(turn("Delete the folder b.", "rmdir b", 2.0), None, 0.8)) is None


def test_one_other_word_makes_another_request_at_the_presets_similarity() -> None:
    memory = HintMemory()
    memory.add(turn("Give me the checksum of a.txt.", "md5sum a.txt", 1.0), "use b2sum")

    assert said(memory.recall(turn("Give me the start of b.txt.", "head b.txt", 2.0), None, 0.8)) is None
    assert (
        said(memory.recall(turn("Give me the start of b.txt.", "head b.txt", 2.0), None, 0.7)) == "use b2sum"
    )


def test_only_what_came_before_is_recalled() -> None:
    memory = HintMemory()
    memory.add(turn("Show the file a.txt.", "cat a.txt", 5.0), "use zorvex")

    assert said(memory.recall(turn("Show the file b.md.", "x b.md", 4.0), None, 0.8)) is None
    assert said(memory.recall(turn("Show the file b.md.", "x b.md", 5.0), None, 0.8)) is None


def test_hints_that_may_not_be_shown_have_no_vote_as_long_as_that_is_so() -> None:
    memory = HintMemory()
    lies = [turn("Show the file a.txt.", "cat a.txt", float(at)) for at in (1, 2)]
    for one in lies:
        memory.add(one, "use wipe")
    memory.add(turn("Show the file a.txt.", "cat a.txt", 3.0), "use zorvex")
    asked = turn("Show the file b.md.", "x b.md", 4.0)
    assert said(memory.recall(asked, None, 0.8)) == "use wipe"

    questions = []
    doubted = {one.id for one in lies}

    def may_be_shown(hint_of: str, turn_id: str) -> bool:
        questions.append((hint_of, turn_id))
        return hint_of not in doubted

    memory.heed(may_be_shown)
    assert said(memory.recall(asked, None, 0.8)) == "use zorvex"
    assert {turn_id for _, turn_id in questions} == {asked.id}
    doubted.clear()
    assert said(memory.recall(asked, None, 0.8)) == "use wipe"


def test_a_wish_stands_only_as_long_as_it_may_be_shown() -> None:
    memory = HintMemory()
    wish = turn("Show the file a.txt.", "cat a.txt", 1.0)
    memory.add(wish, "use metric units", by_user=True)
    asked = turn("Show the file b.md.", "x b.md", 2.0)
    assert [item.hint for item in memory.standing(asked, None, 4)] == ["use metric units"]

    memory.heed(lambda hint_of, turn_id: (hint_of, turn_id) != (wish.id, asked.id))
    assert memory.standing(asked, None, 4) == []


def test_hints_never_cross_scopes() -> None:
    memory = HintMemory()
    memory.add(turn("Show the file a.txt.", "cat a.txt", 1.0, scope="alice"), "use zorvex")

    assert said(memory.recall(turn("Show the file b.md.", "x b.md", 2.0, scope="bob"), None, 0.8)) is None


def test_most_of_the_like_requests_overrule_an_own_hint_that_stands_alone() -> None:
    memory = HintMemory()
    for at in (1.0, 2.0):
        memory.add(turn("Make a checksum of a.txt.", "md5sum a.txt", at), "use b2sum")
    asked = turn("Make a checksum of c.txt.", "cp c.txt", 3.0)

    assert said(memory.recall(asked, "cp is refused, use tidrus", 0.8)) == "use b2sum"


def test_an_own_hint_wins_a_tie_and_stands_where_nothing_is_remembered() -> None:
    memory = HintMemory()
    asked = turn("Make a checksum of c.txt.", "cp c.txt", 3.0)

    assert said(memory.recall(asked, "own", 0.8)) == "own"
    memory.add(turn("Make a checksum of a.txt.", "md5sum a.txt", 1.0), "other")
    assert said(memory.recall(asked, "own", 0.8)) == "own"


def test_the_newest_like_requests_decide_when_the_rules_change() -> None:
    memory = HintMemory()
    for at in range(40):
        memory.add(turn("Show the file a.txt.", "cat a.txt", float(at)), "old" if at < 30 else "new")

    assert said(memory.recall(turn("Show the file b.md.", "x b.md", 99.0), None, 0.8)) == "new"


def test_memory_is_bounded() -> None:
    memory = HintMemory()
    first = turn("Sort a.txt.", "sort a.txt", 0.0)
    memory.add(first, "use sort -n")
    for at in range(MAX_REMEMBERED):
        memory.add(turn("Show the file a.txt.", "cat a.txt", 1.0 + at), "use zorvex")

    assert said(memory.recall(turn("Sort b.txt.", "sort b.txt", 1e6), None, 0.8)) is None


@pytest.mark.parametrize("arguments", ["not json a.txt", '["a.txt"]', '"a.txt"'])
def test_arguments_that_are_no_object_are_read_as_text(arguments: str) -> None:
    plain = turn("Show a.txt.", "x", 1.0)
    odd = replace(
        plain, reply=Reply(text="", tool_calls=(ToolCall(id="c", name="bash", arguments=arguments),))
    )

    assert "show" in request_words(odd)


def test_a_recalled_hint_names_the_turn_that_brought_it() -> None:
    memory = HintMemory()
    memory.add(turn("Show the file a.txt.", "cat a.txt", 1.0), "use zorvex")

    assert memory.recall(turn("Show the file b.md.", "x b.md", 2.0), None, 0.8) == Recalled(
        hint="use zorvex", turn_id="t1.0"
    )


def test_two_signals_of_one_turn_have_one_vote() -> None:
    memory = HintMemory()
    first = turn("Show the file a.txt.", "cat a.txt", 1.0)
    memory.add(first, "use blim")
    memory.add(first, "use blim")
    memory.add(turn("Show the file c.txt.", "cat c.txt", 2.0), "use zorvex")

    assert said(memory.recall(turn("Show the file b.md.", "x b.md", 3.0), None, 0.8)) == "use zorvex"


def test_a_hint_that_was_followed_in_an_episode_that_failed_is_not_recalled() -> None:
    memory = HintMemory()
    first = turn("Number the lines of a.txt.", "cat a.txt", 1.0)
    memory.add(first, "use musstor instead of cat")
    asked = turn("Number the lines of b.txt.", "nl b.txt", 2.0)
    followed = (
        *first.reply.tool_calls,
        ToolCall(id="2", name="bash", arguments='{"command": "musstor a.txt"}'),
    )

    assert said(memory.recall(asked, None, 0.8)) == "use musstor instead of cat"
    memory.ended("default", "s1.0", 0.0, followed)
    assert memory.recall(asked, None, 0.8) is None
    memory.ended("default", "s1.0", 1.0)
    assert said(memory.recall(asked, None, 0.8)) == "use musstor instead of cat"


def test_a_hint_that_nobody_followed_is_recalled_though_its_episode_failed() -> None:
    memory = HintMemory()
    first = turn("Number the lines of a.txt.", "cat a.txt", 1.0)
    memory.add(first, "use musstor instead of cat")
    memory.ended("default", "s1.0", 0.0, first.reply.tool_calls)
    asked = turn("Number the lines of b.txt.", "nl b.txt", 2.0)

    assert said(memory.recall(asked, None, 0.8)) == "use musstor instead of cat"

    # A hint that names nothing new may have been followed: its failed episode speaks against it.
    memory = HintMemory()
    memory.add(first, "not cat a.txt")
    memory.ended("default", "s1.0", 0.0, first.reply.tool_calls)
    assert memory.recall(asked, None, 0.8) is None


@pytest.mark.parametrize(
    ("asked", "likeness"),
    [
        ("Show the file b.md", 1.0),
        ("show the file notes/of/today.txt!", 1.0),
        ("Show the file", 3 / 4),
        ("Show me the file b.md", 4 / 5),
        ("Delete the file b.md", 3 / 5),
        ("Count the lines of b.md", 2 / 7),
        ("", 0.0),
    ],
)
def test_a_request_that_nothing_has_answered_is_like_one_of_other_arguments(
    asked: str, likeness: float
) -> None:
    known = turn("Show the file a.txt", "cat a.txt", 1.0)
    words = asked_words([{"role": "user", "content": asked}])

    assert num_arguments(known) == 1
    assert alike_unanswered(words, request_words(known), num_arguments(known)) == pytest.approx(likeness)


def test_only_as_many_words_count_as_arguments_as_the_known_request_had() -> None:
    one = turn("Count the lines of a.txt", "wc -l a.txt", 1.0)
    two = turn("Copy a.txt as b.txt", "cp a.txt b.txt", 2.0)

    def likeness(asked: str, known: Turn) -> float:
        words = asked_words([{"role": "user", "content": asked}])
        return alike_unanswered(words, request_words(known), num_arguments(known))

    assert likeness("Number the lines of b.md", one) == pytest.approx(4 / 6), (
        "not .8, as if both were arguments"
    )
    assert num_arguments(two) == 2
    assert likeness("Copy c.md as d.md", two) == 1.0


def test_requests_without_arguments_are_compared_word_by_word() -> None:
    known = turn("Tidy up the house", "tidy", 1.0)
    words = asked_words([{"role": "user", "content": "tidy up the garden"}])

    assert alike_unanswered(words, request_words(known), num_arguments(known)) == pytest.approx(3 / 5)


def test_hints_on_one_matter_are_known_by_the_words_that_they_share() -> None:
    show = matter("cat is not installed. Use show instead.")
    assert same_matter(show, matter("cat is not installed. Use view instead."))
    assert not same_matter(show, matter("sign off with Cheers"))


def test_a_quotation_is_about_what_was_quoted() -> None:
    assert matter('The tool said: "use zorp"') == matter("use zorp") == {"zorp"}
    memory = HintMemory()
    memory.add(turn("Show a.txt", "cat a.txt", 1.0), 'The tool said: "use zorp"')
    # the hint was not followed: that its marks stood in a call is no sign that it was
    memory.ended("default", "s1.0", -1.0, [ToolCall(id="c", name="bash", arguments='{"command": "tool x"}')])

    assert memory.recall(turn("Show a.txt", "cat a.txt", 2.0), None, 0.8) is not None
