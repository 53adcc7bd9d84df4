# SPDX-License-Identifier: GPL-2.0-only
"""What each selftest declares, what the host hears about it, and the shared fixtures.

Through pytest-reportlog's file the host gets, besides pytest's own reports,
one line after collection ({"kpw": "collected"}) and one before each test
({"kpw": "start"}), so that it knows what is lost when the guest dies. The
first also names the tests that want a kernel booted with other words
("elsewhere"): the host boots another guest for them.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

DEFAULT_DEADLINE = 60
LEAST_SECONDS = 5


class TestDeadlineError(BaseException):
    """A test took longer than it said; not an Exception, so that no test swallows it."""

    __test__ = False


@pytest.hookimpl(hookwrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Iterator[None]:
    """Refuse a test that does not say what it is, and leave those of another boot to it.

    The first is an error of collection of that test only; the others run if
    pytest was told to go on. The second comes after -k.
    """
    _keep_declared(config, items)
    yield
    _keep_those_of_this_boot(config, items)


def _keep_declared(config: pytest.Config, items: list[pytest.Item]) -> None:
    declared = []
    for item in items:
        problem = _declare(item)
        if problem:
            report = pytest.CollectReport(item.nodeid, "failed", problem, result=[])
            config.hook.pytest_collectreport(report=report)
        else:
            declared.append(item)
    items[:] = declared


def _keep_those_of_this_boot(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = os.environ.get("KPW_BOOT", "")
    elsewhere = [item for item in items if _boot(item) != here]
    for item in elsewhere:
        _elsewhere.setdefault(_boot(item), []).append(item.nodeid)
    if elsewhere:
        items[:] = [item for item in items if _boot(item) == here]
        config.hook.pytest_deselected(items=elsewhere)


def _boot(item: pytest.Item) -> str:
    """Return the words a test wants on the kernel's command line besides the usual ones."""
    marker = item.get_closest_marker("boot")
    return "" if marker is None else str(marker.args[0])


_elsewhere: dict[str, list[str]] = {}


def _declare(item: pytest.Item) -> str:
    """Add what the host wants to know to a test; return what is wrong with it, or ""."""
    proof = item.get_closest_marker("proof")
    control = item.get_closest_marker("control")
    if (proof is None) == (control is None):
        return "mark it with either proof(red=...) or control"
    boot = item.get_closest_marker("boot")
    if boot is not None and (len(boot.args) != 1 or boot.kwargs or not str(boot.args[0]).strip()):
        return "boot wants the words for the kernel's command line"
    red = ""
    if proof is not None:
        red = proof.kwargs.get("red", "")
        if not red or set(proof.kwargs) != {"red"} or proof.args:
            return "proof wants red=, the failure expected on a kernel without the extension"
        try:
            re.compile(red)
        except re.error as error:
            return f"red is not a regular expression: {error}"
    item.user_properties += [
        ("kpw.kind", "control" if proof is None else "proof"),
        ("kpw.red", red),
        ("kpw.extension", item.path.parent.name),
        ("kpw.deadline", _deadline(item)),
    ]
    return ""


def _deadline(item: pytest.Item) -> float:
    marker = item.get_closest_marker("deadline")
    return float(marker.args[0]) if marker is not None else DEFAULT_DEADLINE


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell the host which tests it has to hear of."""
    _tell(
        session.config,
        {
            "kpw": "collected",
            "nodeids": [item.nodeid for item in session.items],
            "elsewhere": _elsewhere,
            "tests": [{"nodeid": item.nodeid, **_properties(item)} for item in session.items],
        },
    )


def _properties(item: pytest.Item) -> dict[str, object]:
    return {name.removeprefix("kpw."): value for name, value in item.user_properties}


def _tell(config: pytest.Config, line: dict[str, object]) -> None:
    # The results port can be opened once only, so it is pytest-reportlog's handle
    # that is used; without --report-log there is nobody to tell.
    log: Any = getattr(config, "_report_log_plugin", None)
    if log is not None:
        log._write_json_data(line)


def pytest_runtest_logstart(nodeid: str) -> None:
    """Start a test's clock."""
    _clocks[nodeid] = time.monotonic()
    _mark_console(nodeid)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Announce a test before anything of it runs."""
    _tell(item.config, {"kpw": "start", "nodeid": item.nodeid, "deadline": _deadline(item)})
    with _alarm(item):
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """End a test that overstays: the others shall still run."""
    with _alarm(item):
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Give the undoing a few seconds even when the test used up its own."""
    with _alarm(item):
        yield


_clocks: dict[str, float] = {}


def _mark_console(nodeid: str) -> None:
    """Let a splat in the kernel's log be known by the test it follows."""
    if os.environ.get("KPW_MARK_CONSOLE"):
        with contextlib.suppress(OSError):
            Path("/dev/kmsg").write_text(f"<4>kpw: test {nodeid}\n", encoding="utf-8")


@contextlib.contextmanager
def _alarm(item: pytest.Item) -> Iterator[None]:
    """Raise TestDeadlineError in the test when its time is up; once only.

    A second ring could hit pytest itself while it writes the first one down.
    """
    seconds = _deadline(item)
    left = seconds - (time.monotonic() - _clocks[item.nodeid])

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise TestDeadlineError(f"no end after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(left, LEAST_SECONDS))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def netns() -> Iterator[namespaces.Namespace]:
    """One network namespace of its own."""
    with namespaces.namespace("netns") as made:
        yield made


@pytest.fixture
def other_netns() -> Iterator[namespaces.Namespace]:
    """Give a second namespace, which must notice nothing."""
    with namespaces.namespace("other netns") as made:
        yield made


@pytest.fixture
def pair() -> Iterator[namespaces.Pair]:
    """Two namespaces, ``left`` and ``right``, joined by a veth."""
    with namespaces.veth_pair() as made:
        yield made
