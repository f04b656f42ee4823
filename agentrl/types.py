"""The records that cross every boundary. Plain data: no behaviour beyond what keeps a record well formed.

Lengths in the field notes: P = prompt ids, T = sampled ids of one turn, L = ids of one training sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

JSON = dict[str, Any]


class TurnKind(StrEnum):
    """Whether a turn belongs to the agent's task or is a side request (a title, a summary)."""

    MAIN = "main"
    SIDE = "side"


class Purpose(StrEnum):
    """What a turn may be used for. Only `train` turns are ever claimed, judged into hints or summarised."""

    TRAIN = "train"
    EVAL = "eval"
    OFF = "off"


class Arm(StrEnum):
    """Control conversations stay on the base version and never train."""

    LEARNING = "learning"
    CONTROL = "control"


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    ABORT = "abort"


class End(StrEnum):
    """How a turn's story ended when no ordinary next state came."""

    REGENERATED = "regenerated"
    EDITED = "edited"
    RETRIED = "retried"
    NOT_CHOSEN = "not_chosen"
    CLIENT_GONE = "client_gone"
    ABANDONED = "abandoned"
    CLOSED = "closed"


class MatchedBy(StrEnum):
    """How the request that follows a turn was recognised (design, section 6)."""

    TOOL_CALL_ID = "tool_call_id"
    HISTORY = "history"
    LAST_REPLY = "last_reply"
    AMBIGUOUS = "ambiguous"
    NONE = "none"


class SignalSource(StrEnum):
    RULE = "rule"
    JUDGE = "judge"
    ENVIRONMENT = "environment"
    USER = "user"


class VersionState(StrEnum):
    CANDIDATE = "candidate"
    SERVING = "serving"
    RETIRED = "retired"
    REJECTED = "rejected"


class LessonState(StrEnum):
    PROPOSED = "proposed"
    APPROVED = "approved"
    REJECTED = "rejected"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSpan:
    """Sampled ids [start, end) came from policy version `version`. The spans of a completion tile [0, T)."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What the engine sampled, exactly.

    Raises ValueError when a stream's length is not T (law 1): both lengths are in the message.
    """

    token_ids: tuple[int, ...]
    """[T] sampled ids, the stop id included when one was sampled."""
    logprobs: tuple[float, ...]
    """[T] log-probability of each id under the distribution sampled from, after temperature and filters."""
    raw_logprobs: tuple[float, ...] | None
    """[T] log-probability at temperature 1 without filters; None where the engine cannot give both."""
    num_allowed: tuple[int, ...] | None
    """[T] size of the support sampled from; 1 marks a forced token. None where the engine cannot say."""
    finish_reason: FinishReason
    version_spans: tuple[VersionSpan, ...]
    """Normally one span; more only where the request was moved between versions."""

    def __post_init__(self) -> None:
        length = len(self.token_ids)
        for name in ("logprobs", "raw_logprobs", "num_allowed"):
            stream = getattr(self, name)
            if stream is not None and len(stream) != length:
                raise ValueError(f"{name} has {len(stream)} entries for {length} sampled ids")
        covered = 0
        for span in self.version_spans:
            if span.start != covered or span.end <= span.start:
                raise ValueError(f"version span [{span.start}, {span.end}) does not follow id {covered}")
            covered = span.end
        if covered != length:
            raise ValueError(f"version spans cover {covered} of {length} sampled ids")

    @property
    def version(self) -> int:
        """The version that began the completion; -1 when nothing was sampled."""
        return self.version_spans[0].version if self.version_spans else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactedSpan:
    """Characters [start, end) at `path` (for example "messages.3.content") were replaced before storing."""

    path: str
    start: int
    end: int
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One parsed call. `id` is minted by the gateway (alphanumeric); `arguments` is the sampled JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A completion as parsed: what the client is told."""

    text: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample. Names follow OpenAI's request fields."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 = no limit."""
    max_tokens: int = 1024
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """Stop strings; the engine ends after the id that completes one."""
    stop_token_ids: tuple[int, ...] = ()
    top_logprobs: int = 0
    """Number of alternatives to report for each position, 0..20."""
    grammar: str | None = None
    """What the reply must follow: a JSON schema as text, or "regex:" and an expression; None = free."""
    grammar_after: int | None = None
    """The id behind which the grammar begins, where the prompt leaves reasoning open; None = with the first id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One sampled choice."""

    id: str
    request_id: str
    """n choices of one request are n turns."""
    session: str
    scope: str
    """The API key's scope. Nothing crosses scopes."""
    parent: str | None
    """The turn that this request's history answers; None at the start of a conversation."""
    matched_by: MatchedBy
    kind: TurnKind
    kind_reason: str
    purpose: Purpose
    arm: Arm
    task_key: str
    """The environment's, else a hash of the normalised first user message."""
    messages: tuple[JSON, ...]
    """The conversation as received, redacted."""
    tools: tuple[JSON, ...]
    prompt_ids: tuple[int, ...]
    """[P] the ids that the engine was given."""
    prompt_built_by: str
    """'extended' (the parent's ids verbatim plus the tail) or 'rendered: REASON'."""
    completion: Completion
    reply: Reply
    sampling: Sampling
    policy: str
    """The line of versions: "default", "user:x"."""
    block_spans: tuple[tuple[int, int], ...] = ()
    """Ids [start, end) of the prompt that hold an operator's hint or skill (law 5); normally empty."""
    shown_lessons: tuple[str, ...] = ()
    """The lessons that stand there, in their order."""
    received_at: float = 0.0
    """Unix seconds."""
    first_token_s: float | None = None
    """Seconds from receipt to the first sampled id."""
    latency_s: float = 0.0
    """Seconds from receipt to the commit of the turn."""
    client: str = ""
    """The client's User-Agent."""
    redacted_spans: tuple[RedactedSpan, ...] = ()
    error: str | None = None
    """The typed error that ended the turn, as 'ErrorName: sentence'; None when it ended well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextState:
    """What followed a turn: the messages up to the next assistant turn, or a typed end."""

    turn_id: str
    messages: tuple[JSON, ...] = ()
    matched_by: MatchedBy = MatchedBy.NONE
    end: End | None = None
    answered_by: str | None = None
    """Request id of the request that brought it."""
    received_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One judgement of one turn. `reward` None means not judged; 0.0 means judged neutral (law 6)."""

    turn_id: str
    source: SignalSource
    reward: float | None = None
    hint: str | None = None
    offered: str | None = None
    """A hint that passed the gates beside the turn's own: no lesson and no vote. It is shown in the place of that one
    where a recipe measures hints and finds it more useful."""
    preferred: str | None = None
    """The answer that the user would rather have had."""
    votes: tuple[float, ...] = ()
    evidence: str = ""
    """The text the judgement rests on, redacted, at most 2,000 characters."""
    created_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    name: str
    description: str
    body: str
    turn_ids: tuple[str, ...] = ()
    version: int | None = None
    num_selected: int = 0
    mean_reward: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """An accepted hint or skill as users see it."""

    id: str
    text: str
    state: LessonState
    turn_ids: tuple[str, ...]
    """The turns that it came from, oldest first; none for a lesson from elsewhere."""
    scope: str = "default"
    origin: Literal["hint", "import", "skill"] = "hint"
    source: str = ""
    """Where an imported one stood: line and file."""
    form: str = ""
    """The text without what differs from turn to turn; equal forms of a scope are one lesson."""
    situation: tuple[str, ...] = ()
    """Words of the request that it was learned from, sorted."""
    probe: JSON | None = None
    """A situation: {"turn_id": ID} or {"messages": [...], "tools": [...]}, "held_out", and what the text "names"."""
    reason: str = ""
    """Why it is in its state, where somebody said so."""
    created_at: float = 0.0
    held_by: tuple[int, ...] = ()
    """Served versions that do what the lesson says in the probe's situation without having it in view; ascending."""
    broken_by: tuple[int, ...] = ()
    """Served versions that failed the probe by far after an earlier one had not, ascending."""
    without_effect: tuple[int, ...] = ()
    """Served versions that passed as version 0 does without the lesson: there was nothing to learn; ascending."""
    is_apart: bool = False
    """Whether the newest of them was asked in a situation that nothing is trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A privileged text to insert for the teacher. `position` is "system", "last_user" or "tail"."""

    position: str
    text: str
    origin: str = field(default="", compare=False)
    """For people: what the text is and whose, where that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherView:
    """The teacher's ids of one sample and where the sample's own positions stand in them."""

    token_ids: tuple[int, ...]
    """[L + inserted] the served ids with rendered blocks inserted."""
    inserted_spans: tuple[tuple[int, int], ...]
    """[start, end) in `token_ids`; deleting them gives the sample's ids exactly."""
    blocks: tuple[Block, ...] = ()
    """What stands in those spans, in their order; for people."""


SampleSource = Literal[
    "sampled", "rewrite", "retry", "next_answer", "second_turn", "teacher", "replay", "offline", "rehearsal",
    "correction", "held", "practice",
]  # fmt: skip
"""sampled: by the policy, as served. rewrite: an answer that the teacher edited. retry: sampled again behind a hint.
next_answer: what the conversation got once it had been told what to do, scored without that.
second_turn: the answer to a critique, trained without it. teacher: sampled by the teacher. replay: sampled by an older
version on purpose. offline: read from a file. rehearsal: version 0's own good answers, kept against forgetting.
correction: the text that a signal would have preferred. held: sampled, and right without a context to learn from: kept
against forgetting as far as the teacher would have said the same. practice: sampled by the policy on a request that the
learner made up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSample:
    """One turn as the trainer sees it. Every stream is aligned with `token_ids` and has L entries."""

    turn_ids: tuple[str, ...]
    token_ids: tuple[int, ...]
    """[L] prompt and sampled ids."""
    loss_mask: tuple[bool, ...]
    """[L] True on sampled ids that may be trained."""
    behavior_logprobs: tuple[float, ...] | None
    """[L] raw log-probs of the sampler, 0.0 on ids that were not sampled; None where not available."""
    num_allowed: tuple[int, ...] | None
    """[L] support sizes, 0 on ids that were not sampled."""
    teacher: TeacherView | None
    advantages: tuple[float, ...] | None
    """[L] 0.0 outside the mask; None when the recipe has no reward."""
    weights: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Per-token weight streams by loss component; an absent stream means 1.0."""
    group: str | None = None
    version: int = -1
    """Policy version that sampled the turn."""
    reward: float | None = None
    source: SampleSource = "sampled"
    """How the trained ids came to be; "sampled" by the policy on the plain prompt, as served."""
    pair: str | None = None
    """Both answers of a preference pair share it."""
    preferred: bool = False
    """Of a pair, the answer that is to be preferred."""
    episode: str | None = None
    """Samples of one episode share it, and their reward: where whole answers of a group are compared they count once,
    however many turns the episode took. None = an episode of its own."""
    turn_index: int = 0
    """Turns of the episode before this one."""
    made_for: str | None = None
    """Of an answer to a request that the learner made up, the turn whose hints are practised: it weighs as that one."""

    def __post_init__(self) -> None:
        length = len(self.token_ids)
        streams = {"loss_mask": self.loss_mask, "behavior_logprobs": self.behavior_logprobs}
        streams |= {"num_allowed": self.num_allowed, "advantages": self.advantages}
        for name, stream in (streams | self.weights).items():
            if stream is not None and len(stream) != length:
                raise ValueError(f"{name} has {len(stream)} entries for {length} ids")


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFile:
    """One file of a version; `path` is relative to the version's folder."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    policy: str
    number: int
    parent: int | None
    state: VersionState
    path: str
    """Folder of the version, relative to the run folder."""
    files: tuple[VersionFile, ...] = ()
    step_ids: tuple[int, ...] = ()
    """The learner's steps that this version holds beyond its parent; their turns are in learning.db."""
    metrics: JSON = field(default_factory=dict)
    created_at: float = 0.0
    served_at: float | None = None
