"""How samples are collected and edited: rollout and transform."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from agentrl.recipes.axes.base import BY_NAME, NAMED, Option

# 1 rollout


class RolloutOption(Option):
    """What every rollout says of itself."""

    @property
    def beside(self) -> float:
        """Share of each step's samples that comes from elsewhere than the claimed turns."""
        return 0.0


class Rehearsing(RolloutOption):
    """A rollout beside which version 0's own good answers may be rehearsed."""

    rehearsal: float = Field(default=0.0, ge=0, lt=1)
    """Share of each step's samples that are rewarded answers of version 0, from this run's own log. They take no loss
    but that of a regulariser which asks for them. DPH-RL."""

    @property
    def beside(self) -> float:
        return self.rehearsal


class Stream(Rehearsing):
    """Every turn of live traffic is a sample of its own."""

    name: Literal["stream"] = "stream"


class Student(Rehearsing):
    """Groups of `group_size` turns sampled by the policy for one task key."""

    name: Literal["student"] = "student"
    group_size: int = Field(default=8, ge=1)
    group_timeout_s: float = Field(default=600.0, gt=0)
    """How long an incomplete group waits for its other turns before it is rejected."""


class Replay(RolloutOption):
    """Live traffic, and beside it the policy's own earlier successes: rewarded answers that were trained before, or
    that expired. They keep the log-probs of the version that sampled them. ReMix, arXiv 2507.06892."""

    name: Literal["replay"] = "replay"
    share: float = Field(default=0.25, gt=0, lt=1)
    """Part of each step's samples."""
    max_lag: int = Field(default=16, ge=1)
    """Most versions between the one that sampled a replayed answer and the newest; older ones are never replayed."""

    @property
    def beside(self) -> float:
        return self.share


class Offline(RolloutOption):
    """Answers that somebody else gave, from a file (`agentrl.learner.offline`); the rest of a step is live traffic."""

    name: Literal["offline"] = "offline"
    path: str = ""
    """A JSONL file of {"messages", "tools", "reply", "reward"} or {"messages", "tools", "chosen", "rejected"}."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Part of each step's samples; 1 learns from the file alone, step after step, until it has been read."""
    epochs: int = Field(default=1, ge=0)
    """How often the file is read; 0 = without end."""

    @property
    def beside(self) -> float:
        return self.share


class Mixed(RolloutOption):
    """The policy's own answers for the part `p` of each step's samples, the answers of a file for the rest. GKD,
    arXiv 2306.13649."""

    name: Literal["mixed"] = "mixed"
    path: str = ""
    """As of `offline`; read without end."""
    p: float = Field(default=0.5, gt=0, lt=1)

    @property
    def beside(self) -> float:
        return 1.0 - self.p


Rollout = Annotated[Annotated[Stream | Student | Replay | Offline | Mixed, BY_NAME], NAMED]


# 2 transform: what is made of the claimed turns before they are trained


class TransformOption(Option):
    """What every transform says of itself."""

    generates: ClassVar[bool] = False
    """Whether it samples: the learner then holds a second generation stage."""
    shows_context: ClassVar[bool] = False
    """Whether it samples behind the recipe's context, so that log-probs recorded with an answer are of that prompt."""
    keeps_logprobs: ClassVar[bool] = True
    """Whether every trained id has the log-prob of whoever sampled it (law 1)."""

    @property
    def needs_stage(self) -> bool:
        """Whether it works on ids: a learner must have been given the second generation stage."""
        return self.generates or not self.keeps_logprobs

    @property
    def verifies(self) -> bool:
        """Whether it cannot work without somebody who rewards a new answer."""
        return False


class NoTransform(TransformOption):
    """Records are trained as sampled."""

    name: Literal["none"] = "none"


class DropConstant(TransformOption):
    """Groups whose rewards are all equal are dropped: they have no advantage. DAPO, arXiv 2503.14476."""

    name: Literal["drop_constant"] = "drop_constant"


class SubsetMaxVar(TransformOption):
    """Of each group the `keep` attempts whose rewards vary most; the others are dropped. D3S.

    Advantages are then those of the kept ones among each other.
    """

    name: Literal["subset_max_var"] = "subset_max_var"
    keep: int = Field(default=4, ge=2)


class Retry(TransformOption):
    """The turn is answered once more behind its context; that answer is trained on the plain prompt."""

    generates: ClassVar[bool] = True
    shows_context: ClassVar[bool] = True

    name: Literal["retry"] = "retry"
    by: Literal["policy", "teacher"] = "policy"
    temperature: float = Field(default=1.0, ge=0)
    max_tokens: int = Field(default=1024, ge=1)


class Rewrite(TransformOption):
    """The teacher writes the answer anew, having seen it and whatever else the context shows. TRD, arXiv 2606.08432."""

    generates: ClassVar[bool] = True
    shows_context: ClassVar[bool] = True

    name: Literal["rewrite"] = "rewrite"
    verify: bool = False
    """Only rewrites that are found right are trained."""
    temperature: float = Field(default=1.0, ge=0)
    max_tokens: int = Field(default=1024, ge=1)

    @property
    def verifies(self) -> bool:
        return self.verify


class NextAnswer(TransformOption):
    """Beside a turn that was told what to do instead, the answer that its conversation got then is learned on the
    turn's own prompt, as the teacher judges it with the hint in view. Nothing is sampled for it.

    An unknown name is otherwise learned id by id: what follows the first new one the policy has to come upon itself,
    and answers with half a name until then."""

    shows_context: ClassVar[bool] = True

    name: Literal["next_answer"] = "next_answer"


class SecondTurn(TransformOption):
    """The policy answers once more after a critique of its first answer. RLTF, arXiv 2602.02482.

    Both turns are rewarded on the prompts that they were sampled on, the first with `discount` times the second's
    reward added; and, as the distillation part, `learn` is learnt without the critique.
    """

    generates: ClassVar[bool] = True
    keeps_logprobs: ClassVar[bool] = False

    name: Literal["second_turn"] = "second_turn"
    critique: Literal["hint", "next_state"] = "hint"
    """Of a signal, as a user's message; or the messages that did follow."""
    learn: Literal["answer", "critique"] = "answer"
    """answer: the second one on the first prompt, with advantage R(y1) − mean R(y0); critique: its words."""
    discount: float = Field(default=0.1, ge=0, le=1)
    temperature: float = Field(default=1.0, ge=0)
    max_tokens: int = Field(default=1024, ge=1)

    @property
    def verifies(self) -> bool:
        return True


class ConfidenceRewrite(TransformOption):
    """The confidence that an answer states becomes the share of its group that was right. CaOPD, arXiv 2604.16830."""

    keeps_logprobs: ClassVar[bool] = False

    name: Literal["confidence_rewrite"] = "confidence_rewrite"
    threshold: float = 0.5
    """Right from this reward on."""


class Replace(TransformOption):
    """Up to `k` of a group's worst attempts give way to answers from elsewhere, which the group's advantages count in.

    KEPO, arXiv 2602.00400; HeRL; AMPO, arXiv 2510.02227; R3, arXiv 2601.19620.
    """

    generates: ClassVar[bool] = True
    shows_context: ClassVar[bool] = True

    name: Literal["replace"] = "replace"
    k: int = Field(default=1, ge=1)
    source: Literal["retry", "rewrite", "teacher_trace", "replay"] = "retry"
    """retry: tried again behind the context until right; rewrite: the policy's best answer behind the context;
    teacher_trace: read from a file; replay: what once was right on the same prompt."""
    when: Literal["all_fail", "better", "constant_group"] = "all_fail"
    """all_fail: nothing in the group is right; better: the new answer is at least as good as the best one;
    constant_group: all rewards are equal and the new one is higher."""
    threshold: float = 0.5
    """Right from this reward on."""
    tries: int = Field(default=5, ge=1)
    """Of each retry."""
    bonus: float = Field(default=0.0, ge=0)
    """An attempt whose rewrite was better gets this share of the difference beside its own reward."""
    temperature: float = Field(default=1.0, ge=0)
    max_tokens: int = Field(default=1024, ge=1)
    path: str = ""
    """The file of a teacher's answers (`agentrl.learner.traces`)."""

    @property
    def verifies(self) -> bool:
        return self.source in ("retry", "rewrite")

    @model_validator(mode="after")
    def _settings_belong_to_their_source(self) -> Self:
        if self.bonus and self.source != "rewrite":
            raise ValueError(
                "bonus compares an attempt with its rewrite: set it with source = 'rewrite' only"
            )
        if self.path and self.source != "teacher_trace":
            raise ValueError("path names a teacher's answers: set it with source = 'teacher_trace' only")
        return self


Transform = Annotated[
    Annotated[
        NoTransform
        | DropConstant
        | SubsetMaxVar
        | Retry
        | Rewrite
        | NextAnswer
        | SecondTurn
        | ConfidenceRewrite
        | Replace,
        BY_NAME,
    ],
    NAMED,
]
