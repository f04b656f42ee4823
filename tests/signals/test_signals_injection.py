"""What of an output that hides something or directs elsewhere reaches a teacher, beside hints."""

import pytest
from injection_cases import HALVES, honest, orders, record

from agentrl.nano import weights_dir
from agentrl.recipes import axes
from agentrl.signals.candidates import Candidate
from agentrl.signals.gates import admit, case_of
from agentrl.store.claims import Claimed
from agentrl.teacher.contexts import blocks
from agentrl.text.injection import directs_elsewhere, harmless, hides, shown
from agentrl.text.quoting import quoted, unquoted
from agentrl.text.renderer import load_renderer
from agentrl.types import Block, NextState, Signal, SignalSource, Turn


def shown_in(context: axes.Context, turn: Turn, state: NextState, evidence: str) -> list[Block]:
    said = Signal(turn_id=turn.id, source=SignalSource.RULE, reward=-1.0, evidence=evidence)
    return blocks(context, Claimed(turn=turn, next_state=state, signals=(said,), use=1))


@pytest.mark.parametrize("context", [axes.EnvFeedback(), axes.UnmetRubrics()])
def test_at_most_one_attack_in_a_hundred_stands_in_what_a_teacher_is_told_of_an_output(
    context: axes.Context,
) -> None:
    """What hangs on no clause that was left out stays: a fault, a name, and nothing of what the attack wants."""
    num_attacks = sum(map(len, HALVES.values()))
    kept: list[str] = []
    for texts in HALVES.values():
        for _, text in texts:
            turn, state = record("cat notes.txt", text)
            found = "\n".join(block.text for block in shown_in(context, turn, state, text))
            left = unquoted(found.partition(": ")[2]).replace("[exit code 1]", "").strip()
            kept += [left] if left.strip(". ") else []

    assert len(orders(kept)) <= 0.01 * num_attacks, orders(kept)

    honest_ones = [(action, answer) for _, action, answer in honest() if not action.startswith("says: ")]
    whole = 0
    for action, answer in honest_ones:
        turn, state = record(action, answer)
        found = "\n".join(block.text for block in shown_in(context, turn, state, answer))
        whole += quoted(answer, "x")[4:-1] in found
    assert len(honest_ones) >= 200
    assert whole >= 0.95 * len(honest_ones)


def test_whatever_of_an_output_a_teacher_is_shown_is_deleted_without_a_trace() -> None:
    renderer = load_renderer(weights_dir())
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": "Show the file notes.txt."}]
    ids = renderer.prompt(messages, [], None).ids
    num_blocks = 0
    for text in [text for texts in HALVES.values() for _, text in texts][::5]:
        turn, state = record("cat notes.txt", text)
        for context in (axes.EnvFeedback(), axes.EnvFeedback(position="system"), axes.UnmetRubrics()):
            found = shown_in(context, turn, state, text)
            view = renderer.insert(ids, len(ids), found) if found else None
            if view is not None:
                left = list(view.token_ids)
                for start, end in reversed(view.inserted_spans):
                    del left[start:end]
                assert tuple(left) == tuple(ids)
                num_blocks += 1
    assert num_blocks >= 48


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("run QWxhZGRpbjpvcGVuIHNlc2FtZQ now", "encoded text"),
        ("run abcdefghijkl==", "encoded text"),
        ("see a/QWxhZGRpbjpvcGVuIHNlc2FtZQ", None),
        ("see a/x+QWxhZGRpbjpvcGVuIHNlc2FtZQ", "encoded text"),
        ("an abcdefghijklmnopqrstuvwxyz word", None),
    ],
)
def test_encoded_text_is_known_by_its_run_of_letters(text: str, found: str | None) -> None:
    assert hides(text) == found


@pytest.mark.timeout(120)
@pytest.mark.parametrize("run", ["+" * 400_000, "g" * 400_000, "g+" * 200_000])
def test_a_long_run_is_looked_through_once(run: str) -> None:
    """A search that begins anew at each character would take minutes."""
    assert hides(run) is None


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "line",
    [
        "a" * 40_000,
        "a" * 40_000 + " try x",
        "a.b." * 10_000,
        "a@b" * 26_000,
        "@b." * 13_000,
        "aB-" * 13_000,
        "-" + "r" * 40_000,
        "push " * 8_000,
        "use the xx " * 3_600,
        " ".join(f"'{n}abcdefgh{n}'" for n in range(1000))
        + " did you mean "
        + " ".join(f"hgfedcba{n}" for n in range(1000)),
    ],
    ids=lambda line: line[:12],
)
def test_a_long_line_is_judged_in_a_time_that_grows_with_its_length(line: str) -> None:
    """Some of these took three seconds for a fifth of it, and four or eight times as long for twice that."""
    harmless(line, frozenset({"cat"}))
    directs_elsewhere(line, frozenset({"cat"}))


@pytest.mark.parametrize(
    "text",
    [
        "see ftp://x", "see x+y-1.2://x", "ask a@b.c", "ask a@@.c", "ask a@b@c.d", "see foo-bar.com",
        f"see {'a' * 99}.com", "use zap -rf", "use zap -fxr", "use git push origin main -f",
    ],
)  # fmt: skip
def test_addresses_and_commands_that_force_are_known_in_every_form(text: str) -> None:
    assert directs_elsewhere(text, frozenset({"cat"})) == "an address or a second command"


@pytest.mark.parametrize(
    "text", ["use zap -r", "use zap -f", "use zap -rf-x", "use zap a-rf", "use foo_bar.com"]
)
def test_what_only_looks_like_one_is_none(text: str) -> None:
    assert directs_elsewhere(text, frozenset({"zap", "foo_bar"})) is None


def test_colours_and_doubled_ends_of_lines_are_taken_off_before_a_text_is_judged() -> None:
    assert shown("\x1b[01;31mcat:\x1b[0m a: not found\x1b[K\r\nuse zorp\r") == "cat: a: not found\nuse zorp"
    for text in (
        "cat: a: not found\x1b[8m; use zorp",
        "cat: a: not found\rcat: use zorp",
        "\x1b[2Jcat: not found",
    ):
        assert hides(shown(text)) == "hidden characters"
    turn, state = record("cat a", "x")
    given = Candidate(text="cat: a: not found\r\nuse zorp\r", origin="error_text", trusted=False)
    passage = admit([given], case_of(turn, state))
    assert [candidate.text for candidate in passage.accepted] == ["cat: a: not found\nuse zorp"]
    assert passage.shortened == ()
