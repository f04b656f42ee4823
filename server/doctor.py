"""`agentrl doctor`: the account of a run's turns, what the waiting ones wait for, and the first condition not met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentrl.learner import control
from agentrl.recipes.eligibility import GREEDY, GREEDY_PARTNER
from agentrl.recipes.recipe import Recipe, load_recipe
from agentrl.store.account import Account
from agentrl.store.backlog import REASONS, Backlog
from agentrl.store.version_log import Refused
from agentrl.types import PolicyVersion
from server.guard_pages import DISAPPROVE, RESUME, findings, guards_of, not_measured
from server.inspect import has_learned, learning_log
from server.judge_reach import unreachable
from server.progress import all_lessons, of_lessons
from server.run_files import ask_server, existing_run, settings_of
from server.typed import serve_again

PAUSED = f"learning is paused: {RESUME}"


def diagnose(run_dir: Path) -> dict[str, Any]:
    """The account of law 3 and the first condition of learning that is not met."""
    run = existing_run(run_dir)
    settings = settings_of(run)
    live = ask_server(run, "/v1/status")
    silent = unreachable(settings.judge)
    judge = {} if silent is None else {"judge": silent}
    if not has_learned(run, settings.policy):
        why = why_no_learner(live, settings.model, is_enabled=settings.learn.enabled)
        return {"finding": why} | judge | {"account": None}
    recipe = load_recipe(settings.learn.recipe, settings.learn.overrides)
    with learning_log(run) as log:
        account = log.account(settings.policy)
        serving = log.serving(settings.policy)
        waiting = log.backlog(
            settings.policy,
            needs=recipe.needs,
            group_size=recipe.group_size,
            max_age_s=settings.learn.max_age_s,
            uses=recipe.batch.uses_per_turn,
            ended=recipe.waits_for_outcome,
        )
        refused = log.refused(settings.policy)
        made = log.versions(settings.policy)
        lessons = of_lessons(all_lessons(log, run, settings.policy), log.num_probed(settings.policy))
    broken, clipped = broken_finding(lessons, made, recipe), clipped_finding(made, recipe)
    finding = first_unmet(
        account,
        waiting,
        recipe,
        model=settings.model,
        is_running=live is not None,
        is_paused=control.is_paused(run),
        learner=(live or {}).get("learner"),
        broken=broken,
    )
    hand, guards = hand_finding(waiting, recipe), guards_of(run)
    blind = not_measured(guards)
    return {
        "finding": finding,
        **judge,
        **({} if refused is None else {"refused": refused_finding(refused, serving.number)}),
        **({"in_hand": hand} if hand and hand not in finding else {}),
        **({"lessons": broken} if broken and broken not in finding else {}),
        **({"clipped": clipped} if clipped else {}),
        "guards": findings(guards, account.rejected) + uncompared(made),
        "left_out": left_out(account, recipe),
        **({"not_measured": blind} if blind else {}),
        "serving_version": serving.number,
        "account": asdict(account),
        "balanced": account.balanced,
        "backlog": {reason: asdict(turns) for reason, turns in waiting.items()},
    }


def why_no_learner(live: dict[str, Any] | None, model: str, *, is_enabled: bool) -> str:
    """Why no learner ever worked in a run's folder."""
    if not is_enabled:
        return "the run learns nothing by its settings: start it without --no-learn, or `agentrl learner` beside it"
    if live is None:
        return f"no server is running for this folder: {serve_again(model)}"
    state = live.get("learner", {}).get("state")
    if state in ("starting", "running"):  # a process that runs and has begun nothing loads the model
        return "the learner is starting"
    return f"the learner process is {state}: learner.log in the run folder says why"


def first_unmet(
    account: Account,
    waiting: Backlog,
    recipe: Recipe,
    *,
    model: str,
    is_running: bool,
    is_paused: bool,
    learner: dict[str, Any] | None,
    broken: str = "",
) -> str:
    """The first condition on the way from a request to a trained turn that does not hold, with its remedy; of the
    turns that wait now, what most of them wait for.

    Args:
        model: that the run serves.
        broken: which lessons are, as a sentence.
    """
    trained, num_waiting = account.trained, sum(account.pending.values())
    why, number = max(account.rejected.items(), key=lambda item: item[1], default=("", 0))
    state = (learner or {}).get("state")
    remedy = REMEDIES.get(why, "`agentrl explain` shows one of them")
    held_up, stuck = backlog_finding(waiting, recipe), bool(STUCK.intersection(waiting))
    checks = (
        (not is_running, f"no server is running for this folder: {serve_again(model)}"),
        (is_paused, PAUSED),
        (
            state not in (None, "off", "running", "starting", "paused"),
            f"the learner process is {state}: learner.log in the run folder says why",
        ),
        (
            account.accepted == 0 and bool(account.apart),
            f"all turns are marked as not for learning ({', '.join(account.apart)}): "
            "call without /eval/ in the URL and without the header X-Purpose",
        ),
        (account.accepted == 0, "no turn was recorded yet: point an agent at the server"),
        (
            account.pending["open"] == account.accepted,
            "no turn has a next state yet: the agent must go on with the conversation, or send /v1/feedback",
        ),
        (
            trained == 0 and not stuck and number > num_waiting - account.pending["open"],
            f"{number} turns were set aside as {why!r} by recipe {recipe.name!r}: {remedy}",
        ),
        (trained == 0, held_up or "no turn was trained yet, and none waits"),
        (stuck, f"{trained} turns were trained; {held_up}"),
        (bool(broken), f"{trained} turns were trained, but {broken}"),
    )
    most = f"; {number} were set aside as {why!r}: {remedy}" if number > trained else ""
    wait = f"; {held_up}" if held_up else ""
    return next(
        (text for unmet, text in checks if unmet),
        f"nothing is wrong: {trained} turns were trained{most}{wait}",
    )


STUCK = frozenset({"approval", "group", "partner"})
"""What turns may wait for without end unless somebody does something."""


def backlog_finding(waiting: Backlog, recipe: Recipe) -> str:
    """What most of the turns wait for that something has followed, and the remedy; "" where there are none.

    Turns that wait for somebody to do something are named before those that go on by themselves.
    """
    known = {reason: turns for reason, turns in waiting.items() if reason != "next_state"}
    if not known:
        return ""
    stuck = STUCK.intersection(known)
    reason = max(stuck or known, key=lambda name: (known[name].num_turns, -REASONS.index(name)))
    if reason == "hand":
        return hand_finding(waiting, recipe)
    number = known[reason].num_turns
    texts = {
        "judge": "wait for the judge: it is behind",
        "approval": "wait for the approval of hints, their own or those of like turns: `agentrl lessons list --state "
        "proposed` shows them",
        "group": f"wait for their group: recipe {recipe.name!r} compares groups of {recipe.group_size} episodes that "
        f"ended with a reward, and too few have: play them with `agentrl rollout --group-size {recipe.group_size}`",
        "partner": f"have no partner: recipe {recipe.name!r} compares two answers to one prompt: ask again and go on "
        "with the answer that is kept, or send /v1/feedback with the text of a `preferred` one",
        "episode": f"wait until their episodes have ended: recipe {recipe.name!r} weighs the outcome; end sessions "
        "with /v1/feedback and end_session, or set advantage.outcome = 0",
        "step": f"wait for the learner: it steps at {recipe.batch.turns_per_step} turns, or once the first has waited "
        f"{recipe.batch.max_wait_s:g} s",
        "version": "are in a step whose version does not serve yet",
    }
    return f"{number} turns {texts[reason]}"


def hand_finding(waiting: Backlog, recipe: Recipe) -> str:
    """What the turns in the learner's hands wait for; "" where it has none."""
    hand, batch = waiting.get("hand"), recipe.batch
    if hand is None:
        return ""
    lacking, left_s = recipe.num_live - hand.num_turns, batch.max_wait_s - hand.oldest_s
    if lacking <= 0 or left_s <= 0:
        return f"{hand.num_turns} turns are in a step that is being made"
    return (
        f"{hand.num_turns} turns wait for {lacking} more or for {left_s:.0f} s: "
        f"batch.turns_per_step = {batch.turns_per_step}, batch.max_wait_s = {batch.max_wait_s:g}"
    )


def refused_finding(refused: Refused, serving: int) -> str:
    """How many versions never served, and what refused the newest.

    Args:
        serving: the number of the version that serves.
    """
    stands = "; a bound of guards that refuses what is wanted can be raised, else learning stands still"
    if "guards.max_surprise" in refused.reason:
        stands = "; such replies are garbled: lower optim.lr, or take more turns a step"
    return (
        f"{refused.num_versions} versions were made and never served; the newest, {refused.newest}: {refused.reason}"
        + (stands if refused.newest > serving and "guards." in refused.reason else "")
    )


def broken_finding(lessons: Mapping[str, Any], versions: Sequence[PolicyVersion], recipe: Recipe) -> str:
    """Which lessons the version that serves has lost, and the remedy; "" where it has lost none.

    Args:
        lessons: as `agentrl progress` gives them.
        versions: the line's.
    """
    broken = lessons["broken"]
    if not broken:
        return ""
    first = min(lesson["version"] for lesson in broken)
    known = {version.number: version for version in versions}
    parent = known[known[first].parent or 0] if first in known else None
    # one that is gone from disk cannot serve again
    before = (
        f"`agentrl rollback {parent.number}` serves the version before, and "
        if parent and parent.path
        else ""
    )
    return (
        f"{len(broken)} of {lessons['num_with_probe']} lessons are broken, the first since version {first}: {before}"
        f"steps that break less have a lower optim.lr (now {recipe.optim.lr:g}) or more turns: batch.turns_per_step "
        f"(now {recipe.batch.turns_per_step}); `agentrl progress` names them"
    )


def clipped_finding(versions: Sequence[PolicyVersion], recipe: Recipe) -> str:
    """Whether the pointwise clip cut at most of what the newest version distilled; "" where it did not."""
    most = recipe.estimator.params.get("pointwise_clip")
    metrics = versions[-1].metrics if versions else {}
    cut, tokens = (int(metrics.get(name, 0)) for name in ("num_clipped_kd", "num_tokens"))
    if most is None or 2 * cut <= tokens:
        return ""
    return (
        f"at {cut} of {tokens} tokens that version {versions[-1].number} was taught, estimator.pointwise_clip = "
        f"{most:g} cut terms; with fkl the id of such a term is pushed away: raise the clip, or leave it out"
    )


def uncompared(versions: Sequence[PolicyVersion]) -> list[str]:
    """How many versions served that nothing was held against: neither held-out turns nor what version 0 says."""
    served = [one for one in versions if one.served_at is not None and "probe_turns" in one.metrics]
    blind = sum(not COMPARED & one.metrics.keys() for one in served)
    if not blind:
        return []
    return [
        f"{blind} of {len(served)} versions went live without a comparison: the gate's probe held too few rewarded "
        "turns; send rewards by /v1/feedback"
    ]


COMPARED = frozenset({"probe_change", "reply_surprise", "kl_base"})
"""Metrics of versions that something was held against."""


def left_out(account: Account, recipe: Recipe) -> list[str]:
    """What a law keeps from training, which no waiting changes."""
    forced, partners = account.rejected.get(GREEDY, 0), account.rejected.get(GREEDY_PARTNER, 0)
    what = "turns of pairs" if recipe.uses_pairs else "turns"
    beside = f", and {partners} compared with such a one" if partners else ""
    return [f"{forced} {what} left out: {ONE_ID}{beside}"] if forced else []


NOTHING_SAID = (
    "their next states said nothing of what should have been done; send it as text by /v1/feedback "
    "(bare rewards teach under recipes such as openclaw_rl, not under one that learns from words)"
)
ONE_ID = "sampled with one allowed id, e.g. temperature 0; law 7"
REMEDIES = {
    GREEDY: f"{ONE_ID}: sample at a temperature above 0",
    GREEDY_PARTNER: "the other answer of the pair was " + ONE_ID,
    "no context": NOTHING_SAID,
    "already right": "they were right, which is held only beside turns that teach something; bare rewards "
    "teach under recipes such as openclaw_rl",
    "no praise": "nothing in their updates was rewarded above 0, and penalties weigh no more than praise: reward what "
    "was right, say what should have been done, or set guards.max_penalty=0",
    "no_hint": NOTHING_SAID,
    "no teacher score": "the file of teacher 'cached' lacks them: score them with score_turns, or set teacher = 'self'",
    "lesson_rejected": "their lessons were rejected: `agentrl lessons list` shows them, `approve` brings them back",
    "lesson_retired": "their lessons were retired: `agentrl lessons list` shows them, `approve` brings them back",
    "no_reward": "send rewards by /v1/feedback",
    "empty_approval": f"their user approves of everything, which says nothing: {DISAPPROVE}",
    "lesson_shown": "lessons stood in their prompts; those without teach the weights: lower learn.show_share for more",
    "judge_failed": "the judge failed as often as it may: `agentrl explain` of such a turn says why",
    "version lag": "the weights were more than limits.max_version_lag versions further when their turn came: raise it, "
    "or let fewer agents work at a time, for the learner gets the processor time that they leave",
    "gate": "every candidate was turned down by the gate: lower optim.lr, or see `agentrl versions`",
    "side": "requests without tools beside ones with tools count as titles and summaries",
    "client_gone": "the clients left before the reply was whole",
}
"""What to do about the reasons that a run is most often full of."""
