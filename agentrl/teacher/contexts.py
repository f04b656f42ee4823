"""Records to privileged contexts: which text the teacher sees beyond the served prompt, and where it stands.

Pure functions of one answered turn, its signals and the episodes of its group; an empty list means that this turn has
no such context. The ids of a block are made by the renderer (`Renderer.insert`), never here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from agentrl.teacher.demonstrations import Sibling, calls_of, said
from agentrl.teacher.recall import HintMemory, Recalled
from agentrl.text.action_words import action_words
from agentrl.text.content import message_text
from agentrl.text.injection import harmless
from agentrl.text.observations import as_heard
from agentrl.text.quoting import JUDGE, TOOL, quoted
from agentrl.types import JSON, Block, NextState, Signal, SignalSource, Skill, Turn

PREFERENCE: Final = (SignalSource.USER, SignalSource.ENVIRONMENT, SignalSource.JUDGE, SignalSource.RULE)
"""Whose word counts most when several signals of a turn carry a text."""
MAX_LOOKED_AT: Final = 8000
"""Characters at the end of a text that lines are taken from."""
_TASK = re.compile(r"^[-*] \[[ xX]\]")


class Record(Protocol):
    """An answered turn; `agentrl.store.learning_log.Claimed` is one."""

    @property
    def turn(self) -> Turn: ...
    @property
    def next_state(self) -> NextState | None: ...
    @property
    def signals(self) -> Sequence[Signal]: ...


class Named(Protocol):
    """The context axis of a recipe: a registered name and the keyword arguments of its function."""

    @property
    def name(self) -> str: ...
    @property
    def params(self) -> dict[str, Any]: ...
    @property
    def parts(self) -> Sequence[Named]:
        """The contexts that it is made of; itself where it is one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Beyond:
    """What is known beyond the record itself."""

    skills: Sequence[Skill] = ()
    hint: str | None = None
    siblings: Sequence[Sibling] = ()
    standing: Sequence[str] = ()


class SkillSource(Protocol):
    """Where a learner gets the skills of a turn's task; the composition root fills it in."""

    def heed(
        self,
        is_doubted: Callable[[str], bool],
        listened: Callable[[Turn, Sequence[Signal]], Sequence[Signal]],
    ) -> None:
        """Shows from now on no skill that only turns stand behind of which `is_doubted` says so, by id; and of what is
        said of a turn only what `listened` leaves counts."""
        ...

    def begin(self) -> None:
        """The building of a step begins: until the next, a task keeps the skill that it gets."""
        ...

    def skills(self, turn: Turn) -> Sequence[Skill]:
        """The skills chosen for this turn, best first; none when the library has nothing for it."""
        ...


def blocks(
    context: Named,
    record: Record,
    skills: Sequence[Skill] = (),
    hint: str | None = None,
    siblings: Sequence[Sibling] = (),
    standing: Sequence[str] = (),
) -> list[Block]:
    """The privileged blocks of one turn.

    Args:
        context: a recipe's context axis.
        record: the turn and what is known about it.
        skills: what a SkillSource chose for the turn; only the context "skill" reads it.
        hint: from `chosen_hint`; only the context "hindsight_hint" reads it.
        siblings: from `siblings_of`; only the context "sibling_success" reads them.
        standing: from `standing_hints`; only the context "hindsight_hint" reads them.
    """
    beyond = Beyond(skills=skills, hint=hint, siblings=siblings, standing=standing)
    return CONTEXTS[context.name](record, beyond, **context.params)


def chosen_hint(
    context: Named, record: Record, memory: HintMemory | None, *, has_failed: bool
) -> Recalled | None:
    """The hint that the teacher is shown and the turn it comes from: the record's own, or what most of the earlier
    requests like it brought.

    Args:
        context: its `recall` is the least likeness of such requests; 0 asks the record alone.
        memory: None asks the record alone as well.
        has_failed: whether the record's episode is known to have failed: its own hint did not help then. The word of
            a user or an environment on this very turn stands all the same and is never outvoted.
    """
    own = hint_of(record.signals)
    likeness = similarity(context)
    trusted = (SignalSource.USER, SignalSource.ENVIRONMENT)
    is_trusted = any(signal.hint and signal.source in trusted for signal in record.signals)
    if not likeness or memory is None or is_trusted:
        return None if own is None else Recalled(hint=own, turn_id=record.turn.id)
    return memory.recall(record.turn, None if has_failed else own, likeness)


def standing_hints(
    context: Named, record: Record, memory: HintMemory | None, hint: Recalled | None
) -> list[Recalled]:
    """What the teacher is shown beside a turn's hint: rules, and as many of the users' words from before as the context
    asks for; nothing where it shows no hints.

    Args:
        hint: from `chosen_hint`.
    """
    if memory is None or not any("standing" in part.params for part in context.parts):
        return []
    return memory.standing(record.turn, None if hint is None else hint.hint, num_standing(context))


def num_standing(context: Named) -> int:
    """How many of the users' words from before a context shows, at most."""
    return max(int(part.params.get("standing", 0)) for part in context.parts)


def num_practised(context: Named) -> int:
    """How many requests each step makes up to practise those on."""
    return max(int(part.params.get("practised", 0)) for part in context.parts)


def similarity(context: Named) -> float:
    """Least likeness of requests whose hints a context recalls; 0 where it recalls none."""
    return max(float(part.params.get("recall", 0.0)) for part in context.parts)


def hint_of(signals: Sequence[Signal]) -> str | None:
    """The hint of the most trusted source that gave one."""
    return _chosen(signals, lambda signal: signal.hint)


def preferred_of(signals: Sequence[Signal]) -> str | None:
    """The answer that the most trusted source would rather have had."""
    return _chosen(signals, lambda signal: signal.preferred)


def none(record: Record, beyond: Beyond) -> list[Block]:
    """No block: the teacher reads the served prompt."""
    del record, beyond
    return []


def solution(record: Record, beyond: Beyond, *, position: str) -> list[Block]:
    """`Reference solution: TEXT`, the answer that a signal would have preferred. OPSD, arXiv 2601.18734."""
    del beyond
    text = preferred_of(record.signals)
    if text is None:
        return []
    return [Block(position=position, text=f"Reference solution: {text}", origin="preferred answer")]


def hindsight_hint(
    record: Record,
    beyond: Beyond,
    *,
    position: str,
    recall: float,
    standing: int = 0,
    practised: int = 0,
    choose: str = "trusted",
    may_hold_answer: bool = True,
) -> list[Block]:
    """`Hint: TEXT`, what somebody who had seen the next state would have said. OpenClaw-RL, arXiv 2603.10165.

    Which hint that is says `chosen_hint`; what it chooses from was sifted by whoever can measure. Standing hints are
    blocks before it.
    """
    del standing, practised, choose, may_hold_answer
    own = beyond.hint if recall > 0 else hint_of(record.signals)
    texts = [*beyond.standing, *([] if own is None else [own])]
    return [hint_block(text, position) for text in texts]


def hint_block(text: str, position: str) -> Block:
    """`Hint: TEXT`."""
    return Block(position=position, text=f"Hint: {text}", origin="hint")


def skill(record: Record, beyond: Beyond, *, position: str) -> list[Block]:
    """`Skill: NAME`, a line break and the body, one block a skill in the order given. Skill-SD, arXiv 2604.10674."""
    del record
    return [skill_block(item.name, item.body, position) for item in beyond.skills]


def skill_block(name: str, body: str, position: str) -> Block:
    """`Skill: NAME`, a line break and the body."""
    return Block(position=position, text=f"Skill: {name}\n{body.strip()}", origin=f"skill {name}")


def env_feedback(record: Record, beyond: Beyond, *, position: str, max_chars: int) -> list[Block]:
    """`Feedback: TEXT`, what tools or the user answered to this turn. SDPO, arXiv 2601.20802.

    What a tool said is quoted, without the lines that direct elsewhere.
    """
    del beyond
    texts: list[str] = []
    left = max_chars
    # The end is kept: that is where shells and test runners put the error.
    turn, messages = _followed(record)
    for message in reversed(messages):
        said, is_tool = message_text(message), message.get("role") == "tool"
        text = _end(harmless(_last_lines(said), action_words(turn)) if is_tool else said, left)
        if text:
            texts.append(quoted(text, TOOL) if is_tool else text)
            left -= len(text)
    if not texts:
        return []
    feedback = "\n".join(reversed(texts))
    return [Block(position=position, text=f"Feedback: {feedback}", origin="what followed")]


def sibling_success(
    record: Record, beyond: Beyond, *, position: str, threshold: float, max_chars: int
) -> list[Block]:
    """`Correct solution: TEXT`, the best other episode of the group with reward ≥ threshold, of equals the first.

    SDPO, arXiv 2601.20802: an episode's own success is no demonstration for itself, since it would be copied.
    """
    best: Sibling | None = None
    for other in beyond.siblings:
        if other.session == record.turn.session or other.reward is None or not other.text:
            continue
        if (
            other.reward >= threshold
            and len(other.text) <= max_chars
            and (best is None or best.reward is None or other.reward > best.reward)
        ):
            best = other
    if best is None:
        return []
    text, origin = f"Correct solution: {best.text}", f"session {best.session}"
    return [Block(position=position, text=text, origin=origin)]


def demo(record: Record, beyond: Beyond, *, position: str) -> list[Block]:
    """`Example of a good answer: TEXT`, the preferred text as a demonstration. SDFT, arXiv 2601.19897."""
    del beyond
    text = preferred_of(record.signals)
    if text is None:
        return []
    shown = f"Example of a good answer, to be followed in your own words: {text}"
    return [Block(position=position, text=shown, origin="preferred answer")]


def expert_trace(record: Record, beyond: Beyond, *, position: str, view: str) -> list[Block]:
    """`Expert trace:` and the preferred text, or one line a call. pi-Distill, arXiv 2602.04942.

    The views "calls" and "names" need a trace in JSON: a list of {"name", "arguments"}, or of messages with
    `tool_calls`. Of any other text there is no such view, and no block.
    """
    del beyond
    text = preferred_of(record.signals)
    if text is not None and view != "full":
        calls = calls_of(text)
        text = "\n".join(name if view == "names" else f"{name}({arguments})" for name, arguments in calls)
    if not text:
        return []
    return [Block(position=position, text=f"Expert trace:\n{text}", origin="preferred answer")]


def own_attempt(record: Record, beyond: Beyond, *, position: str) -> list[Block]:
    """`Earlier attempt: TEXT`, what the policy answered at this turn, without its reasoning. TRD, arXiv 2606.08432."""
    del beyond
    text = said(record.turn)
    return [Block(position=position, text=f"Earlier attempt: {text}", origin="own attempt")] if text else []


def unmet_rubrics(
    record: Record, beyond: Beyond, *, position: str, threshold: float, max_chars: int
) -> list[Block]:
    """`Not met: TEXT`, the evidence of a signal whose reward is below the threshold. HeRL.

    Evidence that is a list of tasks (`- [ ] RUBRIC`, `- [x] RUBRIC`) is reduced to the open ones. Where it rests on
    what a tool said it is quoted, without the lines that direct elsewhere.
    """
    del beyond

    def text_of(signal: Signal) -> str:
        if not _rests_on_tools(record, signal):
            return _end(_unmet(signal.evidence), max_chars)
        text = _end(harmless(_unmet(_last_lines(signal.evidence)), action_words(record.turn)), max_chars)
        return quoted(text, JUDGE) if text else ""

    text = _chosen([s for s in record.signals if s.reward is not None and s.reward < threshold], text_of)
    return [] if text is None else [Block(position=position, text=f"Not met: {text}", origin="evidence")]


def several(record: Record, beyond: Beyond, *, contexts: Sequence[Named], only_first: bool) -> list[Block]:
    """The blocks of all contexts in their order, or of the first that has any."""
    found: list[Block] = []
    for context in contexts:
        found += CONTEXTS[context.name](record, beyond, **context.params)
        if found and only_first:
            break
    return found


CONTEXTS: dict[str, Callable[..., list[Block]]] = {
    "none": none,
    "solution": solution,
    "hindsight_hint": hindsight_hint,
    "skill": skill,
    "env_feedback": env_feedback,
    "sibling_success": sibling_success,
    "demo": demo,
    "expert_trace": expert_trace,
    "own_attempt": own_attempt,
    "unmet_rubrics": unmet_rubrics,
    "several": several,
}


def _followed(record: Record) -> tuple[Turn, Sequence[JSON]]:
    """The turn and the messages after it, as they are heard."""
    if record.next_state is None:
        return record.turn, ()
    turn, state = as_heard(record.turn, record.next_state)
    return turn, state.messages


def _rests_on_tools(record: Record, signal: Signal) -> bool:
    """Whether what a rule or a judge says of a turn may be a tool's words: one spoke, and no user said it."""
    if signal.source in (SignalSource.USER, SignalSource.ENVIRONMENT):
        return False
    _, messages = _followed(record)
    said = [message_text(message) for message in messages if message.get("role") == "user"]
    is_user = any(signal.evidence.strip() in text for text in said)
    return any(message.get("role") == "tool" for message in messages) and not is_user


def _last_lines(text: str) -> str:
    """The whole lines at the end of a text, as many as are looked at; of a longer line its end."""
    end = text[-MAX_LOOKED_AT:]
    return end if len(end) == len(text) else end.partition("\n")[2] or end


def _end(text: str, max_chars: int) -> str:
    return text.strip()[-max_chars:].strip() if max_chars > 0 else ""


def _unmet(evidence: str) -> str:
    """The open tasks of a task list; the evidence itself where it is none."""
    tasks = [line.strip() for line in evidence.splitlines() if _TASK.match(line.strip())]
    if not tasks:
        return evidence
    return "\n".join(_TASK.sub("", task).strip() for task in tasks if task[3] == " ")


def _chosen(signals: Sequence[Signal], text_of: Callable[[Signal], str | None]) -> str | None:
    """The text of the most trusted source; within a source the longest, and of equally long ones the first."""
    for source in PREFERENCE:
        texts = [(text_of(signal) or "").strip() for signal in signals if signal.source == source]
        longest = max(texts, key=len, default="")
        if longest:
            return longest
    return None
