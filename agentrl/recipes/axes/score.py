"""What the teacher sees, whose weights it has, and what is made of its distribution: context, teacher, sync, target."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from agentrl.recipes.axes.base import BY_NAME, NAMED, Option, Position, listed

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
    standing: int = Field(default=0, ge=0)
    """How many of the newest corrections by users in the turn's scope are shown beside its hint, whatever they were
    about, and to turns without a hint; for habits of one user that are to be kept while others are taught."""
    practised: int = Field(default=0, ge=0, le=64)
    """How many requests each step makes up, like those that its turns' conversations began with but with other numbers,
    where the first answer was corrected. The policy answers them, and its answers are distilled with the standing
    corrections in the teacher's view: a wish is kept after fewer corrections. They stand in no count of turns. Needs
    `standing`, live turns, and distillation alone. Requests without a number, or longer than 1,024 ids with the system
    message and the tools, are not varied; of an answer the first 96 ids are distilled."""
    choose: Literal["trusted", "lift", "overlap"] = "trusted"
    """Of several hints of one turn. trusted: that of the most trusted source. lift: the one that moves the teacher most
    from the original to the corrected action, and none where none does; where no corrected one is known, as overlap.
    overlap: the one with which the teacher's likeliest ids are most of all the policy's own, measured where there are
    several. What the gates let pass beside the turn's hint is measured too, the preferred answer, and what like
    requests brought."""
    may_hold_answer: bool = True
    """Whether a hint may hold the literal text that a signal would have preferred."""


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


class SiblingSuccess(Option):
    """What another attempt of the same group said and did that succeeded; never the attempt's own. SDPO, 2601.20802."""

    name: Literal["sibling_success"] = "sibling_success"
    position: Position = "last_user"
    threshold: float = 0.5
    """An attempt has succeeded from this reward on."""
    max_chars: int = Field(default=20_000, ge=1)
    """A longer attempt is passed over: half a demonstration would teach to stop halfway."""


class Demo(Option):
    """An example of a good answer, as which the preferred text is shown: to be followed, not to be repeated. SDFT,
    arXiv 2601.19897."""

    name: Literal["demo"] = "demo"
    position: Position = "last_user"


class ExpertTrace(Option):
    """How an expert went about it: the preferred text as a list of calls in JSON. pi-Distill, arXiv 2602.04942."""

    name: Literal["expert_trace"] = "expert_trace"
    position: Position = "last_user"
    view: Literal["full", "calls", "names"] = "full"
    """full: the trace as it was given; calls: its calls with their arguments; names: its calls without them."""


class OwnAttempt(Option):
    """The policy's own answer to this turn, for a teacher that is to do better. TRD, arXiv 2606.08432."""

    name: Literal["own_attempt"] = "own_attempt"
    position: Position = "last_user"


class UnmetRubrics(Option):
    """What signals found missing in this turn. HeRL."""

    name: Literal["unmet_rubrics"] = "unmet_rubrics"
    position: Position = "tail"
    threshold: float = 0.5
    """A signal with a lower reward says what was missing."""
    max_chars: int = Field(default=2000, ge=1)
    """Longer findings keep their end."""


Shown = (
    Solution
    | HindsightHint
    | SkillContext
    | EnvFeedback
    | SiblingSuccess
    | Demo
    | ExpertTrace
    | OwnAttempt
    | UnmetRubrics
)
OneContext = NoContext | Shown


class SeveralContexts(Option):
    """The blocks of several contexts; a list in a recipe. `context = ["own_attempt", "solution"]`"""

    name: Literal["several"] = "several"
    contexts: tuple[Annotated[Annotated[Shown, BY_NAME], NAMED], ...] = Field(min_length=2)
    only_first: bool = False
    """Those of the first context that has any, instead of all."""

    @property
    def parts(self) -> tuple[Option, ...]:
        return self.contexts


Context = Annotated[
    Annotated[OneContext | SeveralContexts, BY_NAME],
    listed("several", "contexts"),
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
    path: str = ""
    """Folder of a Hugging Face model with its tokenizer. A preset has none: `--set learn.overrides.teacher.path=...`"""


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


class TemperEntropy(Option):
    """softmax(log q / T), T = 1 + gain·H(q)/ln V: softer where the teacher is unsure. CurioSFT, arXiv 2602.02244."""

    name: Literal["temper_entropy"] = "temper_entropy"
    gain: float = Field(default=1.0, gt=0)


class Geo(Option):
    """∝ π_0^(1−a)·q^a, π_0 version 0 on the plain prompt: a trust region around it. SDPO, arXiv 2601.20802."""

    name: Literal["geo"] = "geo"
    a: float = Field(default=0.5, ge=0, le=1)


class Lerp(Option):
    """softmax((1−t)·z_π + t·z_q): from the policy as it is to the teacher, by a schedule. TAID, arXiv 2501.16937."""

    name: Literal["lerp"] = "lerp"
    t: float = Field(default=0.4, ge=0, le=1)


class Veto(Option):
    """∝ q·π^beta: the teacher, but not where the policy would never go."""

    name: Literal["veto"] = "veto"
    beta: float = Field(default=0.5, ge=0)


Target = Annotated[
    Annotated[TeacherTarget | Temper | TemperEntropy | Extrap | Geo | Lerp | Veto, BY_NAME], NAMED
]
