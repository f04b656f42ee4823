"""What `agentrl progress` can tell: false alarms with no effect, conversations until a true gain is found.

    python -m bench.progress                        1,000 streams a row, every conversation looked at
    python -m bench.progress --num-streams 100

A row is one share of control conversations and one pair of success rates. "Better" is said when the lower bound of the
95 % interval is above 0; a stream counts as a false alarm where that was so at any conversation.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

from server.anytime import ALPHA, differences, log_wealth
from server.statistics import percentile, share

OUT = Path("runs/bench/progress.json")
NO_EFFECT = 2000
"""Conversations of a stream without effect."""
WITH_EFFECT = 1500
"""Most conversations until a gain counts as not found."""

Rate = Callable[[int], float]


def first_better(seed: int, control_share: float, learning: Rate, control: Rate, length: int) -> int | None:
    """The number of conversations at which "better" is first said; None where it never is."""
    rng = random.Random(seed)
    arms = [rng.random() >= control_share for _ in range(length)]
    outcomes = [
        float(rng.random() < (learning if arm else control)(number)) for number, arm in enumerate(arms)
    ]
    found = differences(arms, outcomes, 1 - control_share)
    reached = log_wealth(found.values, found.lows, 0.0) >= -math.log(ALPHA / 2)
    return int(reached.argmax()) + 1 if reached.any() else None


def drifting(number: int) -> float:
    """Tasks that become harder and easier again, for both arms alike."""
    return 0.5 + 0.3 * math.sin(number / 150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-streams", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = []
    for control_share in (0.5, 0.3, 0.2, 0.1):
        for name, rate in (("0.5", lambda _: 0.5), ("0.2", lambda _: 0.2), ("drifting", drifting)):
            found = [
                first_better(arguments.seed + i, control_share, rate, rate, NO_EFFECT)
                for i in range(arguments.num_streams)
            ]
            alarms = share(sum(number is not None for number in found), len(found))
            rows.append(
                {"control_share": control_share, "no_effect_at": name, "false_better": alarms.as_dict()}
            )
            print(json.dumps(rows[-1]), flush=True)
        for low, high in ((0.5, 0.7), (0.2, 0.4), (0.7, 0.9)):
            found = [
                first_better(
                    arguments.seed + i, control_share, lambda _, p=high: p, lambda _, p=low: p, WITH_EFFECT
                )
                for i in range(arguments.num_streams)
            ]
            lengths = [WITH_EFFECT + 1 if number is None else number for number in found]
            rows.append(
                {
                    "control_share": control_share,
                    "gain": f"{low} -> {high}",
                    "conversations": {f"p{q}": percentile(lengths, q / 100) for q in (50, 90)},
                    "found": sum(number is not None for number in found) / len(found),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
