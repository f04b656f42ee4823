"""House rules: what a machine forbids and what it has instead, drawn from a seed.

Two families. *Unknown*: the usual command is refused, and a program with an invented name does its work; nobody can
guess the name, the error tells it. *Reachable*: of several known ways one works and the others are refused; a policy
may hit upon it. Invented names come from the half that nano's training never draws from.

The rules stand first on the PATH. They are conventions to be learned, not a lock: whoever writes /usr/bin/cat gets it.

A house may lie (`wrong_hints`): an error then names a command that does not do the work, another invented name or
another of the refused ways. And a house may change its mind (`HouseRules.changed`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
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
    wrong: tuple[str, ...] = ()
    """What the error names in the place of `new`: of two ways one is not the way that was called. Empty: it tells the
    truth."""
    former: tuple[str, ...] = ()
    """Invented names that did the work before the house changed its mind; they are refused like the usual command."""

    @property
    def key(self) -> str:
        return self.operation.key

    @property
    def withheld(self) -> bool:
        return vocabulary.is_withheld(self.wording)

    def refused(self) -> tuple[str, ...]:
        """The commands that are refused."""
        if self.family is Family.UNKNOWN:
            return (self.operation.program, *self.former)
        return tuple(way for way in self.operation.alternatives if way != self.new)

    def named(self, old: str) -> str:
        """The command that the error of `old` names. Where all ways are options of one program, a wrong one may be the
        very way that was called."""
        others = [way for way in self.wrong if way.split()[0] != old.split()[0]]
        return next(iter(others or self.wrong), self.new)

    def error(self, old: str) -> str:
        """What a refused command prints."""
        return self.wording.format(old=old, new=self.named(old))

    def programs(self) -> dict[str, Program]:
        """The programs that put the rule into force."""
        refused = {name: self._refusal(name) for name in (way.split()[0] for way in self.refused())}
        if self.family is Family.UNKNOWN:
            return refused | {self.new: usual(self.operation)}
        name, *options = self.new.split()
        works = alternative(self.operation, self.new)
        return refused | {name: only_with(options[0], works, self._refusal(name)) if options else works}

    def _refusal(self, name: str) -> Program:
        return refusal(name, self.wording, self.named(name), self.exit_code)


@dataclass(frozen=True, slots=True, kw_only=True)
class HouseRules:
    """The rules of one house. Equal seeds give equal rules."""

    seed: int
    rules: tuple[Rule, ...]

    @classmethod
    def draw(
        cls, seed: int, num_unknown: int = 6, num_reachable: int = 6, *, wrong_hints: float = 0.0
    ) -> HouseRules:
        """Draws a house.

        Args:
            seed: equal seeds give equal rules, whatever share of the errors lies.
            num_unknown, num_reachable: rules of each family.
            wrong_hints: share of each family's rules whose error names a wrong command.

        Raises:
            ConfigError: more rules than there are operations, or no share.
        """
        if not 0 <= wrong_hints <= 1:
            raise ConfigError(f"wrong_hints is {wrong_hints}; it is a share from 0 to 1")
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
            name = _fresh(rng, taken)
            taken.add(name)
            rules.append(_rule(rng, operation, Family.UNKNOWN, name))
        reachable = rng.sample(vocabulary.REACHABLE_OPERATIONS, num_reachable)
        rules += [_rule(rng, way, Family.REACHABLE, rng.choice(way.alternatives)) for way in reachable]
        lying = random.Random(f"wrong hints {seed}")
        for family, number in ((Family.UNKNOWN, num_unknown), (Family.REACHABLE, num_reachable)):
            own = [place for place, rule in enumerate(rules) if rule.family is family]
            for place in sorted(lying.sample(own, round(wrong_hints * number))):
                wrong = _wrong(lying, rules[place], taken)
                taken.update(wrong)
                rules[place] = replace(rules[place], wrong=wrong)
        return cls(seed=seed, rules=tuple(rules))

    def changed(self, share: float = 0.5) -> HouseRules:
        """The house after a change of mind: this share of each family's rules has another command, which its errors
        name; the operations and all other rules stay.

        Raises:
            ConfigError: no share.
        """
        if not 0 <= share <= 1:
            raise ConfigError(f"the share of changed rules is {share}; it goes from 0 to 1")
        rng = random.Random(f"changed rules {self.seed}")
        taken = {name for rule in self.rules for name in (rule.new, *rule.wrong)}
        rules = list(self.rules)
        for family in (Family.UNKNOWN, Family.REACHABLE):
            own = [place for place, rule in enumerate(rules) if rule.family is family]
            for place in sorted(rng.sample(own, round(share * len(own)))):
                rule = rules[place]
                if family is Family.UNKNOWN:
                    new = _fresh(rng, taken)
                else:
                    new = rng.choice([way for way in rule.operation.alternatives if way != rule.new])
                taken.add(new)
                former = (*rule.former, rule.new) if family is Family.UNKNOWN else ()
                rules[place] = replace(_rule(rng, rule.operation, family, new), former=former)
        return replace(self, rules=tuple(rules))

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


def _fresh(rng: random.Random, taken: Set[str]) -> str:
    """An invented name that the house has not given yet."""
    name = vocabulary.fresh_name(rng, "rules")
    while name in taken:
        name = vocabulary.fresh_name(rng, "rules")
    return name


def _wrong(rng: random.Random, rule: Rule, taken: Set[str]) -> tuple[str, ...]:
    """Commands that do not do the work: an invented name that nothing here has, or two of the refused ways."""
    if rule.family is Family.UNKNOWN:
        return (_fresh(rng, taken),)
    return tuple(rng.sample(rule.refused(), 2))


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
