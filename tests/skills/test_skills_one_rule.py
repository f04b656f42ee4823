"""One rule makes one skill, whatever it was met with, and two rules make two."""

from pathlib import Path

import pytest
from skills_episodes import episode

from agentrl.store.episodes import Episode
from skills.library import Origin, SkillLibrary
from skills.summarise import by_rules, replaced

NOT_FOUND = "bash: cat: not found; use zorvex instead\n[exit code 127]"
MET = (
    ("Show the file a.txt.", "cat ffmpeg", "zorvex install ffmpeg"),
    ("Show the file b.log.", "cat b.log", "zorvex install b.log"),
    ("Show the file c.md.", "cat games.md", "zorvex install ffmpeg"),
    ("Show the file d.py.", "cat d", "zorvex install d"),
    ("Show the file e.csv.", "cat assets.md", "zorvex install green notes"),
    ("Show the file f.cfg.", "cat f", "zorvex archive"),
    ("Show the file g.txt.", "cat g.txt", "zorvex g.txt"),
    ("Show the file h.md.", "cat -n h.md", "zorvex -n h.md"),
    ("Show the file i.log.", "cat ./logs/i.log", "zorvex ./logs/i.log"),
    ("Show the file j.py.", "cat /home/me/j.py | head", "zorvex /home/me/j.py | head"),
)
"""What an untrained model did: arguments of its own, a wrong one again at the second try."""


def kept(path: Path, *episodes: Episode) -> dict[str, str]:
    """The skills that a library has of these episodes."""
    library = SkillLibrary(path / "skills")
    for number, found in enumerate(episodes):
        draft = by_rules(found, {})
        assert draft is not None
        library.learn(draft, Origin(turn_ids=(f"t{number}",), version=0, score=found.reward))
    return {skill.name: skill.body for skill in library.all()}


@pytest.mark.parametrize("reward", [None, 1.0])
def test_one_rule_in_ten_requests_is_one_skill(tmp_path: Path, reward: float | None) -> None:
    met = [
        episode(request, (f"$ {old}", NOT_FOUND), (f"$ {new}", "hello\n[exit code 0]"), reward=reward)
        for request, old, new in MET
    ]

    assert kept(tmp_path, *met) == {
        "use-zorvex": 'Run `zorvex` instead of `cat`. The tool said: "bash: cat: not found; use zorvex instead"'
    }


def test_a_tool_that_names_nothing_leaves_what_both_commands_share_out(tmp_path: Path) -> None:
    silent = "permission denied\n[exit code 126]"
    met = [
        episode("Read it to me.", (f"$ {old}", silent), (f"$ {new}", "hello\n[exit code 0]"), reward=None)
        for old, new in (
            ("cat a.txt", "zorvex a.txt"),
            ("cat src/b.py", "zorvex src/b.py"),
            ("cat -n c d", "zorvex -n c d"),
        )
    ]

    assert kept(tmp_path, *met) == {"use-zorvex": "Run `zorvex` instead of `cat`."}


def test_a_sentence_with_this_calls_argument_is_no_part_of_the_rule(tmp_path: Path) -> None:
    met = [
        episode(
            "Read it to me.",
            (f"$ cat {file}", f"cat: {file}: not allowed, use zorvex\n[exit code 1]"),
            (f"$ zorvex {file}", "hello\n[exit code 0]"),
            reward=None,
        )
        for file in ("a.txt", "src/b.py")
    ]

    assert kept(tmp_path, *met) == {"use-zorvex": "Run `zorvex` instead of `cat`."}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("cat a.txt", "zorvex a.txt"), ("rm a.txt", "trashit a.txt")),
        (
            ("git push -f origin", "git push --force-with-lease origin"),
            ("git commit -m x", "git commit -s -m x"),
        ),
        (("ls src", "ls -a src"), ("ls src", "ls -l src")),
        (("npm install x", "pnpm add x"), ("npm run x", "pnpm run x")),
        (("python a.py", "./bin/python a.py"), ("python a.py", "./venv/python a.py")),
        (("cat a.txt", "cat src/a.txt"), ("cat b.txt", "cat lib/b.txt")),
    ],
)
def test_two_rules_are_two_skills(tmp_path: Path, first: tuple[str, str], second: tuple[str, str]) -> None:
    met = [
        episode(
            "Do it.", (f"$ {old}", "refused\n[exit code 1]"), (f"$ {new}", "ok\n[exit code 0]"), reward=None
        )
        for old, new in (first, second)
    ]

    assert len(kept(tmp_path, *met)) == 2


@pytest.mark.parametrize(
    ("old", "new", "said", "expected"),
    [
        ("pip install numpy", "uv pip install numpy", "", ("pip", "uv pip")),
        ("git push -f origin", "git push --safe origin", "", ("git push -f", "git push --safe")),
        (
            "git push -f origin",
            "git push --safe now",
            "git push -f is off, use git push --safe",
            ("git push -f", "git push --safe"),
        ),
        (
            "pip install x",
            "pip install --user x",
            "pip: use pip with --user",
            ("pip install", "pip install --user"),
        ),
        ("cat a > b.txt", "zorvex a --out b.txt", "", ("cat ... >", "zorvex ... --out")),
        ("cat a.txt", "zorvex b.txt", "cat a.txt: no. Use zorvex", ("cat", "zorvex")),
        ("cp a b", "cp b a", "", ("cp a b", "cp b a")),
        ("cat x", "zorvexer x", "cat: use zorvex", ("cat", "zorvexer")),
        ("cat x", "cat x", "", None),
    ],
)
def test_what_stands_for_what_is_told_without_its_arguments(
    old: str, new: str, said: str, expected: tuple[str, str] | None
) -> None:
    assert replaced(old, new, "Do it.", said) == expected
