"""What the teacher sees, whose weights it has, and what is made of its distribution: context, teacher, sync, target."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from agentrl.recipes.axes.base import BY_NAME, NAMED, Option, Position

# 3 context: what the teacher sees and the policy does not


class NoContext(Option):
    """The teacher reads the served prompt."""

    name: Literal["none"] = "none"


class Solution(Option):
    """The reference answer: the text that a signal says would have been preferred. OPSD, arXiv 2601.18734."""

    name: Literal["solution"] = "solution"
    position: Position = "last_user"


class HindsightHint(Option):
    """What somebody who had seen the next state would have said beforehand. OpenClaw-RL, arXiv 2603.10165."""

    name: Literal["hindsight_hint"] = "hindsight_hint"
    position: Position = "tail"
    recall: float = Field(default=0.0, ge=0, le=1)
    """0: the turn's own hint alone. Above: what earlier requests brought that share this part of their words."""


class SkillContext(Option):
    """Skills chosen from the library for this task. Skill-SD, arXiv 2604.10674."""

    name: Literal["skill"] = "skill"
    position: Position = "system"


class EnvFeedback(Option):
    """What the environment answered to this very turn. SDPO, arXiv 2601.20802."""

    name: Literal["env_feedback"] = "env_feedback"
    position: Position = "tail"
    max_chars: int = Field(default=2000, ge=1)
    """Longer feedback keeps its end, where shells and test runners put the error."""


Context = Annotated[
    Annotated[NoContext | Solution | HindsightHint | SkillContext | EnvFeedback, BY_NAME], NAMED
]


# 4 teacher


class NoTeacher(Option):
    """No teacher: reward alone."""

    name: Literal["none"] = "none"


class SelfTeacher(Option):
    """The policy's own weights, as the sync axis says, on the prompt with the privileged context."""

    name: Literal["self"] = "self"


class ExternalTeacher(Option):
    """Another model on the prompt with the privileged context; it must have the policy's vocabulary."""

    name: Literal["external"] = "external"
    path: str = Field(min_length=1)
    """Folder of a Hugging Face model with its tokenizer."""


class CachedTeacher(Option):
    """Log-probs of the sampled ids that a teacher gave beforehand; no other id has a score.

    Lightning OPD, arXiv 2604.13010, which holds only while scores and policy come from the same teacher.
    """

    name: Literal["cached"] = "cached"
    path: str = ""
    """The file of scores (`agentrl.learner.external_teacher.score_turns` writes it)."""
    model: str = ""
    """The teacher that must have given them: its folder, or its fingerprint, "sha256:..."."""


class JointTeacher(Option):
    """The weights that are being trained, with gradient: the loss reaches them through the teacher too.

    pi-Distill, arXiv 2602.04942.
    """

    name: Literal["joint"] = "joint"


Teacher = Annotated[
    Annotated[NoTeacher | SelfTeacher | ExternalTeacher | CachedTeacher | JointTeacher, BY_NAME], NAMED
]


# 5 sync: which weights the self-teacher has


class Fixed(Option):
    """The weights of one version, always."""

    name: Literal["fixed"] = "fixed"
    version: int = Field(default=0, ge=0)
    """Its number in the run's line; 0 = the model that the run began with."""


class Live(Option):
    """The weights that are being trained, at every step."""

    name: Literal["live"] = "live"


class CopyEvery(Option):
    """A copy of the policy, renewed after every `steps` optimiser steps."""

    name: Literal["copy_every"] = "copy_every"
    steps: int = Field(default=1, ge=1)


class Ema(Option):
    """θ̄ ← (1−rate)·θ̄ + rate·θ after every optimiser step; of an adapter, the product BA is averaged."""

    name: Literal["ema"] = "ema"
    rate: float = Field(default=0.05, ge=0, le=1)


class EmaFactors(Option):
    """The same of an adapter's A and B, each for itself: cheap, but (mean B)(mean A) is not the mean of BA."""

    name: Literal["ema_factors"] = "ema_factors"
    rate: float = Field(default=0.05, ge=0, le=1)


Sync = Annotated[Annotated[Fixed | Live | CopyEvery | Ema | EmaFactors, BY_NAME], NAMED]


# 6 target: the distribution that is learnt


class TeacherTarget(Option):
    """q itself."""

    name: Literal["q"] = "q"


class Temper(Option):
    """softmax(log q / temperature)."""

    name: Literal["temper"] = "temper"
    temperature: float = Field(default=1.0, gt=0)


class Extrap(Option):
    """∝ q^coef·π_0^(1−coef), π_0 version 0 on the plain prompt: what the context changed, made larger.

    ExOPD, arXiv 2602.12125, which finds 1.25 good and 1.5 unstable.
    """

    name: Literal["extrap"] = "extrap"
    coef: float = Field(default=1.25, ge=1, le=2)


Target = Annotated[Annotated[TeacherTarget | Temper | Extrap, BY_NAME], NAMED]
