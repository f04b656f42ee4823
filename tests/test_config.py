from pathlib import Path

import pytest

from agentrl.config import known_settings, load_config, read_config, write_config
from agentrl.errors import ConfigError


def test_a_file_is_overruled_by_settings_and_those_by_dotted_overrides(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('model = "m"\n[engine]\nmax_running = 4\nmax_queued = 7\n[server]\nport = 1\n')

    config = load_config(file, ["engine.max_running=9"], engine__max_running=8, server__port=2, name=None)

    assert (config.engine.max_running, config.engine.max_queued, config.server.port) == (9, 7, 2)
    assert config.served_name == "m"


def test_recipe_overrides_keep_their_dotted_names() -> None:
    config = load_config(None, ["learn.overrides.optim.lr=1e-4", "learn.overrides.batch.turns_per_step=4"])

    assert config.learn.overrides == {"optim.lr": 1e-4, "batch.turns_per_step": 4}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("engine.max_runing=3", "engine.max_runing"),
        ("engine.max_running=0", "greater than or equal to 1"),
        ("engine.max_running", "write --set engine.max_running=8"),
        ('engine.kind="abacus"', "engine.kind"),
    ],
)
def test_a_wrong_name_or_value_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        load_config(None, [override])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("engine.max_runing=3", "engine.max_runing is no setting: did you mean engine.max_running? "),
        ("max_running=3", "max_running is no setting: did you mean engine.max_running? "),
        ("sever.port=1", "sever is no setting: did you mean server? "),
        ("judge.vote=3", "did you mean judge.votes? "),
        (
            "guards.max_approvals=3",
            "guards.max_approvals is no setting: did you mean guards.approval_span? `agentrl settings` lists all",
        ),
        ("zorp.blip=1", "zorp is no setting; `agentrl settings` lists all"),
        ("server.api_keys=[{key='12345678', scpe='x'}]", "did you mean server.api_keys.scope? "),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_known_ones_and_where_all_stand(
    override: str, said: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(None, [override])

    assert said in str(raised.value)
    assert str(raised.value).endswith("`agentrl settings` lists all")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "learn.show_share=1",
            "learn.show_share: Input should be less than 1 (got 1). Share of the conversations in which lessons may "
            "stand; the others teach the weights.",
        ),
        ("engine.max_running=0", "engine.max_running: Input should be greater than or equal to 1 (got 0)"),
        ("server.api_keys=[{key='short'}]", "at least 8 characters (got 'short'). The bearer token."),
        ("guards.trust={usr=1.0}", "or SOURCE:SCOPE (got {'usr': 1.0})"),
    ],
)
def test_a_value_that_is_not_accepted_is_refused_with_what_the_setting_is_for(
    override: str, said: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(None, [override])

    assert str(raised.value).endswith(said)


def test_every_setting_is_known_by_its_dotted_name_and_says_what_it_does_or_is_plain() -> None:
    known = known_settings()

    assert {"model", "server.api_keys.scope", "engine.max_running", "judge.votes", "guards.trust"} <= set(
        known
    )
    assert "server" not in known
    assert known["judge.votes"].description == "Answers to one question."


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the config file"):
        load_config(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("model = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(broken)


def test_the_resolved_settings_are_written_without_the_keys(tmp_path: Path) -> None:
    config = load_config(None, server__api_keys=[{"key": "sk-verysecret", "name": "a", "scope": "team"}])
    write_config(config, tmp_path / "config.json")

    written = (tmp_path / "config.json").read_text()
    assert "sk-verysecret" not in written
    assert '"scope": "team"' in written


def test_a_run_folder_of_an_earlier_release_keeps_the_value_of_a_renamed_setting(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"guards": {"max_approvals": 7}}')
    assert read_config(path).guards.approval_span == 7

    path.write_text('{"guards": {"max_approvals": 7, "approval_span": 9}}')
    assert read_config(path).guards.approval_span == 9
    for broken in ("[]", '{"guards": 3}'):
        path.write_text(broken)
        with pytest.raises(ConfigError):
            read_config(path)
