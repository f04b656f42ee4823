import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills.skill_file import MAX_NAME, SkillError, SkillFile, SkillState, parse, slug

TEXT = """\
---
name: pdf-forms
description: >-
  Fill in PDF forms: use when somebody
  mentions a form.
license: Apache-2.0
compatibility: needs python3
allowed-tools: Bash(python3:*) Read
metadata:
  author: somebody
  version: 1.0
---

# Forms

Run `fill.py`.
"""


def test_the_front_matter_is_real_yaml_and_unknown_fields_are_kept() -> None:
    skill = parse(TEXT, folder="pdf-forms")

    assert skill.description == "Fill in PDF forms: use when somebody mentions a form."
    assert (skill.license, skill.compatibility) == ("Apache-2.0", "needs python3")
    assert skill.extra == {"allowed-tools": "Bash(python3:*) Read"}
    assert skill.metadata == {"author": "somebody", "version": 1.0}
    assert skill.body == "# Forms\n\nRun `fill.py`."
    assert parse(skill.render(), folder="pdf-forms") == skill


def test_a_file_from_windows_reads_the_same() -> None:
    assert parse("\ufeff" + TEXT.replace("\n", "\r\n")) == parse(TEXT)


def test_provenance_stands_in_metadata_and_is_read_back() -> None:
    skill = SkillFile(name="a", description="when", body="how").learned(
        turn_ids=("t1", "t2"), version=7, score=0.75, revision=0
    )

    back = parse(skill.render())

    assert (back.turn_ids, back.version, back.score, back.revision) == (("t1", "t2"), 7, 0.75, 0)
    assert back.state is SkillState.ACTIVE
    assert all(isinstance(value, str) for value in back.metadata.values())


def test_a_text_that_a_hand_changed_is_known_as_edited() -> None:
    written = SkillFile(name="a", description="when", body="how").learned(
        turn_ids=(), version=0, score=None, revision=0
    )

    assert not parse(written.render()).is_edited
    assert parse(written.render().replace("how", "how else")).is_edited
    assert parse(TEXT).is_edited


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ("no front matter", "begin with a line '---'"),
        ("---\nname: a: b\n---\nx", "not YAML in line 2: put texts that hold ': ' or '#' in quotes"),
        (
            "---\nname: a\ndescription: [b\nlicense: c\n---\nx",
            "not YAML in line 3: close the bracket or quotation",
        ),
        (
            "---\nname: a\ndescription: 'b\n---\nx",
            "not YAML in line 3: close the bracket or quotation mark there",
        ),
        (
            '---\nname: a\ndescription: "b\\d"\n---\nx',
            "not YAML in line 3: put texts that hold a backslash in",
        ),
        ("---\nname: a\ndescription: b\nx", "close the fields with a line '---'"),
        ("----\nname: a\ndescription: b\n---\nx", "begin with a line '---'"),
        ("---\n- a\n---\nx", "write 'name: ...' and 'description: ...'"),
        ("---\nname: a\n---\nx", "add a line 'description: ...'"),
        ("---\nname: a\ndescription: b\nmetadata: c\n---\nx", "metadata is no map"),
        ("---\nname: A b\ndescription: c\n---\nx", "for example 'a-b'"),
        ("---\nname: a--b\ndescription: c\n---\nx", "for example 'a-b'"),
        ("---\nname: a\ndescription: b\n---\n", "below the front matter has 0 characters"),
        ("---\nname: other\ndescription: b\n---\nx", "rename one of both"),
        (f"---\nname: a\ndescription: {'b' * 1025}\n---\nx", "1 to 1024"),
        (f"---\nname: a\ndescription: b\ncompatibility: {'b' * 501}\n---\nx", "keep it to 500"),
        ("---\nname: a\ndescription: b\nlicense: 3\n---\nx", "write it as a text in quotes"),
        ("---\nname: a\ndescription: b\nmetadata:\n  agentrl-state: asleep\n---\nx", "retired"),
        ("---\nname: a\ndescription: b\nmetadata:\n  agentrl-version: new\n---\nx", "whole numbers"),
        ("---\nname: a\ndescription: &d b\nlicense: *d\n---\nx", "write the value out"),
        (f"---\nname: a\ndescription: b\n---\n{'x' * 40_001}", "into files beside SKILL.md"),
    ],
)
def test_what_is_wrong_is_told_with_its_remedy(wrong: str, remedy: str) -> None:
    with pytest.raises(SkillError) as caught:
        parse(wrong, folder="a")
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "since: 2024-02-30",
        f"deep: {'[' * 20_000}",
        f"number: {'9' * 5000}",
        f"number: 0x{'f' * 5000}",
        "number: !!int ''",
        'description: "\\uD800"',
        "metadata:\n  agentrl-version: .inf",
        f"metadata:\n  agentrl-turns: 0x{'f' * 5000}",
    ],
)
def test_a_value_that_breaks_the_reader_is_a_fault_of_the_file(line: str) -> None:
    with pytest.raises(SkillError):
        parse(f"---\nname: a\ndescription: b\n{line}\n---\nx", folder="a")


@given(st.text(max_size=200))
def test_any_text_makes_a_well_formed_name(text: str) -> None:
    name = slug(text)

    assert len(name) <= MAX_NAME
    assert SkillFile(name=name, description="d", body="b").name == name


@given(description=st.text(min_size=1, max_size=200), body=st.text(min_size=1, max_size=200))
def test_what_is_written_is_what_is_read(description: str, body: str) -> None:
    skill = SkillFile(name="a", description="x" + description.strip(), body="x" + body.strip())
    plain = "\n".join(skill.body.split("\r\n"))

    back = parse(skill.render())

    assert back.description == skill.description.strip()
    assert back.body == plain.strip()


def test_long_names_that_begin_alike_stay_apart() -> None:
    first, second = slug("use " + "a" * 80 + " b"), slug("use " + "a" * 80 + " c")

    assert first != second
    assert len(first) <= MAX_NAME
