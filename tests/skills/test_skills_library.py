import os
import threading
from pathlib import Path

import pytest

from skills.library import Draft, Origin, SkillLibrary, alike, scope_folder
from skills.skill_file import SkillError, SkillState

ORIGIN = Origin(turn_ids=("t1",), version=3, score=1.0)


def draft(body: str, name: str = "use-zorp", **changes: object) -> Draft:
    return Draft(**({"name": name, "description": "Use to show files.", "body": body} | changes))


def write_by_hand(folder: Path, name: str, body: str = "Do it.") -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "SKILL.md").write_text(f"---\nname: {name}\ndescription: By hand.\n---\n{body}\n")
    return path


@pytest.fixture
def library(tmp_path: Path) -> SkillLibrary:
    return SkillLibrary(tmp_path / "skills")


def test_a_new_skill_is_a_folder_with_its_provenance(library: SkillLibrary) -> None:
    skill, kept = library.learn(draft("Run `zorp`."), ORIGIN)

    assert kept == "written"
    assert (library.path / "use-zorp" / "SKILL.md").read_text().startswith("---\nname: use-zorp\n")
    assert (skill.turn_ids, skill.version, skill.score) == (("t1",), 3, 1.0)
    assert library.all() == [skill]


def test_what_another_skill_says_already_is_merged_into_it(library: SkillLibrary) -> None:
    library.learn(draft("When files are shown:\nrun `zorp` and nothing else."), ORIGIN)
    later = Origin(turn_ids=("t2",), version=5, score=0.5)

    skill, kept = library.learn(
        draft("When files are shown, run `zorp` and nothing else!", name="show-files"), later
    )

    assert (kept, skill.name, skill.turn_ids, skill.version) == ("merged", "use-zorp", ("t1", "t2"), 5)
    assert [each.name for each in library.all()] == ["use-zorp"]


def test_texts_that_differ_in_their_code_contradict_each_other_and_are_not_alike() -> None:
    words = "in this house you show a file with the program that is named here, which is"

    assert not alike(f"{words} `zorp`", f"{words} `blip`")
    assert alike(f"{words} `zorp`", f"{words.replace('house', 'place')} `zorp`")


def test_the_same_name_with_another_text_is_a_revision(library: SkillLibrary) -> None:
    library.learn(draft("Run `zorp`."), ORIGIN)

    skill, kept = library.learn(draft("Run `zorp -v`."), ORIGIN)

    assert (kept, skill.revision, skill.body, skill.is_edited) == ("revised", 1, "Run `zorp -v`.", False)
    assert library.get("use-zorp").body == "Run `zorp -v`."


def test_lines_that_stand_for_themselves_add_up(library: SkillLibrary) -> None:
    library.learn(draft("Run `zorp` instead of `cat`.", adds=True), ORIGIN)
    library.learn(draft("Run `zorp` instead of `less`.", adds=True), ORIGIN)
    skill, kept = library.learn(draft("Run `zorp` instead of `cat`.", adds=True), ORIGIN)

    assert (kept, skill.revision) == ("merged", 1)
    assert skill.body == "Run `zorp` instead of `cat`.\nRun `zorp` instead of `less`."
    for number in range(40):
        skill, _ = library.learn(draft(f"Run `zorp` instead of `x{number}`.", adds=True), ORIGIN)
    assert len(skill.body.splitlines()) == 24


def test_a_text_that_a_hand_wrote_is_never_written_over(library: SkillLibrary) -> None:
    library.learn(draft("Run `zorp`."), ORIGIN)
    path = library.path / "use-zorp" / "SKILL.md"
    path.write_text(path.read_text().replace("Run `zorp`.", "Run `zorp`, my dear."))

    skill, kept = library.learn(draft("Run `zorp -v`."), Origin(turn_ids=("t9",), version=4, score=None))

    assert (kept, skill.body, skill.turn_ids) == ("merged", "Run `zorp`, my dear.", ("t1", "t9"))
    assert "my dear" in path.read_text()


def test_a_retired_skill_stays_retired_until_it_is_approved(library: SkillLibrary) -> None:
    library.learn(draft("Run `zorp`."), ORIGIN)
    library.change("use-zorp", SkillState.RETIRED)

    assert library.learn(draft("Run `zorp -v`."), ORIGIN)[1] == "retired"
    assert library.all(SkillState.ACTIVE) == []
    library.change("use-zorp", SkillState.ACTIVE)
    assert [each.name for each in library.all(SkillState.ACTIVE)] == ["use-zorp"]


def test_a_proposed_skill_is_not_active(library: SkillLibrary) -> None:
    library.learn(draft("Run `zorp`."), ORIGIN, state=SkillState.PROPOSED)

    assert library.all(SkillState.ACTIVE) == []
    assert [each.name for each in library.all()] == ["use-zorp"]


def test_a_file_that_a_hand_broke_is_left_alone_and_told_of(library: SkillLibrary) -> None:
    library.learn(draft("Run `zorp`."), ORIGIN)
    path = library.path / "use-zorp" / "SKILL.md"
    path.write_text("---\nname: use-zorp\n---\nRun it.")

    assert library.all() == []
    assert "add a line 'description: ...'" in library.faults["use-zorp"]
    with pytest.raises(SkillError, match="cannot be read"):
        library.learn(draft("Run `zorp`."), ORIGIN)
    assert path.read_text().endswith("Run it.")


def test_an_edit_is_seen_at_the_next_look(library: SkillLibrary) -> None:
    library.learn(draft("Run `zorp`."), ORIGIN)
    assert library.all()[0].description == "Use to show files."
    path = library.path / "use-zorp" / "SKILL.md"
    path.write_text(path.read_text().replace("show files", "print them"))
    os.utime(path, ns=(1, 1))

    assert library.all()[0].description == "Use to print them."


def test_skills_travel_with_the_files_beside_them(library: SkillLibrary, tmp_path: Path) -> None:
    folder = write_by_hand(tmp_path / "project" / ".agents" / "skills", "pdf")
    (folder / "scripts").mkdir()
    (folder / "scripts" / "fill.py").write_text("print()")

    assert library.take(tmp_path / "project") == ["pdf"]
    library.learn(draft("Run `zorp`."), ORIGIN)
    library.change("use-zorp", SkillState.RETIRED)
    given = library.give(tmp_path / "out")

    assert given == [tmp_path / "out" / "pdf"]
    assert (tmp_path / "out" / "pdf" / "scripts" / "fill.py").read_text() == "print()"
    assert (folder / "SKILL.md").read_text() == (tmp_path / "out" / "pdf" / "SKILL.md").read_text()
    assert library.give(tmp_path / "other", ["use-zorp"]) == [tmp_path / "other" / "use-zorp"]


def test_nothing_is_taken_over_something_or_through_a_link(library: SkillLibrary, tmp_path: Path) -> None:
    write_by_hand(tmp_path / "in", "pdf")
    linked = write_by_hand(tmp_path / "linked", "doc")
    (linked / "secret").symlink_to("/etc/passwd")
    library.take(tmp_path / "in" / "pdf")

    with pytest.raises(SkillError, match="here already"):
        library.take(tmp_path / "in")
    with pytest.raises(SkillError, match="is a link"):
        library.take(tmp_path / "linked")
    with pytest.raises(SkillError, match="holds no skill"):
        library.take(tmp_path)
    library.give(tmp_path / "out")
    with pytest.raises(SkillError, match="has pdf already"):
        library.give(tmp_path / "out")
    assert [each.name for each in library.all()] == ["pdf"]


def test_a_name_leads_nowhere_outside(library: SkillLibrary, tmp_path: Path) -> None:
    write_by_hand(tmp_path, "outside")
    with pytest.raises(SkillError, match="there is no skill"):
        library.get("../../outside")


def test_scopes_have_folders_of_their_own(tmp_path: Path) -> None:
    for scope in ("team-a", "../etc", "A", "a b", "scope-1"):
        SkillLibrary(tmp_path, scope).learn(draft("Run `zorp`."), ORIGIN)

    folders = sorted(path.name for path in tmp_path.iterdir())
    assert len(folders) == 5
    assert scope_folder("team-a") == "team-a"
    assert all("." not in name and "/" not in name for name in folders)
    assert SkillLibrary(tmp_path, "other").all() == []


def test_a_reader_never_sees_half_a_skill(library: SkillLibrary) -> None:
    """One thread writes long texts without a pause, another one reads."""
    bodies = [f"Run `zorp{n}`. " + f"{n}" * 30_000 for n in (1, 2)]
    library.learn(draft(bodies[0]), ORIGIN)
    stop = threading.Event()

    def write() -> None:
        writer = SkillLibrary(library.path.parent)
        for number in range(60):
            writer.learn(draft(bodies[number % 2]), ORIGIN)
        stop.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = set()
    while not stop.is_set():
        (skill,) = library.all()
        seen.add(skill.body)
    thread.join()
    assert seen <= set(bodies)
    assert library.faults == {}
    assert [path.name for path in (library.path / "use-zorp").iterdir()] == ["SKILL.md"]


def test_a_skill_that_a_hand_broke_badly_is_reported_and_the_others_are_read(library: SkillLibrary) -> None:
    library.learn(draft("Run `zorp`."), ORIGIN)
    path = write_by_hand(library.path, "broken") / "SKILL.md"
    path.write_text("---\nname: broken\ndescription: d\nsince: 2024-02-30\n---\nx\n")

    assert [each.name for each in library.all()] == ["use-zorp"]
    assert "in quotes" in library.faults["broken"]


def test_what_is_taken_says_nothing_of_its_own_state_and_provenance(
    library: SkillLibrary, tmp_path: Path
) -> None:
    theirs = SkillLibrary(tmp_path / "theirs")
    theirs.learn(draft("Run `zorp`."), ORIGIN)
    library.take(theirs.path, state=SkillState.PROPOSED)

    (skill,) = library.all()
    assert (skill.state, skill.turn_ids, skill.version, skill.score) == (SkillState.PROPOSED, (), None, None)
    assert skill.is_edited
    assert skill.body == "Run `zorp`."


def test_nothing_hidden_linked_or_special_is_taken(library: SkillLibrary, tmp_path: Path) -> None:
    write_by_hand(tmp_path / "hidden", "a", body="Do\u200b it.")
    write_by_hand(tmp_path / "elsewhere", "b")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "b").symlink_to(tmp_path / "elsewhere" / "b")
    os.mkfifo(write_by_hand(tmp_path / "special", "c") / "pipe")

    for folder, fault in (
        ("hidden", "hidden characters"),
        ("linked", "is a link"),
        ("special", "neither a file"),
    ):
        with pytest.raises(SkillError, match=fault):
            library.take(tmp_path / folder)
    assert library.all() == []


def test_under_review_an_approved_text_stays_and_a_proposed_one_goes_on(library: SkillLibrary) -> None:
    library.learn(draft("Run `zorp`."), ORIGIN, state=SkillState.PROPOSED)
    assert library.learn(draft("Run `zarp`."), ORIGIN, state=SkillState.PROPOSED)[1] == "revised"
    library.change("use-zorp", SkillState.ACTIVE)

    later = Origin(turn_ids=("t2",), version=4, score=0.5)
    skill, kept = library.learn(draft("Run `rm`."), later, state=SkillState.PROPOSED)

    assert (kept, skill.body, skill.state) == ("merged", "Run `zarp`.", SkillState.ACTIVE)
    assert library.get("use-zorp").body == "Run `zarp`."
