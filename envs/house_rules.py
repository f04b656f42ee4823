"""House rules: what a machine forbids and what it has instead, drawn from a seed.

Two families. *Unknown*: the usual command is refused, and a program with an invented name does its work; nobody can
guess the name, the error tells it. *Reachable*: of several known ways one works and the others are refused; a policy
may hit upon it. Invented names come from the half that nano's training never draws from.

The rules stand first on the PATH. They are conventions to be learned, not a lock: whoever writes /usr/bin/cat gets it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from agentrl.errors import ConfigError
from agentrl.nano import vocabulary
from agentrl.nano.vocabulary import Operation
from envs.programs import Program, alternative, only_with, refusal, usual

WITHHELD_SHARE = 0.25
"""Share of the rules whose error is worded in a way that nano's training never showed."""


class Family(StrEnum):
    UNKNOWN = "unknown"
    REACHABLE = "reachable"
    PLAIN = "plain"
    """No rule: the usual commands work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """For one operation `new` works here and everything else that is known is refused."""

    operation: Operation
    family: Family
    new: str
    """A command without arguments: an invented name, or one of the alternatives."""
    wording: str
    """The error, with {old} and {new}."""
    exit_code: int

    @property
    def key(self) -> str:
        return self.operation.key

    @property
    def withheld(self) -> bool:
        return vocabulary.is_withheld(self.wording)

    def refused(self) -> tuple[str, ...]:
        """The commands that are refused."""
        if self.family is Family.UNKNOWN:
            return (self.operation.program,)
        return tuple(way for way in self.operation.alternatives if way != self.new)

    def error(self, old: str) -> str:
        """What a refused command prints."""
        return self.wording.format(old=old, new=self.new)

    def programs(self) -> dict[str, Program]:
        """The programs that put the rule into force."""
        refused = {name: self._refusal(name) for name in (way.split()[0] for way in self.refused())}
        if self.family is Family.UNKNOWN:
            return refused | {self.new: usual(self.operation)}
        name, *options = self.new.split()
        works = alternative(self.operation, self.new)
        return refused | {name: only_with(options[0], works, self._refusal(name)) if options else works}

    def _refusal(self, name: str) -> Program:
        return refusal(name, self.wording, self.new, self.exit_code)


@dataclass(frozen=True, slots=True, kw_only=True)
class HouseRules:
    """The rules of one house. Equal seeds give equal rules."""

    seed: int
    rules: tuple[Rule, ...]

    @classmethod
    def draw(cls, seed: int, num_unknown: int = 6, num_reachable: int = 6) -> HouseRules:
        """Draws a house.

        Raises:
            ConfigError: more rules than there are operations.
        """
        for number, operations, family in (
            (num_unknown, vocabulary.UNKNOWN_OPERATIONS, Family.UNKNOWN),
            (num_reachable, vocabulary.REACHABLE_OPERATIONS, Family.REACHABLE),
        ):
            if not 0 <= number <= len(operations):
                raise ConfigError(f"num_{family} is {number}; there are {len(operations)} such operations")
        rng = random.Random(f"house rules {seed}")
        taken: set[str] = set()
        rules = []
        for operation in rng.sample(vocabulary.UNKNOWN_OPERATIONS, num_unknown):
            name = vocabulary.fresh_name(rng, "rules")
            while name in taken:
                name = vocabulary.fresh_name(rng, "rules")
            taken.add(name)
            rules.append(_rule(rng, operation, Family.UNKNOWN, name))
        reachable = rng.sample(vocabulary.REACHABLE_OPERATIONS, num_reachable)
        rules += [_rule(rng, way, Family.REACHABLE, rng.choice(way.alternatives)) for way in reachable]
        return cls(seed=seed, rules=tuple(rules))

    def rule(self, key: str) -> Rule | None:
        """The rule of an operation, where there is one."""
        return next((rule for rule in self.rules if rule.key == key), None)

    def family(self, key: str) -> Family:
        rule = self.rule(key)
        return rule.family if rule is not None else Family.PLAIN

    def told(self) -> tuple[str, ...]:
        """Every rule as a sentence that somebody could put into a prompt."""
        return tuple(f"Hint: {rule.error(rule.operation.program)}" for rule in self.rules)

    def programs(self) -> Mapping[str, Program]:
        """Everything to install: the rules, and for operations without one all the known ways."""
        programs: dict[str, Program] = {}
        for operation in vocabulary.REACHABLE_OPERATIONS:
            # The options of sort work on any machine; a program of our own would only take them away.
            if self.rule(operation.key) is None and operation.key != "order_lines":
                programs |= {way.split()[0]: alternative(operation, way) for way in operation.alternatives}
        for rule in self.rules:
            programs |= rule.programs()
        return programs


def _rule(rng: random.Random, operation: Operation, family: Family, new: str) -> Rule:
    withheld = rng.random() < WITHHELD_SHARE
    wording = rng.choice(vocabulary.WITHHELD_WORDINGS if withheld else vocabulary.KNOWN_WORDINGS)
    said = wording.lower()
    if "not found" in said or "not installed" in said:
        exit_code = 127
    elif "permission denied" in said or "not permitted" in said or "cannot execute" in said:
        exit_code = 126
    else:
        exit_code = rng.choice((1, 126, 127))
    return Rule(operation=operation, family=family, new=new, wording=wording, exit_code=exit_code)
