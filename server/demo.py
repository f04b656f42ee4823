"""`agentrl demo`: a policy that does not know a shell's house rules learns them while agents use it.

    before     held-out tasks, greedy, pinned to version 0
    learning   agents play, the learner steps, new versions are served; ends when both families are learned
    after      the same held-out tasks, pinned to the last version
    control    a second server with learning off: as many turns, then held-out tasks again

The agents are a process of their own (`agentrl rollout`), ordinary clients of the server's HTTP port. The report goes
into the run folder. With `--judge self` the policy also judges what its agents did (`server.demo_judges`).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import typer

from agentrl.config import Config, load_config
from agentrl.errors import AgentRLError, ConfigError
from agentrl.learner.control import set_paused
from agentrl.store.learning_log import LearningLog
from envs.house_rules import HouseRules
from server.demo_agents import play
from server.demo_figures import feedback_to_serving_s, num_eval_turns_in_training, served_since
from server.demo_judges import RULES, SELF, SETTINGS, Truths, compared, refuse_other_judges
from server.demo_probability import reachable_probabilities
from server.demo_screen import Screen
from server.notices import NANO
from server.report import FAMILIES, Outcome, Play, draw_curves, page
from server.runtime import Runtime
from server.statistics import Share, p50_p95, share

NUM_AGENTS = 4
MAX_LEN = 2048
"""Ids of a conversation; the shipped model reads no more."""
MAX_OUTPUT = 200
"""Bytes of a command's output, so that four replies with two calls each fit: a request too long would have failed."""
NUM_HELD_OUT = 480
"""Held-out tasks of one measurement: each family has half of them."""
CONTROL_OFFSET = 10_000
"""First held-out task of the control, so that it is measured on tasks of its own."""
MAX_LEARNING_S = 150.0
MIN_EPISODES = 300
WINDOW = 60
GOOD_SHARE = 0.97
MAX_EPISODES = 6000
DRAIN_S = 15.0
REACHABLE_RANGE = (0.03, 0.3)

OVERRIDES: dict[str, Any] = {
    **NANO,
    # A teacher of this size follows some wordings only weakly: what the hint changed is made larger.
    "target": {"name": "extrap", "coef": 1.25},
    "batch.max_wait_s": 2.0,
    "batch.uses_per_turn": 1,
    "limits.max_version_lag": 60,
    "limits.max_logprob_gap": 3.0,
}
"""What a model of two million parameters bears and a large one does not."""


async def run_demo(
    seed: int, *, run_dir: Path | None, as_json: bool, overrides: Sequence[str], judge: str = RULES
) -> None:
    """Plays the demo and prints where the report is; with `as_json` the report's figures on standard output."""
    refuse_other_judges(judge)
    folder = run_dir or free_folder(Path("runs") / f"demo-seed{seed}")
    if (folder / "config.json").exists():
        raise ConfigError(
            f"{folder} holds a run already, and a demo begins with an empty log: name another folder"
        )
    screen = Screen()
    report = await Demo(seed, folder, screen, overrides, judge=judge).run()
    if as_json:
        typer.echo(json.dumps(report))
    else:
        screen.result(report, folder)


def free_folder(wanted: Path) -> Path:
    """`wanted`, or with the first number behind it that is not taken: a demo begins with an empty log."""
    number = 1
    folder = wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


class Demo:
    """One demo. `run` returns the report's figures."""

    def __init__(
        self, seed: int, folder: Path, screen: Screen, overrides: Sequence[str], *, judge: str = RULES
    ) -> None:
        self.seed = seed
        self.folder = folder
        self.screen = screen
        self.overrides = overrides
        self.judges_itself = judge == SELF
        self.truths = Truths()
        self.rules = HouseRules.draw(seed)
        self.plays: list[Play] = []
        self.shell = ""
        self.num_failed = 0

    async def run(self) -> dict[str, Any]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{self.folder} cannot be made: {error.strerror}; start the demo in a folder of your own, or name one "
                "with --run-dir"
            ) from error
        self.screen.begin(self.seed, self.rules)
        learning = await self._with_learning()
        control, idle = await self._control(learning["num_turns"])
        outcome = Outcome(before=learning["before"], after=learning["after"], control=control)
        report = {
            "seed": self.seed,
            **outcome.as_dict(),
            "num_turns": learning["num_turns"],
            "num_updates": learning["num_updates"],
            "num_versions_served": learning["num_versions_served"],
            "num_versions_refused": learning["num_versions_refused"],
            "num_failed_requests": self.num_failed,
            "num_eval_turns_in_training": learning["num_eval_turns_in_training"],
            "learning_s": round(learning["learning_s"], 1),
            "feedback_to_serving_s": learning["feedback_to_serving_s"],
            "latency_ms": {"learning": learning["latency_ms"], "idle": idle},
            "sandbox": self.shell,
            "precision": learning["precision"],
            "policy_version": learning["policy_version"],
            "version_prefill_tokens": learning["version_prefill_tokens"],
            "reachable_probability": learning["reachable_probability"],
            "account": learning["account"],
        }
        if self.judges_itself:
            report["judges"] = learning["judges"]
        self._write(report, outcome, learning["served_at_s"])
        return report

    def config(self, folder: Path, *, learn: bool) -> Config:
        return load_config(
            None,
            self.overrides,
            model="nano",
            name="nano",
            run_dir=str(folder),
            server__port=0,
            engine__max_len=MAX_LEN,
            engine__stick_s=0.0,
            server__max_tokens=64,
            learn__enabled=learn,
            learn__seed=self.seed,
            learn__overrides=OVERRIDES,
            **(SETTINGS if learn and self.judges_itself else {}),
        )

    async def _with_learning(self) -> dict[str, Any]:
        """The measurement before, the learning phase, the measurement after."""
        async with Runtime(self.config(self.folder, learn=True)) as runtime, self._resumed():
            chances = await reachable_probabilities(runtime.engine, self.seed, self.rules)
            refuse_unreachable(chances)
            before = await self._measure(runtime, "nano@0", "before")
            start_s, start = time.time(), time.perf_counter()
            latencies: list[float] = []
            num_turns = await self._learn(runtime, start, latencies)
            learning_s = time.perf_counter() - start
            await self._drain(lambda: runtime.versions.newest)
            newest = runtime.versions.newest
            after = await self._measure(runtime, f"nano@{newest}", "after")
            judges = await self._judges(runtime, newest) if self.judges_itself else None
            capacity = await runtime.engine.capacity()
            precision = runtime.engine.precision
        with LearningLog(self.folder, read_only=True) as log:
            made = [version for version in log.versions() if version.number > 0]
            account = log.account()
            refused = num_refused(log)
        versions = [version for version in made if version.served_at]
        steps = {step for version in versions for step in version.step_ids}
        return {
            "before": before,
            "after": after,
            "num_turns": num_turns,
            "num_updates": len(steps),
            "num_versions_served": len(versions),
            "num_versions_refused": refused,
            "num_eval_turns_in_training": num_eval_turns_in_training(self.folder),
            "learning_s": learning_s,
            "feedback_to_serving_s": p50_p95(feedback_to_serving_s(self.folder), digits=2),
            "latency_ms": p50_p95(latencies),
            "precision": precision,
            "policy_version": newest,
            "version_prefill_tokens": capacity.version_prefill_tokens,
            "reachable_probability": {key: round(value, 3) for key, value in chances.items()},
            "account": {
                "accepted": account.accepted,
                "trained": account.trained,
                "rejected": account.rejected,
                "pending": account.pending,
            },
            "served_at_s": served_since(versions, start_s),
            "judges": judges,
        }

    async def _judges(self, runtime: Runtime, newest: int) -> dict[str, Any]:
        self.screen.judging()
        return await compared(
            runtime.log,
            self.truths,
            runtime.config,
            base_url=runtime.base_url,
            versions=sorted({0, newest}),
        )

    @asynccontextmanager
    async def _resumed(self) -> AsyncIterator[None]:
        """Whoever serves the demo's folder later finds its learner at work."""
        try:
            yield
        finally:
            set_paused(self.folder, paused=False)

    async def _measure(
        self, runtime: Runtime, model: str, name: str, first_task: int = 0
    ) -> dict[str, Share]:
        """First-try success on held-out tasks, greedy, pinned to a version."""
        results: dict[str, list[bool]] = {family: [] for family in FAMILIES}

        def count(line: dict[str, Any]) -> bool:
            self._note(line)
            results[line["family"]].append(bool(line["first_try"]))
            self.screen.measured(name, sum(map(len, results.values())), NUM_HELD_OUT)
            return True

        await self._rollout(
            runtime,
            count,
            model=model,
            num_episodes=NUM_HELD_OUT,
            temperature=0.0,
            purpose="eval",
            split="heldout",
            first_task=first_task,
            env_options={"max_steps": 1},
        )
        found = {family: share(sum(held), len(held)) for family, held in results.items()}
        self.screen.found(name, found)
        return found

    async def _learn(self, runtime: Runtime, start: float, latencies: list[float]) -> int:
        """Lets agents play until both families are learned or the time is over; returns the number of turns."""
        num_turns = 0

        def count(line: dict[str, Any]) -> bool:
            nonlocal num_turns
            self._note(line)
            num_turns += line["num_turns"]
            latencies.extend(1000 * value for value in line["latencies_s"])
            at_s = time.perf_counter() - start
            rule = self.rules.rule(line["rule"]) if "rule" in line else None
            if rule is not None:
                self.truths.note(line["session"], rule.new, line["did_it"])
            self.plays.append(Play(at_s=at_s, family=line["family"], is_first_try=line["first_try"]))
            recent = {family: self._recent(family) for family in FAMILIES}
            self.screen.played(
                at_s,
                num_turns,
                recent,
                version=runtime.versions.newest,
                num_refused=num_refused(runtime.versions.learning_log()),
                latency_ms=p50_p95(latencies[-200:]),
            )
            learned = len(self.plays) >= MIN_EPISODES and min(recent.values()) >= GOOD_SHARE
            return not learned and at_s < MAX_LEARNING_S

        await self._rollout(
            runtime,
            count,
            model="nano",
            num_episodes=MAX_EPISODES,
            temperature=1.0,
            purpose="train",
            split="train",
            # An episode that ends with the right command shows its outcome to nobody: there is nothing to judge by.
            env_options={"max_output": MAX_OUTPUT, "end_on_success": not self.judges_itself},
        )
        return num_turns

    def _recent(self, family: str) -> float:
        held = [play.is_first_try for play in self.plays if play.family == family][-WINDOW:]
        return sum(held) / max(len(held), WINDOW // 2)

    async def _drain(self, newest: Callable[[], int]) -> None:
        """Lets the learner end the step at hand and begin no other, so that the last version is the last."""
        set_paused(self.folder, paused=True)
        deadline = time.monotonic() + DRAIN_S
        with LearningLog(self.folder, read_only=True) as log:
            while log.account().pending["claimed"] or log.serving().number != newest():
                if time.monotonic() > deadline:
                    self.screen.trouble(
                        f"the learner was not done after {DRAIN_S:g} s; its last step is not measured"
                    )
                    return
                await asyncio.sleep(0.1)

    async def _control(self, num_turns: int) -> tuple[dict[str, Share], dict[str, float | None]]:
        """As many turns with learning off, then held-out tasks; with the latency of a server that does not learn."""
        played = 0
        latencies: list[float] = []

        def count(line: dict[str, Any]) -> bool:
            nonlocal played
            self._note(line)
            played += line["num_turns"]
            latencies.extend(1000 * value for value in line["latencies_s"])
            self.screen.measured("control", min(played, num_turns), num_turns)
            return bool(played < num_turns)

        async with Runtime(self.config(self.folder / "control", learn=False)) as runtime:
            await self._rollout(
                runtime,
                count,
                model="nano",
                num_episodes=num_turns,
                temperature=1.0,
                purpose="train",
                split="train",
            )
            found = await self._measure(runtime, "nano@0", "control", first_task=CONTROL_OFFSET)
        return found, p50_p95(latencies)

    def _note(self, line: dict[str, Any]) -> None:
        self.num_failed += line["num_failed_requests"]
        if line["num_failed_requests"]:
            self.screen.trouble(f"a request failed: {line['error']}")
        shell = line.get("shell")
        if shell and not self.shell:
            self.shell = shell
            self.screen.sandbox(shell)

    async def _rollout(
        self, runtime: Runtime, go_on: Callable[[dict[str, Any]], bool], **options: Any
    ) -> None:
        await play(runtime.base_url, go_on, num_agents=NUM_AGENTS, seed=self.seed, **options)

    def _write(self, report: dict[str, Any], outcome: Outcome, served_at_s: Sequence[float]) -> None:
        report_dir = self.folder / "report"
        report_dir.mkdir(exist_ok=True)
        (report_dir / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        draw_curves(self.plays, outcome, served_at_s, report_dir / "curves.png")
        rules = [f"{rule.family}: {rule.operation.doing}: `{rule.new}`" for rule in self.rules.rules]
        note = self.screen.sandbox_note(self.shell)
        (report_dir / "report.md").write_text(page(report, rules, note), encoding="utf-8")


def num_refused(log: LearningLog | None) -> int:
    """Versions that were made and never served."""
    refused = None if log is None else log.refused()
    return 0 if refused is None else refused.num_versions


def refuse_unreachable(chances: dict[str, float]) -> None:
    """The reachable family means what it says: every right answer is sampled sometimes, and none usually."""
    low, high = REACHABLE_RANGE
    outside = {key: value for key, value in chances.items() if not low <= value <= high}
    if outside:
        shown = ", ".join(f"{key} {value:.3f}" for key, value in outside.items())
        raise AgentRLError(
            f"the policy samples these reachable rules with a chance outside {low} to {high}: {shown}"
        )
