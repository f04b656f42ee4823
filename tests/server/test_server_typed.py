"""Commands that sentences name are those of the run that was asked about."""

from pathlib import Path

from server.typed import command, of_run

MINE = Path("runs/my own")


def test_a_command_names_the_run_and_scope_that_it_would_not_mean_by_itself() -> None:
    assert command("versions", Path("runs/default")) == "`agentrl versions`"
    assert command("rollback 2", MINE) == "`agentrl rollback 2 --run-dir 'runs/my own'`"
    assert (
        command("lessons list", MINE, "a b") == "`agentrl lessons list --scope 'a b' --run-dir 'runs/my own'`"
    )


def test_what_a_page_says_to_type_names_its_run_at_any_depth() -> None:
    page = {
        "finding": "`agentrl resume` goes on; `agentrl rollback 0` first",
        "guards": ["look at `agentrl lessons list --state proposed`", {"deep": ("`agentrl serve`", 3, None)}],
    }
    where = "--run-dir 'runs/my own'"
    assert of_run(page, MINE) == {
        "finding": f"`agentrl resume {where}` goes on; `agentrl rollback 0 {where}` first",
        "guards": [
            f"look at `agentrl lessons list --state proposed {where}`", {"deep": [f"`agentrl serve {where}`", 3, None]}
        ],
    }  # fmt: skip
    assert of_run("`agentrl resume`", Path("runs/default")) == "`agentrl resume`"


def test_a_command_that_names_its_run_or_takes_none_stays_as_it_is() -> None:
    for said in (
        "`agentrl versions --run-dir elsewhere` lists them", "`agentrl settings`", "`agentrl recipes`", "agentrl resume"
    ):  # fmt: skip
        assert of_run(said, MINE) == said
