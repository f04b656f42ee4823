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
    regularisers                 agentrl.losses.regularisers
    aggregate                    agentrl.losses.masking

In a preset an option is its name, or a table where it has parameters: `divergence = "fkl"`,
`divergence = { name = "jsd", beta = 0.5 }`. A list of contexts shows all of them, a list of routes multiplies them.

An option that looks at the whole batch before any gradient is taken (a
rank over all tokens, a bound that depends on how many are clipped, a pair of sequences) says `whole_batch`; it then
runs in `agentrl.losses.whole`, so that micro batches never matter.

Symbols: π the policy on the plain prompt, q the teacher (detached), μ the sampler, g = ∇ log π.
"""

from agentrl.recipes.axes.advantage import (
    Advantage,
    Based,
    Conflict,
    Discriminative,
    EntropyRank,
    EntropyShift,
    FirstTurn,
    Group,
    LeaveOneOut,
    NoAdvantage,
    PositiveOnly,
    Process,
    Raw,
    StepIndexGroup,
    Tempered,
    TopTokens,
)
from agentrl.recipes.axes.base import (
    Denominator,
    Option,
    Position,
    named,
)
from agentrl.recipes.axes.closing import (
    Aggregate,
    Certainty,
    Chi2,
    Entropy,
    EntropyBand,
    HardTokens,
    JsRehearsal,
    KlRef,
    LastTokenMse,
    Length,
    RankOrder,
    Regulariser,
    RoutedTokenMean,
    SeqMean,
    SumConst,
    TokenMean,
    WeightedKlRef,
)
from agentrl.recipes.axes.collect import (
    ConfidenceRewrite,
    DropConstant,
    Mixed,
    NextAnswer,
    NoTransform,
    Offline,
    Replace,
    Replay,
    Retry,
    Rewrite,
    Rollout,
    SecondTurn,
    Stream,
    Student,
    SubsetMaxVar,
    Transform,
    TransformOption,
)
from agentrl.recipes.axes.correction import (
    AdaptiveClip,
    ClipCov,
    Corrections,
    KlConstraint,
    KlCov,
    Ratio,
    SequenceRatio,
    Shape,
    Square,
    VarPenalty,
)
from agentrl.recipes.axes.credit import (
    AdvAdd,
    AdvConvex,
    AdvMult,
    All,
    Anchor,
    ContextOrHeld,
    Convex,
    CorrectCeWrongKd,
    GaussPassRate,
    HasContext,
    IsClip,
    KdOnly,
    Mix,
    NoCorrectInGroup,
    NoCorrection,
    OffPolicy,
    PassRate,
    PplSoftmax,
    Ppo,
    ProductRoute,
    RewardAtLeast,
    RewardSoftmax,
    RlOnly,
    Route,
    Routed,
    Split,
    Sum,
    Tis,
    WrongOnly,
    WrongWithContext,
)
from agentrl.recipes.axes.loss import (
    K2,
    K3,
    Alpha,
    BatchTopFrac,
    Ce,
    ChiSquare,
    CumGap,
    Divergence,
    EarlyTokens,
    Estimator,
    Fkl,
    Full,
    Gap,
    IwK3,
    Jsd,
    NegTeacherEntropy,
    One,
    Pg,
    Rank,
    Rkl,
    SigmoidEntropy,
    SigmoidGap,
    SkipFirst,
    TokenWeight,
    TopFrac,
    TopK,
)
from agentrl.recipes.axes.pairs import Adpo, Dpo, FDpo, PairLoss, Redi
from agentrl.recipes.axes.score import (
    CachedTeacher,
    Context,
    CopyEvery,
    Demo,
    Ema,
    EmaFactors,
    EnvFeedback,
    ExpertTrace,
    ExternalTeacher,
    Extrap,
    Fixed,
    Geo,
    HindsightHint,
    JointTeacher,
    Lerp,
    Live,
    NoContext,
    NoTeacher,
    OwnAttempt,
    SelfTeacher,
    SeveralContexts,
    SiblingSuccess,
    SkillContext,
    Solution,
    Sync,
    Target,
    Teacher,
    TeacherTarget,
    Temper,
    TemperEntropy,
    UnmetRubrics,
    Veto,
)
from agentrl.recipes.axes.second import Joint, SelfDistill
