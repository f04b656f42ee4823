"""Templates and hand-written turns in, records of the judge set out.

A record's source is a TOML table with these keys; in a template each may be a list of alternatives:

    domain kind reward fault hint why     the label; no reward = nothing can be said, hint = words of a right hint
    task                                  what the user asked for
    history                               what went before, as "say: ", "user: ", "do: ", "call: " and "out: " lines
    do | call | say                       the turn: a call of the domain's own tool, `name {arguments}`, or text
    out | user | edited | asked_again     the next state: the tool's result, the user's words, the reply or the request
                                          as the user rewrote it
    end                                   a typed end
    name n slots                          templates only: the generator's name, how many turns, slots of its own
"""

from __future__ import annotations

import itertools
import json
import random
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SEED = 20
TEXTS = ("task", "do", "call", "say", "out", "user", "edited", "asked_again", "end")
_SLOT = re.compile(r"\{(\w+)\}")


def read(half: str, part: str) -> dict[str, Any]:
    """One source file; `part` is "hand" or "templates"."""
    return tomllib.loads((HERE / f"{half}_{part}.toml").read_text(encoding="utf-8"))


def records(half: str) -> Iterator[dict[str, Any]]:
    """All records of a half, the hand-written ones first. The same on every machine."""
    frame, hand = read(half, "templates"), read(half, "hand")
    number = itertools.count(1)
    for turn in hand["turn"]:
        yield _record(turn, f"{half}-{next(number):03}", half, "hand", frame)
    for template in frame["template"]:
        rng = random.Random(f"{SEED} {half} {template['name']}")
        seen: set[str] = set()
        while len(seen) < template["n"]:
            turn = filled(template, frame["slots"], rng)
            key = json.dumps(turn, sort_keys=True)
            if key not in seen:
                seen.add(key)
                yield _record(turn, f"{half}-{next(number):03}", half, template["name"], frame)


def filled(template: Mapping[str, Any], slots: Mapping[str, list[str]], rng: random.Random) -> dict[str, Any]:
    """One turn of a template: an alternative drawn for every text, one value drawn for every slot."""
    values = {name: rng.choice(pool) for name, pool in (slots | template.get("slots", {})).items()}
    x, y = rng.randrange(12, 98), rng.randrange(12, 98)
    values |= {"x": str(x), "y": str(y), "sum": str(x + y), "off": str(x + y + rng.choice((-10, -1, 1, 10)))}
    values |= {"prod": str(x * y), "badprod": str(x * y + rng.choice((-100, -10, 10, 100)))}
    values |= {"n": str(rng.randrange(30, 90)), "h": str(rng.randrange(5, 10))}

    def fill(text: str) -> str:
        return _SLOT.sub(lambda match: values.get(match[1], match[0]), text)

    turn = {name: template[name] for name in ("domain", "kind", "why")}
    turn |= {name: template[name] for name in ("reward", "fault") if name in template}
    for name in TEXTS:
        if name in template:
            text = template[name]
            turn[name] = fill(rng.choice(text) if isinstance(text, list) else text)
    for name in ("history", "hint"):
        if name in template:
            turn[name] = [fill(text) for text in template[name]]
    return turn


def lines(half: str) -> str:
    """A half as its file holds it: one record a line."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records(half))


def _record(
    turn: Mapping[str, Any], name: str, half: str, made_by: str, frame: Mapping[str, Any]
) -> dict[str, Any]:
    own = frame["tool"].get(turn["domain"], "")
    calls = _Calls(own)
    messages = [
        {"role": "system", "content": frame["system"][turn["domain"]]},
        {"role": "user", "content": turn["task"]},
    ]
    for line in turn.get("history", []):
        role, _, text = line.partition(": ")
        messages.append(calls.message(role, text))
    reply = next(calls.message(role, turn[role]) for role in ("do", "call", "say") if role in turn)
    news = [
        message
        for role, message in (
            ("out", lambda text: calls.message("out", text)),
            ("user", lambda text: {"role": "user", "content": text}),
            ("edited", lambda text: {"role": "assistant", "content": text}),
            ("asked_again", lambda text: {"role": "user", "content": text}),
        )
        if role in turn
        for message in [message(turn[role])]
    ]
    return {
        "id": name,
        "domain": turn["domain"],
        "half": half,
        "made_by": made_by,
        "messages": messages,
        "tools": calls.tools(),
        "reply": {
            "text": reply["content"],
            "calls": [{"id": call["id"], **call["function"]} for call in reply.get("tool_calls", [])],
        },
        "next": news,
        "end": turn.get("end"),
        "label": {
            "reward": turn.get("reward"),
            "fault": turn.get("fault", "none"),
            "kind": turn["kind"],
            "should_hint": "hint" in turn,
            "hint_contains": turn.get("hint", []),
        },
        "reason": turn["why"],
    }


class _Calls:
    """Numbers the calls of one conversation and collects the tools they use."""

    def __init__(self, own: str) -> None:
        """`own`: the domain's tool as "name(argument)", or ""."""
        self._own, _, argument = own.removesuffix(")").partition("(")
        self._argument = argument
        self._used: dict[str, set[str]] = {self._own: {argument}} if own else {}
        self._last = ""
        self._number = 0

    def message(self, role: str, text: str) -> dict[str, Any]:
        if role == "out":
            return {"role": "tool", "tool_call_id": self._last, "content": text}
        if role in ("say", "user"):
            return {"role": "assistant" if role == "say" else "user", "content": text}
        if role == "do":
            name, arguments = self._own, json.dumps({self._argument: text}, ensure_ascii=False)
            used = {self._argument}
        else:
            name, _, arguments = text.partition(" ")
            used = _names(arguments)
        self._used.setdefault(name, set()).update(used)
        self._number += 1
        self._last = f"call{self._number}"
        call = {"id": self._last, "type": "function", "function": {"name": name, "arguments": arguments}}
        return {"role": "assistant", "content": "", "tool_calls": [call]}

    def tools(self) -> list[dict[str, Any]]:
        """Schemas of the tools used; what a broken call meant is not told."""
        return [
            {
                "type": "function",
                "function": {
                    "name": name,
                    "parameters": {
                        "type": "object",
                        "properties": {each: {} for each in sorted(arguments)},
                    },
                },
            }
            for name, arguments in self._used.items()
        ]


def _names(arguments: str) -> set[str]:
    try:
        return set(json.loads(arguments))
    except ValueError:
        return set()
