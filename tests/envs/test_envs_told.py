"""The control in which nothing needs to be learned: the rules stand in the prompt."""

from envs.house_rules import HouseRules
from envs.terminal import Terminal


async def test_the_rules_stand_in_the_system_message_only_where_asked_for() -> None:
    rules = HouseRules.draw(3)
    for told in (False, True):
        terminal = Terminal(seed=3, shell="simulated", told=told)
        try:
            seen = await terminal.reset(terminal.task("train", 0))
        finally:
            await terminal.aclose()
        system = seen.messages[0]["content"]
        assert all((f"Hint: {rule.error(rule.operation.program)}" in system) is told for rule in rules.rules)
        assert len(system.splitlines()) == (13 if told else 1)
