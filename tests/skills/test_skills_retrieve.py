from skills_episodes import episode

from agentrl.teacher.recall import request_words
from skills.retrieve import SkillIndex
from skills.skill_file import SkillFile


def skill(name: str, description: str = "Use it.", body: str = "Do it.") -> SkillFile:
    return SkillFile(name=name, description=description, body=body)


def asked(request: str, command: str) -> frozenset[str]:
    return request_words(episode(request, (f"$ {command}", None)).steps[0].turn)


def test_a_request_of_the_same_kind_finds_what_another_file_taught() -> None:
    index = SkillIndex(
        [skill("show"), skill("count")],
        {
            "show": [asked("Show the file notes.txt.", "cat notes.txt")],
            "count": [asked("How many lines has notes.txt?", "wc -l notes.txt")],
        },
    )

    assert index.find(asked("Show the file plan.md.", "less plan.md"), 0.9, 5) == ["show"]
    assert index.find(asked("How many lines has the file plan.md?", "wc -l plan.md"), 0.3, 5)[0] == "count"
    assert index.find(asked("Fetch the page", "curl page"), 0.5, 5) == []


def test_likeness_is_the_share_of_common_words() -> None:
    words = frozenset({"show", "the", "file", "_"})
    index = SkillIndex([skill("a")], {"a": [frozenset({"show", "a", "file", "_"}), frozenset({"other"})]})

    assert index.likeness(words, "a") == 3 / 5
    assert index.find(words, 3 / 5, 1) == ["a"]
    assert index.find(words, 0.61, 1) == []


def test_a_skill_from_elsewhere_is_found_by_what_it_says_of_itself() -> None:
    index = SkillIndex([skill("pdf-forms", "Fill in forms in PDF files"), skill("other")], {})

    assert index.find(frozenset({"fill", "in", "the", "pdf", "forms"}), 0.7, 5) == ["pdf-forms"]


def test_the_likest_comes_first_and_no_more_than_asked_for() -> None:
    requests = {
        name: [frozenset({"show", "file", *more})] for name, more in (("a", "xyz"), ("b", ""), ("c", "x"))
    }
    index = SkillIndex([skill(name) for name in "abc"], requests)

    assert index.find(frozenset({"show", "file"}), 0.1, 5) == ["b", "c", "a"]
    assert index.find(frozenset({"show", "file"}), 0.1, 2) == ["b", "c"]


def test_of_equally_like_skills_the_one_of_the_better_episode_comes_first() -> None:
    words = frozenset({"show", "file"})
    skills = [
        skill(name).learned(turn_ids=(), version=0, score=score)
        for name, score in (("a", 0.0), ("b", 1.0), ("c", 0.5))
    ]

    assert SkillIndex(skills, {key: [words] for key in "abc"}).find(words, 1.0, 5) == ["b", "c", "a"]


def test_no_text_is_read_as_a_query_language() -> None:
    index = SkillIndex([skill("a")], {"a": [frozenset({"show"})]})

    for text in ('"', "NEAR(", "name:x", "a*", "^", "show OR", "-", "'); DROP TABLE skills;--", "\0"):
        index.find(frozenset({text, "show"}), 0.0, 5)
    assert index.find(frozenset(), 0.0, 5) == []
    assert index.find(frozenset({"show"}), 1.0, 5) == ["a"]
