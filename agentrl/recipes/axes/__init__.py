"""The fifteen axes of a recipe and the options of each, one file for each stage of the pipeline.

A learning method is one point in this space. An option here holds its name, its parameters and their ranges; the pure
function of the same name that does the work is registered where it runs, and a test holds both lists equal:

    rollout, transform           agentrl.learner              (how samples are collected and edited)
    context                      agentrl.teacher.contexts
    teacher, sync                agentrl.learner              (whose weights, and when they follow)
    target                       agentrl.losses.targets
    divergence                   agentrl.losses.divergence
    estimator                    agentrl.losses.estimators
    token_weight                 agentrl.losses.token_weights
    route                        agentrl.recipes.routes
    advantage                    agentrl.recipes.credit
    mix                          agentrl.losses.mix
    offpolicy                    agentrl.losses.policy_gradient
    regularisers                 agentrl.losses.objective
    aggregate                    agentrl.losses.masking

In a preset an option is its name, or a table where it has parameters: `divergence = "fkl"`,
`divergence = { name = "jsd", beta = 0.5 }`. An option that looks at the whole batch before any gradient is taken (a
rank over all tokens, a bound that depends on how many are clipped, a pair of sequences) says `whole_batch`; it then
runs in `agentrl.losses.whole`, so that micro batches never matter.

Symbols: π the policy on the plain prompt, q the teacher (detached), μ the sampler, g = ∇ log π.
"""

from agentrl.recipes.axes.base import (
    Denominator,
    Option,
    Position,
)
from agentrl.recipes.axes.closing import (
    Aggregate,
    Entropy,
    KlRef,
    Regulariser,
    SeqMean,
    TokenMean,
)
from agentrl.recipes.axes.collect import (
    NoTransform,
    Rollout,
    Stream,
    Student,
    Transform,
)
from agentrl.recipes.axes.credit import (
    AdvAdd,
    Advantage,
    All,
    Group,
    HasContext,
    KdOnly,
    LeaveOneOut,
    Mix,
    NoAdvantage,
    NoCorrection,
    OffPolicy,
    Ppo,
    Raw,
    RlOnly,
    Route,
    Sum,
    Tis,
)
from agentrl.recipes.axes.loss import (
    K2,
    Divergence,
    Estimator,
    Fkl,
    Full,
    Gap,
    IwK3,
    Jsd,
    One,
    Pg,
    Rkl,
    TokenWeight,
    TopFrac,
    TopK,
)
from agentrl.recipes.axes.score import (
    CachedTeacher,
    Context,
    CopyEvery,
    Ema,
    EmaFactors,
    EnvFeedback,
    ExternalTeacher,
    Extrap,
    Fixed,
    HindsightHint,
    JointTeacher,
    Live,
    NoContext,
    NoTeacher,
    SelfTeacher,
    SkillContext,
    Solution,
    Sync,
    Target,
    Teacher,
    TeacherTarget,
    Temper,
)
