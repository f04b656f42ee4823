import pytest
from skills_episodes import episode

from agentrl.config import SkillsConfig
from skills.request import Request
from skills.retrieve import SkillIndex, fused
from skills.skill_file import SkillFile


def skill(name: str, description: str = "Use it.", body: str = "Do it.") -> SkillFile:
    return SkillFile(name=name, description=description, body=body)


def asked(request: str, command: str) -> Request:
    return Request.of(episode(request, (f"$ {command}", None)).steps[0].turn)


def said(*words: str) -> Request:
    return Request(words=frozenset(words), text=" ".join(words))


def least(likeness: float) -> SkillsConfig:
    return SkillsConfig(min_likeness=likeness)


def test_a_request_of_the_same_kind_finds_what_another_file_taught() -> None:
    index = SkillIndex(
        [skill("show"), skill("count")],
        {
            "show": [asked("Show the file notes.txt.", "cat notes.txt")],
            "count": [asked("How many lines has notes.txt?", "wc -l notes.txt")],
        },
    )

    assert index.find(asked("Show the file plan.md.", "less plan.md"), least(0.9), 5) == ["show"]
    assert (
        index.find(asked("How many lines has the file plan.md?", "wc -l plan.md"), least(0.3), 5)[0]
        == "count"
    )
    assert index.find(asked("Fetch the page", "curl page"), least(0.5), 5) == []


def test_likeness_is_the_share_of_common_words() -> None:
    request = said("show", "the", "file", "_")
    index = SkillIndex([skill("a")], {"a": [said("show", "a", "file", "_"), said("other")]})

    assert index.likeness(request.words, "a") == 3 / 5
    assert index.find(request, least(3 / 5), 1) == ["a"]
    assert index.find(request, least(0.61), 1) == []


def test_a_skill_from_elsewhere_is_found_by_what_it_says_of_itself() -> None:
    index = SkillIndex([skill("pdf-forms", "Fill in forms in PDF files"), skill("other")], {})

    assert index.find(said("fill", "in", "the", "pdf", "forms"), least(0.7), 5) == ["pdf-forms"]


def test_the_likest_comes_first_and_no_more_than_asked_for() -> None:
    requests = {name: [said("show", "file", *more)] for name, more in (("a", "xyz"), ("b", ""), ("c", "x"))}
    index = SkillIndex([skill(name) for name in "abc"], requests)

    assert index.find(said("show", "file"), least(0.1), 5) == ["b", "c", "a"]
    assert index.find(said("show", "file"), least(0.1), 2) == ["b", "c"]


def test_of_equally_like_skills_the_one_of_the_better_episode_comes_first() -> None:
    request = said("show", "file")
    skills = [
        skill(name).learned(turn_ids=(), version=0, score=score)
        for name, score in (("a", 0.0), ("b", 1.0), ("c", 0.5))
    ]

    found = SkillIndex(skills, {key: [request] for key in "abc"}).find(request, least(1.0), 5)
    assert found == ["b", "c", "a"]


def test_no_text_is_read_as_a_query_language() -> None:
    index = SkillIndex([skill("a")], {"a": [said("show")]})

    for text in ('"', "NEAR(", "name:x", "a*", "^", "show OR", "-", "'); DROP TABLE skills;--", "\0"):
        index.find(said(text, "show"), least(0.0), 5)
    assert index.find(said(), least(0.0), 5) == []
    assert index.find(said("show"), least(1.0), 5) == ["a"]


def test_half_a_character_in_a_request_is_no_fault_of_the_index() -> None:
    request = asked("Show the \ud800 file.", "cat x")
    index = SkillIndex([skill("a")], {"a": [request]})

    assert request.text == "Show the \ufffd file."
    assert index.find(request, least(1.0), 5) == ["a"]


def test_a_request_keeps_its_text_without_what_the_action_took_over() -> None:
    assert asked("Show Notes.txt, then the end.", "cat Notes.txt").text == "Show _, then the end."
    assert asked("Show (notes.txt).", "cat notes.txt").text == "Show (_)."
    assert len(asked("x " * 5000, "cat").text) == 2000
    written = Request.written("Show the file _.")
    assert (written.words, written.text) == ({"show", "the", "file", "_"}, "Show the file _.")


@pytest.mark.parametrize(
    ("rankings", "one"),
    [
        # b: 1/62 + 1/62 = .0323; a and c: 1/61 = .0164, and a stands in the first ranking
        ((["a", "b"], ["c", "b"]), ["b", "a", "c"]),
        # c: 1/63 + 1/61 = .0323 above b: 1/62 + 1/62 = .0323, by 4e-6; a: 1/61
        ((["a", "b", "c"], ["c", "b"]), ["c", "b", "a"]),
        ((["b", "a"], []), ["b", "a"]),
        (([], ["b", "a"]), ["b", "a"]),
        (([], []), []),
    ],
)
def test_rankings_are_fused_by_their_places(rankings: tuple[list[str], list[str]], one: list[str]) -> None:
    assert fused(*rankings) == one
