import pytest

from agentrl.nano.vocabulary import BARE_ERRORS, ERROR_WORDINGS
from agentrl.signals.outputs import confirms, exit_code, failed, is_outage, passes, refuses, text_of
from agentrl.signals.wording import approves, corrects


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ("a\n[exit code 3]", 3),
        ("go: oh\nexit status 2", 2),
        ("Exit code 1\nbad", 1),
        ("Process exited with code 0\nfine", 0),
        ("<returncode>4</returncode>\n<output>x</output>", 4),
        ('{"returncode": 7, "output": "x"}', 7),
        ('{"returncode": true}', None),
        ("the exit code was 1", None),
        ("", None),
    ],
)
def test_an_exit_code_is_read_in_the_frames_that_agents_use(output: str, code: int | None) -> None:
    assert exit_code(output) == code


@pytest.mark.parametrize(
    "output",
    [
        "Error: no element 3",
        "Action failed: [3] is hidden",
        "zap is not permitted for this user",
        '{"error": "invalid argument"}',
        '{"success": false}',
        '{"returncode": 2, "output": ""}',
        "[2] textbox 'Ann' invalid\n[3] button 'Send'\n[4] link 'Back'",
        "[5] alert 'This field must contain a name'\n[6] link 'a'\n[7] link 'b'",
    ],
)
def test_an_error_without_an_exit_code_is_a_failure(output: str) -> None:
    assert failed(output)


@pytest.mark.parametrize(
    "output",
    [
        "milk\nbread",
        '{"jobs": [{"error": "out of paper"}]}',
        '{"errors": [], "error": null}',
        "a\nb\nit is not permitted to park here\nc",
        "error: so the log says\n[exit code 0]",
        "",
    ],
)
def test_words_of_failure_in_what_was_asked_for_are_none(output: str) -> None:
    assert not failed(output)


def test_a_shown_file_may_speak_of_errors_and_only_the_program_itself_fails() -> None:
    text = "Error: payment refused\nfatal: disk"

    assert failed(text)
    assert not failed(text, reads="cat")
    assert failed("cat: app.log: No such file or directory", reads="cat")
    assert failed("bash: cat: command not found", reads="cat")


@pytest.mark.parametrize(
    "output",
    [
        "curl: (6) Could not resolve host: a.b",
        "Operation timed out after 10 s",
        "connect: Connection refused",
        '{"error": "429 Too Many Requests"}',
        "HTTP 503 Service Unavailable",
        "cp: error writing 'a': No space left on device",
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.",
        "net::ERR_NAME_NOT_RESOLVED",
        "upload: the store answered 502",
        "curl: (92) HTTP/2 stream 3: INTERNAL_ERROR (err 2)",
        "lmutil: cannot contact the licence server 27000@lic",
        "svn: E160013: the repository is in read-only mode",
        "ERROR: Reauthentication required, sign in again",
        "aws: the token has expired",
        "page_error: context lost",
        "dimm 2: uncorrectable error",
        "the server got 502",
        "received: 503 (response of the mirror)",
        "GPU process exited unexpectedly",
        "browser process (pid 7) exited unexpectedly",
        "down for maintenance, expected back at noon",
        "the probe did fail: connection refused",
    ],
)
def test_a_failure_of_the_machine_is_told_from_one_of_the_agent(output: str) -> None:
    assert is_outage(output)


@pytest.mark.parametrize(
    "output",
    [
        "FAIL test_status: expected 200, got 500",
        "expected 12 rows, got: 502",
        "got 500 rows",
        "./my_server --port 80: process exited unexpectedly",
        "./my_server ... process exited unexpectedly",
        "server_test.go:12: status 503, want 200",
        "wanted a connection error, HTTP 200",
        "FAIL: connection refused",
        "assertion: the server answered 503",
    ],
)
def test_what_a_test_says_and_what_the_agents_own_program_does_are_no_outage(output: str) -> None:
    assert not is_outage(output)


@pytest.mark.parametrize("wording", [*ERROR_WORDINGS, *BARE_ERRORS])
def test_a_refusal_by_the_house_rules_is_no_outage(wording: str) -> None:
    assert not is_outage(wording.format(old="cat", new="zorvex"))


def test_what_must_be_there_is_the_callers_fault_and_what_must_be_running_is_not() -> None:
    assert not is_outage("timeout must be a number")
    assert is_outage("no answer from the broker, it must be running")


@pytest.mark.parametrize(
    "output", ['[{"subject": "refused again"}]', '{"note": "rejected"}', '["not found"]']
)
def test_data_may_speak_of_refusals(output: str) -> None:
    assert not refuses(output)
    assert refuses("[x] not found")


def test_a_pass_has_to_be_said() -> None:
    assert passes("3 passed in 0.1s")
    assert passes("nothing\n[exit code 0]")
    assert not passes("nothing")
    assert not passes("1 failed, 2 passed")
    assert not passes("3 passed\n[exit code 1]")


def test_a_confirmation_names_the_change_and_not_another() -> None:
    assert confirms('{"state": "cancelled"}', "cancel_order")
    assert confirms('{"renamed": true}', "rename_list")
    assert not confirms('{"state": "open"}', "cancel_order")
    assert confirms("[1] alert 'Your message was sent successfully'", "browser")
    assert not confirms("[1] link 'Send'", "browser")


def test_the_words_of_a_framed_output_are_its_message() -> None:
    assert text_of('{"error": {"code": 1, "message": "use b"}}') == "use b"
    assert text_of('{"returncode": 1, "output": "use c"}') == "use c"
    assert text_of("use d") == "use d"
    assert text_of('{"jobs": 3}') == '{"jobs": 3}'


@pytest.mark.parametrize(
    "line",
    [
        "TypeError: run() got an unexpected keyword argument 'timeout'",
        "ValueError: rate_limit must be positive",
        "error: unrecognized arguments: --timeout",
        "E   AssertionError: assert 503 == 200",
    ],
)
def test_what_the_caller_did_is_no_outage_whatever_its_argument_is_called(line: str) -> None:
    assert not is_outage(line)
    assert is_outage(f"{line}\nConnection refused")


@pytest.mark.parametrize(
    ("output", "tool", "is_done"),
    [
        ("Issue #4 created.", "mcp__github__createIssue", True),
        ('{"sent": true}', "send_message", True),
        ('{"sent": false}', "send_message", False),
        ('{"ok": true}', "cancel_order", True),
        ('{"ok": true}', "get_order", False),
        ("The order was not cancelled.", "cancel_order", False),
        ("0 files deleted", "delete_file", False),
        ("It will be sent tomorrow.", "send_message", False),
        ('{"state": "shipped", "note": "cancelled orders are refunded"}', "cancel_order", False),
        ("[1] status '1 item added to basket'", "browser", True),
        ("[1] heading 'Saved messages'", "browser", False),
    ],
)
def test_a_change_is_confirmed_by_what_changes_something_and_not_denied(
    output: str, tool: str, is_done: bool
) -> None:
    assert confirms(output, tool) == is_done


def test_a_json_object_says_in_its_own_fields_that_a_call_failed() -> None:
    assert failed('{"status": 422, "detail": "age"}')
    assert failed('{"status": "rejected", "reason": "too late"}')
    assert not failed('{"id": 3, "status": "failed"}')
    assert not failed('{"extension": 415}')


@pytest.mark.timeout(120)
@pytest.mark.parametrize("unit", ["\n", " ", "\t", " \n", "'", '"', "- ", "-\n", "."])
@pytest.mark.parametrize("opening", ["", "alert", "- alert", "no"])
def test_a_long_run_of_blanks_or_marks_holds_nobody_up(unit: str, opening: str) -> None:
    """Quadratic would take minutes."""
    text = opening + unit * 100_000 + "x"
    for output in (text, text[:8000], text[:1000]):
        failed(output)
        refuses(output)
        passes(output)
        is_outage(output)
        confirms(output, "create_issue")
        corrects(output)
        approves(output)
