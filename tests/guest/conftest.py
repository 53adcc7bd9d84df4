# SPDX-License-Identifier: GPL-2.0-only
"""What each selftest declares, what the host hears about it, and the shared fixtures.

Through pytest-reportlog's file the host gets, besides pytest's own reports,
one line after collection ({"kpw": "collected"}) and one before each test
({"kpw": "start"}), so that it knows what is lost when the guest dies. The
first also names the tests that want a kernel booted with other words
("elsewhere"): the host boots another guest for them. Tests that belong to
another flavour of the kernel are nobody's business here, and are not named.
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
    from collections.abc import Callable, Iterator
    from types import FrameType

    from _pytest._io import TerminalWriter

DEFAULT_DEADLINE = 60
LEAST_SECONDS = 5
KMEMLEAK = Path("/sys/kernel/debug/kmemleak")
LEAK_MUST_BE_OLDER = 5.5


class TestDeadlineError(BaseException):
    """A test took longer than it said; not an Exception, so that no test swallows it."""

    __test__ = False


@pytest.hookimpl(hookwrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Iterator[None]:
    """Refuse a test that does not say what it is, and leave those of another guest to it.

    The first is an error of collection of that test only; the others run if
    pytest was told to go on. What is of another flavour, and then what is of
    another boot, goes after -k.
    """
    _keep_declared(config, items)
    yield
    _keep(config, items, _is_of_this_flavour)
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
    _keep(config, items, lambda item: _boot(item) == here)


def _keep(
    config: pytest.Config, items: list[pytest.Item], wanted: Callable[[pytest.Item], bool]
) -> None:
    """Leave the others out, and tell pytest of them."""
    left_out = [item for item in items if not wanted(item)]
    if left_out:
        items[:] = [item for item in items if wanted(item)]
        config.hook.pytest_deselected(items=left_out)


def _is_of_this_flavour(item: pytest.Item) -> bool:
    """Tell whether a test belongs to runs of this kernel's flavour, as most do to all."""
    here = os.environ.get("KPW_FLAVOUR", "plain")
    names = (str(marker.args[0]) for marker in item.iter_markers("flavour"))
    return all(name[1:] != here if name.startswith("!") else name == here for name in names)


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
    wrong = _wrong_place(item)
    if wrong:
        return wrong
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


def _wrong_place(item: pytest.Item) -> str:
    """Return what is wrong with the boot or the flavour a test asks for, or ""."""
    boot = item.get_closest_marker("boot")
    if boot is not None and not _is_one_word(boot):
        return "boot wants the words for the kernel's command line"
    problems = (_wrong_flavour(marker) for marker in item.iter_markers("flavour"))
    return next(filter(None, problems), "")


def _wrong_flavour(marker: pytest.Mark) -> str:
    if not _is_one_word(marker):
        return "flavour wants one name, or one with ! before it for all but that"
    name = str(marker.args[0]).removeprefix("!")
    known = os.environ.get("KPW_FLAVOURS", name).split()
    if name in known:
        return ""
    # Nothing else here needs it, and every module costs the guest's slow CPU.
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"no flavour {name!r} in kconfigs/flavour: {hint}"


def _is_one_word(marker: pytest.Mark) -> bool:
    return len(marker.args) == 1 and not marker.kwargs and bool(str(marker.args[0]).strip())


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


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """After an extension's last test look for memory that nothing points to any more."""
    yield
    folder = item.path.parent
    if nextitem is None or nextitem.path.parent != folder:
        _scan_for_leaks(folder.name, item.config.get_terminal_writer())


def _scan_for_leaks(extension: str, output: TerminalWriter) -> None:
    """Let kmemleak, where the kernel has it, say on the console what leaked; the host hears it.

    It leaves out what is younger than five seconds, and what changed since the
    scan before: hence the wait and the second scan. What it knows of each leak
    goes to the command's output.
    """
    if not KMEMLEAK.exists():
        return
    _mark_console(f"{extension}/kmemleak")
    time.sleep(LEAK_MUST_BE_OLDER)
    for _ in range(2):
        KMEMLEAK.write_text("scan", encoding="ascii")
    output.write(KMEMLEAK.read_text(encoding="ascii", errors="replace"))
    KMEMLEAK.write_text("clear", encoding="ascii")


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
