# SPDX-License-Identifier: GPL-2.0-only
"""What the guest's lines come to; nothing passes by absence."""

from __future__ import annotations

import json
from typing import Any

import pytest

from workbench.model import TestKind
from workbench.reportlog import DEFAULT_DEADLINE, ReportLog, first_line

A = "spi-timeout/test_a.py::test_a"
B = "spi-timeout/test_a.py::test_b"
C = "input-mark/test_c.py::test_c[x/y]"


def phase(nodeid: str, when: str, outcome: str = "passed", **more: Any) -> bytes:
    line = {
        "$report_type": "TestReport",
        "nodeid": nodeid,
        "when": when,
        "outcome": outcome,
        "duration": 0.25,
        "longrepr": None,
        "sections": [],
        "user_properties": [
            ["kpw.kind", "proof"],
            ["kpw.red", "30 s"],
            ["kpw.extension", nodeid.partition("/")[0]],
            ["kpw.deadline", 60],
        ],
        "location": ["x", 1, "y"],
        "keywords": {"anything": 1},
    } | more
    return json.dumps(line).encode()


def crash(message: str) -> dict[str, Any]:
    data = {"lines": ["    def test_a():", f"E   {message}"], "reprfileloc": None}
    return {
        "reprcrash": {"path": "x.py", "lineno": 3, "message": message},
        "reprtraceback": {"reprentries": [{"type": "ReprEntry", "data": data}]},
    }


def collected(*nodeids: str) -> bytes:
    return json.dumps({"kpw": "collected", "nodeids": nodeids, "tests": []}).encode()


def start(nodeid: str, deadline: float = 60) -> bytes:
    return json.dumps({"kpw": "start", "nodeid": nodeid, "deadline": deadline}).encode()


def whole(nodeid: str, **call: Any) -> list[bytes]:
    return [
        start(nodeid),
        phase(nodeid, "setup"),
        phase(nodeid, "call", **call),
        phase(nodeid, "teardown"),
    ]


FINISH = b'{"exitstatus": 0, "$report_type": "SessionFinish"}'
EXIT = b'{"kpw":"exit","status":0}'


def read(*lines: bytes) -> ReportLog:
    log = ReportLog()
    log.feed_all(lines)
    return log


def test_a_whole_session() -> None:
    log = read(collected(A, C), *whole(A), *whole(C), FINISH, EXIT)
    assert log.complete
    assert log.lost == ()
    assert log.exit_status == 0
    one, other = log.results
    assert (one.nodeid, one.outcome, one.extension) == (A, "passed", "spi-timeout")
    assert (one.kind, one.red, one.seconds) == (TestKind.PROOF, "30 s", 0.75)
    assert other.extension == "input-mark"


def test_a_failure_keeps_its_own_message_and_traceback() -> None:
    message = "AssertionError: the reply says 30 s\nassert 30 == 2"
    log = read(
        collected(A),
        *whole(A, outcome="failed", longrepr=crash(message), sections=[["Captured stdout", "hm"]]),
    )
    (result,) = log.results
    assert result.outcome == "failed"
    assert result.message == message
    assert first_line(result.message) == "AssertionError: the reply says 30 s"
    assert "def test_a" in result.detail
    assert "--- Captured stdout ---\nhm" in result.detail


@pytest.mark.parametrize("when", ["setup", "teardown"])
def test_a_failing_fixture_is_an_error_not_a_failure(when: str) -> None:
    failed = phase(A, when, outcome="failed", longrepr=crash("OSError: no device"))
    lines = [phase(A, "setup"), phase(A, "call"), phase(A, "teardown")]
    if when == "setup":
        lines = [failed, lines[2]]
    else:
        lines[2] = failed
    (result,) = read(collected(A), start(A), *lines).results
    assert result.outcome == "error"
    assert "OSError: no device" in result.message


def test_a_failed_call_stays_failed_when_the_tear_down_fails_too() -> None:
    log = read(
        phase(A, "setup"),
        phase(A, "call", outcome="failed", longrepr=crash("the answer")),
        phase(A, "teardown", outcome="failed", longrepr=crash("afterwards")),
    )
    (result,) = log.results
    assert (result.outcome, result.message) == ("failed", "the answer")
    assert "afterwards" in result.detail


def test_a_skip_keeps_its_reason() -> None:
    skip = {"outcome": "skipped", "longrepr": ["/x.py", 14, "Skipped: not here"]}
    (result,) = read(*whole(A, **skip)).results
    assert (result.outcome, result.message) == ("skipped", "Skipped: not here")


@pytest.mark.parametrize("outcome", ["skipped", "passed"])
def test_xfail_is_no_way_to_pass(outcome: str) -> None:
    (result,) = read(*whole(A, outcome=outcome, wasxfail="")).results
    assert result.outcome == "error"
    assert "xfail" in result.message


def test_a_test_without_a_call_is_an_error() -> None:
    (result,) = read(phase(A, "setup"), phase(A, "teardown")).results
    assert result.outcome == "error"


def test_what_never_ended_is_lost_and_the_one_under_way_is_named_first() -> None:
    log = read(collected(A, B, C), *whole(A), start(C, 7), phase(C, "setup"), phase(C, "call"))
    assert log.lost == (C, B)
    assert log.running == C
    assert log.deadline() == 7
    assert not log.complete


def test_between_two_tests_none_is_under_way() -> None:
    assert read(collected(A, B), *whole(A)).running == ""


def test_a_start_that_names_no_deadline_has_the_default() -> None:
    assert read(start(A, 0)).deadline() == DEFAULT_DEADLINE


def test_a_torn_line_is_no_end() -> None:
    log = read(collected(A), *whole(A), FINISH[:20])
    assert log.damaged == 1
    assert not log.complete


def test_a_line_of_wrong_types_is_damage_too() -> None:
    assert read(b'{"$report_type": "TestReport", "nodeid": 7}').damaged == 1


def test_no_session_end_is_not_complete() -> None:
    assert not read(collected(A), *whole(A), EXIT).complete


def test_a_file_that_cannot_be_collected_is_an_error_of_its_extension() -> None:
    line = {
        "$report_type": "CollectReport",
        "nodeid": "spi-timeout/test_a.py",
        "outcome": "failed",
        "longrepr": {"longrepr": "x.py:3: in <module>\nE   NameError: name 'q'"},
    }
    (result,) = read(json.dumps(line).encode()).results
    assert (result.extension, result.outcome) == ("spi-timeout", "error")
    assert result.message == "cannot be collected: NameError: name 'q'"


def test_a_collection_that_passed_is_no_result() -> None:
    line = b'{"$report_type": "CollectReport", "nodeid": "", "outcome": "passed"}'
    assert read(line).results == ()
