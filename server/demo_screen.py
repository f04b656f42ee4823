"""What a person sees of a demo: lines while it runs, a table at its end. Everything goes to standard error, so
that `--json` leaves standard output to the report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from envs.house_rules import Family, HouseRules
from server.demo_judges import HEADINGS, rows
from server.report import FAMILIES
from server.statistics import Share

LINE_EVERY_S = 5.0
"""Without a terminal, one line of progress in this many seconds."""

SIMULATED_NOTE = (
    "No sandbox could be started on this machine, so commands ran in a small simulated shell written in Python. "
    "To play in a real bash, install bubblewrap (Debian: apt-get install bubblewrap) or allow user namespaces."
)


class Screen:
    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._bar: Any = None
        self._stage = ""
        self._said_at = 0.0

    def begin(self, seed: int, rules: HouseRules) -> None:
        counts = {family: sum(rule.family is family for rule in rules.rules) for family in Family}
        self._console.print(
            f"[bold]agentrl demo, seed {seed}[/]: a shell with {counts[Family.UNKNOWN]} commands replaced by names "
            f"nobody knows and {counts[Family.REACHABLE]} where one of several ways works. The model knows none of it."
        )

    def sandbox(self, shell: str) -> None:
        self._console.print(f"agents' shell: {shell}")
        if shell == "simulated":
            self._console.print(f"[yellow]{SIMULATED_NOTE}[/]")

    def sandbox_note(self, shell: str) -> str:
        return (
            SIMULATED_NOTE if shell == "simulated" else f"The agents' commands ran in a real bash ({shell})."
        )

    def measured(self, name: str, done: int, total: int) -> None:
        titles = {
            "before": "measuring before learning",
            "after": "measuring after learning",
            "control": "control, learning off",
        }
        self._advance(titles[name], done, total, "")

    def found(self, name: str, shares: dict[str, Share]) -> None:
        self._end_stage()
        text = ", ".join(f"{family} {shares[family].success:.2f}" for family in FAMILIES)
        self._console.print(f"{name}: first-try success on held-out tasks: [bold]{text}[/]")

    def played(
        self,
        at_s: float,
        num_turns: int,
        recent: dict[str, float],
        *,
        version: int,
        num_refused: int,
        latency_ms: dict[str, float | None],
    ) -> None:
        detail = " ".join(f"{family} {recent[family]:.2f}" for family in FAMILIES)
        refused = f" ({num_refused} refused)" if num_refused else ""
        text = (
            f"{detail}  {num_turns} turns  version {version}{refused}  p50 {latency_ms['p50'] or 0:.0f} ms  "
            f"{at_s:.0f} s"
        )
        mean = sum(recent.values()) / len(recent)
        self._advance("learning while serving", round(mean * 100), 100, text)

    def judging(self) -> None:
        self._console.print("asking the rules and the policy about the turns of the learning phase")

    def trouble(self, error: str | None) -> None:
        self._console.print(f"[red]{error}[/]")

    def result(self, report: dict[str, Any], folder: Path) -> None:
        self._end_stage()
        table = Table("first try, held-out tasks", "before", "control", "after", box=None, pad_edge=False)
        for family in FAMILIES:
            cells = (report[family][name] for name in ("before", "control", "after"))
            table.add_row(family, *(f"{c['success']:.2f} [{c['low']:.2f}, {c['high']:.2f}]" for c in cells))
        self._console.print(table)
        delay, latency = report["feedback_to_serving_s"], report["latency_ms"]
        self._console.print(
            f"{report['num_turns']} turns, {report['num_updates']} updates, {report['num_versions_served']} versions "
            f"served and {report['num_versions_refused']} refused by their gate in {report['learning_s']:.0f} s; "
            f"{report['num_failed_requests']} failed requests; "
            f"feedback to serving p50 {delay['p50']} s, p95 {delay['p95']} s; latency p50 "
            f"{latency['learning']['p50']} ms while learning, {latency['idle']['p50']} ms with learning off"
        )
        if "judges" in report:
            judges = Table(*HEADINGS, box=None, pad_edge=False)
            for row in rows(report["judges"]):
                judges.add_row(*row)
            self._console.print(judges)
        self._console.print(f"report: {folder / 'report' / 'report.md'}")

    def _advance(self, stage: str, done: int, total: int, text: str) -> None:
        if stage != self._stage:
            self._end_stage()
            self._stage = stage
            if self._console.is_terminal:
                self._progress = Progress(
                    TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"),
                    console=self._console, transient=True,
                )  # fmt: skip
                self._bar = self._progress.add_task(stage, total=total, text=text)
                self._progress.start()
            else:
                self._said_at = 0.0
        if self._progress is not None:
            self._progress.update(self._bar, completed=done, total=total, text=text or f"{done}/{total}")
        elif time.monotonic() - self._said_at > LINE_EVERY_S:
            self._said_at = time.monotonic()
            self._console.print(f"{stage}: {text or f'{done}/{total}'}")

    def _end_stage(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self._stage = ""
