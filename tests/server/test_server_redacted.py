"""What the rules found clean once is not searched again with every request of its history."""

from collections.abc import Iterable

from server_house import MODEL

from agentrl.text.redaction import Found, Redactor
from agentrl.text.renderer import load_renderer
from agentrl.types import JSON
from server.redacted import MAX_CLEAN, SessionRedactor


class Counted(Redactor):
    """Rules that remember the texts that they searched."""

    def __init__(self) -> None:
        super().__init__()
        self.searched: list[str] = []

    def find(self, text: str, *, known: Iterable[str] = ()) -> list[Found]:
        self.searched.append(text)
        return super().find(text, known=known)


def said(number: int) -> JSON:
    return {"content": f"word {number}"}


def history(length: int) -> list[JSON]:
    return [said(number) for number in range(length)]


def redactor() -> tuple[SessionRedactor, Counted]:
    rules = Counted()
    return SessionRedactor(load_renderer(MODEL), rules=rules), rules


def test_a_history_with_one_message_too_many_is_searched_once_but_for_that_one() -> None:
    redacted, rules = redactor()
    messages = history(10_001)
    redacted.meet("default", "s", messages)
    assert len(rules.searched) == 10_001

    rules.searched.clear()
    redacted.meet("default", "s", messages)
    assert rules.searched == ["word 0"]

    rules.searched.clear()
    assert redacted.messages("default", "s", messages) == (tuple(messages), ())
    assert rules.searched == ["word 0"]
    assert len(redacted._clean) == MAX_CLEAN == 10_000


def test_what_is_sent_again_is_remembered_longer_than_what_is_not() -> None:
    redacted, rules = redactor()
    redacted.meet("default", "s", history(10_000))
    redacted.meet("default", "s", [said(0)])
    redacted.meet("default", "s", [said(10_000)])

    rules.searched.clear()
    redacted.meet("default", "s", [said(0), said(1)])
    assert rules.searched == ["word 1"]
