# SPDX-License-Identifier: GPL-2.0-only
"""What the guest says: pytest-reportlog lines, and the workbench's own beside them.

Pure: bytes in, frozen results out. Nothing passes by absence. A test has
a result only when its tear-down was reported; what was collected and has none
is *lost*.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from workbench.model import SelftestResult, TestKind

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_DEADLINE: Final = 60.0
# A runaway assertion message must not make the report unreadable or huge.
_MESSAGE_LIMIT: Final = 4_000
_DETAIL_LIMIT: Final = 64_000
_SETUP_FAILED: Final = {"setup": "in set-up: ", "teardown": "in tear-down: "}


class Line(msgspec.Struct):
    """One line of the results port; which fields are there depends on its kind."""

    kpw: str = ""
    nodeids: tuple[str, ...] = ()
    elsewhere: dict[str, tuple[str, ...]] = {}
    deadline: float = 0.0
    status: int | None = None
    report_type: str = msgspec.field(name="$report_type", default="")
    nodeid: str = ""
    when: str = ""
    outcome: str = ""
    duration: float = 0.0
    longrepr: Any = None
    user_properties: tuple[tuple[str, Any], ...] = ()
    sections: tuple[tuple[str, str], ...] = ()
    exitstatus: int | None = None
    wasxfail: str | None = None


class ReportLog:
    """The lines of one guest run, taken one by one as they arrive."""

    def __init__(self, expected: tuple[str, ...] = ()) -> None:
        """Start with nothing but the tests another guest left to this one."""
        self.collected = expected
        self.elsewhere: dict[str, tuple[str, ...]] = {}
        self.session_status: int | None = None
        self.exit_status: int | None = None
        self.damaged = 0
        self._decoder = msgspec.json.Decoder(Line)
        self._started: tuple[str, float] = ("", DEFAULT_DEADLINE)
        self._done: dict[str, SelftestResult] = {}
        self._open: dict[str, SelftestResult] = {}

    def feed(self, raw: bytes | str) -> SelftestResult | None:
        """Take one line; return the test's result when the line completes one.

        A line that is not what it should be (torn by the guest's death) is
        counted in ``damaged`` and otherwise ignored.
        """
        if not raw.strip():
            return None
        try:
            line = self._decoder.decode(raw)
        except (msgspec.DecodeError, msgspec.ValidationError):
            self.damaged += 1
            return None
        if line.kpw == "collected":
            self.collected = tuple(dict.fromkeys((*self.collected, *line.nodeids)))
            self.elsewhere = line.elsewhere
        elif line.kpw == "start":
            self._started = (line.nodeid, line.deadline or DEFAULT_DEADLINE)
        elif line.kpw == "exit":
            self.exit_status = line.status
        elif line.report_type == "SessionFinish":
            self.session_status = line.exitstatus
        elif line.report_type == "CollectReport" and line.outcome == "failed":
            return self._complete(_collection_error(line))
        elif line.report_type == "TestReport":
            return self._phase(line)
        return None

    def feed_all(self, lines: Iterable[bytes]) -> None:
        """Take all lines of a finished run."""
        for line in lines:
            self.feed(line)

    @property
    def results(self) -> tuple[SelftestResult, ...]:
        """The completed tests, in the order they ended."""
        return tuple(self._done.values())

    @property
    def lost(self) -> tuple[str, ...]:
        """The tests that were collected, or begun, and have no result; the one under way first."""
        named = dict.fromkeys((self._started[0], *self._open, *self.collected))
        return tuple(nodeid for nodeid in named if nodeid and nodeid not in self._done)

    @property
    def running(self) -> str:
        """The test under way, as the guest announced it; empty between tests."""
        nodeid = self._started[0]
        return "" if nodeid in self._done else nodeid

    @property
    def complete(self) -> bool:
        """True when pytest said its session ended, no result is missing and no line was torn."""
        return self.session_status is not None and not self.lost and not self.damaged

    def deadline(self) -> float:
        """Return how many seconds the test under way may take."""
        return self._started[1]

    def _phase(self, line: Line) -> SelftestResult | None:
        before = self._open.pop(line.nodeid, None) or _begin(line)
        after = _after_phase(before, line)
        if line.when == "teardown":
            return self._complete(after)
        self._open[line.nodeid] = after
        return None

    def _complete(self, result: SelftestResult) -> SelftestResult:
        if not result.outcome:
            # Set-up and tear-down alone prove nothing.
            result = replace(result, outcome="error", message="the test was never called")
        self._done[result.nodeid] = result
        return result


def extension_of(nodeid: str) -> str:
    """Return the folder a test lies in, which is named after its extension."""
    return nodeid.partition("/")[0] if "/" in nodeid else ""


def short(nodeid: str) -> str:
    """Return a test's name without its extension's folder, for where that is said already."""
    return nodeid.partition("/")[2] or nodeid


def first_line(message: str) -> str:
    """Return the line of a failure message that a one-line report shows."""
    return message.strip().partition("\n")[0].strip()


def _begin(line: Line) -> SelftestResult:
    known = {str(name): value for name, value in line.user_properties}
    kind = TestKind.PROOF if known.get("kpw.kind") == "proof" else TestKind.CONTROL
    extension = known.get("kpw.extension") or extension_of(line.nodeid)
    red = known.get("kpw.red") or ""
    return SelftestResult(str(extension), line.nodeid, kind, outcome="", red=str(red))


def _after_phase(result: SelftestResult, line: Line) -> SelftestResult:
    """Return the result with one phase (setup, call or teardown) added to it."""
    result = replace(result, seconds=result.seconds + line.duration)
    if line.wasxfail is not None:
        forbidden = "xfail is not allowed: a proof says what it expects with its red pattern"
        return replace(result, outcome="error", message=forbidden)
    if line.outcome == "passed":
        return replace(result, outcome=result.outcome or ("passed" if line.when == "call" else ""))
    message = _message(line.longrepr)
    detail = _detail(line)
    if line.outcome == "skipped":
        return replace(result, outcome="skipped", message=message, detail=detail)
    if result.outcome == "failed":
        # The call's own failure is the answer; the tear-down's is told with it.
        return replace(result, detail=f"{result.detail}\n\n{detail}"[:_DETAIL_LIMIT])
    where = _SETUP_FAILED.get(line.when)
    outcome = "failed" if where is None else "error"
    return replace(result, outcome=outcome, message=f"{where or ''}{message}", detail=detail)


def _collection_error(line: Line) -> SelftestResult:
    message = _message(line.longrepr)
    return SelftestResult(
        extension_of(line.nodeid),
        line.nodeid,
        TestKind.CONTROL,
        outcome="error",
        message=f"cannot be collected: {message}",
        detail=_detail(line),
    )


def _message(longrepr: object) -> str:
    """Return the failure's own message: pytest's crash line, or the skip's reason."""
    if isinstance(longrepr, dict):
        crash = longrepr.get("reprcrash")
        if isinstance(crash, dict) and crash.get("message"):
            return str(crash["message"]).strip()[:_MESSAGE_LIMIT]
        if longrepr.get("longrepr"):
            return _last_line(str(longrepr["longrepr"]))
    if isinstance(longrepr, list) and longrepr:
        return str(longrepr[-1]).strip()[:_MESSAGE_LIMIT]
    if isinstance(longrepr, str) and longrepr.strip():
        return _last_line(longrepr)
    return "no message"


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("E ").strip()[:_MESSAGE_LIMIT] if lines else "no message"


def _detail(line: Line) -> str:
    """Return the traceback and what the test printed."""
    parts: list[str] = []
    if isinstance(line.longrepr, str):
        parts.append(line.longrepr)
    elif isinstance(line.longrepr, dict):
        parts += _traceback(line.longrepr.get("reprtraceback"))
    parts += [f"--- {title} ---\n{text}" for title, text in line.sections if text.strip()]
    return "\n".join(parts)[:_DETAIL_LIMIT]


def _traceback(found: object) -> list[str]:
    entries = found.get("reprentries") if isinstance(found, dict) else None
    text: list[str] = []
    for entry in entries or ():
        data = entry.get("data") if isinstance(entry, dict) else None
        if not isinstance(data, dict):
            continue
        text += [str(shown) for shown in data.get("lines") or ()]
        place = data.get("reprfileloc")
        if isinstance(place, dict):
            text.append(f"{place.get('path')}:{place.get('lineno')}: {place.get('message')}")
    return text
