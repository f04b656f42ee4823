"""A process that records turns as fast as it can and says which were acknowledged; `test_store_crash` kills it.

    python store_writer.py RUN_DIR ROUND

One line on standard output for each acknowledged turn, written and flushed after `record_turn` returned.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from store_samples import answer, make_completion, make_turn

from agentrl.store.signal_log import SignalLog


def expected_turn(round_: int, caller: int, index: int):
    """The turn of this name; the test makes it again to compare."""
    draw = random.Random(f"{round_} {caller} {index}")
    ids = tuple(draw.randrange(151_936) for _ in range(draw.randint(1, 400)))
    return make_turn(
        f"r{round_}-c{caller}-{index}",
        session=f"r{round_}-c{caller}",
        messages=tuple(
            {"role": "user", "content": f"{caller} {number} " * 20} for number in range(index % 5 + 1)
        ),
        prompt_ids=ids,
        completion=make_completion(ids[:50]),
    )


async def main(run_dir: str, round_: int) -> None:
    async with await SignalLog.open(run_dir) as log:

        async def caller(number: int) -> None:
            index = 0
            while True:
                turn = expected_turn(round_, number, index)
                await log.record_turn(turn, history_key=turn.id, reply_key=turn.id)
                os.write(1, f"turn {turn.id}\n".encode())
                await answer(log, turn.id)
                os.write(1, f"next {turn.id}\n".encode())
                index += 1

        await asyncio.gather(*(caller(number) for number in range(8)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
