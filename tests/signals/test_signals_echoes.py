"""What a tool only repeats of the call is no hint."""

import json
import re

import pytest

from agentrl.signals.echoes import echoes, without_echo
from agentrl.signals.judge import Judgement
from agentrl.types import ToolCall


def call(command: str) -> ToolCall:
    return ToolCall(id="c1", name="bash", arguments=json.dumps({"command": command}))


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("zor.Please notes.txt", "zor.Please: command not found"),
        ("zor.Please notes.txt", "bash: zor.Please: command not found"),
        ("use notes.txt", "bash: use: command not found"),
        ("cat Please", "cat: Please: No such file or directory"),
        ("Use.zorp a.txt", "Use.zorp is no command"),
        ("run-instead a.txt", "there is no 'run-instead'"),
        ("cat a.txt", "cat: not found; use cat"),
        ("cat a.txt", "bash: cat: command not found. Use the `cat` command instead."),
        ("stauts", "unknown command: stauts. Did you mean 'stauts'?"),
    ],
)
def test_words_that_a_garbled_command_wrote_itself_are_no_hint(command: str, hint: str) -> None:
    assert echoes(hint, [call(command)])
    assert without_echo(Judgement(reward=-1.0, hint=hint), [call(command)]) == Judgement(reward=-1.0)


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("cat a.txt", "cat: not available here; use zorp"),
        ("cat a.txt", "cat: a.txt: use zorp instead of cat"),
        ("zor.Please a.txt", "zor.Please: command not found. Did you mean zorp?"),
        ("paste a.txt", "Command 'paste' not found, but hikret can be used."),
        ('git commit -m "please use it"', "nothing to commit, use git add first"),
        ("zorp", "Please be brief."),
        ("cat a.txt", "cat: missing operand; try cat --help"),
        ("cat a.txt", "cat: not found; use catalog instead"),
        ("cat a.txt", "Please do not use cat."),
        ("cat a.txt", "cat: use cat, then zorp"),
        ("tool --json --yaml", "--json and --yaml conflict; use --json"),
        ("make test", "the cache is stale: run make again."),
        ("make test", "build moved: run make here."),
    ],
)
def test_a_hint_that_says_more_than_the_call_stays(command: str, hint: str) -> None:
    assert not echoes(hint, [call(command)])
    assert without_echo(Judgement(reward=-1.0, hint=hint), [call(command)]).hint == hint


def test_of_a_long_call_only_the_words_of_the_hint_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for: list[str] = []
    real = re.sub

    def counted(pattern: str, new: str, text: str) -> str:
        looked_for.append(pattern)
        return real(pattern, new, text)

    monkeypatch.setattr(re, "sub", counted)
    long = call("zor.Please " + " ".join(f"w{number}.txt" for number in range(8_000)))
    assert echoes("bash: zor.Please: command not found", [long])
    assert len(looked_for) == 1
