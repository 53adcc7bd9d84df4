# SPDX-License-Identifier: GPL-2.0-only
"""Read a kernel console as it comes: what happened, and the lines that say so.

The console belongs to the kernel alone (a test's output leaves by another
way), so a pattern that matches is the kernel's word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from workbench.errors import UsageError
from workbench.model import Splat, SplatKind

if TYPE_CHECKING:
    from pathlib import Path

# "<4>", "[    1.234567]", "[   T12]" or "[  C0]": each may be missing.
_PREFIX = re.compile(r"(?:<\d+>)?(?:\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?)?")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\r")
_END = re.compile(r"---\[ end ")
# Lines of a report, and lines quoted from before it.
_LONGEST = 60
_BEFORE = 2
_MOST_REPORTS = 50


class Pattern(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sign of trouble: what it is a sign of, and ``why``.

    A ``part`` belongs to a report that is open, and starts one only if none is.
    """

    kind: str
    regex: str
    why: str
    part: bool = False


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pattern: tuple[Pattern, ...]


def load_patterns(path: Path) -> tuple[Pattern, ...]:
    """Read console.toml; UsageError when a kind or an expression is none."""
    try:
        patterns = msgspec.toml.decode(path.read_bytes(), type=_File).pattern
        for pattern in patterns:
            SplatKind(pattern.kind)
            re.compile(pattern.regex)
    except (OSError, msgspec.MsgspecError, re.error, ValueError) as error:
        raise UsageError(str(error), where=str(path), next_step="mend the file") from error
    return patterns


@dataclass
class _Report:
    kind: SplatKind
    first: int
    at: float
    last: int | None = None


class Classifier:
    """Takes a console in pieces and knows at any time what went wrong so far."""

    def __init__(self, patterns: tuple[Pattern, ...]) -> None:
        """Compile the patterns; their order is kept."""
        self._patterns = [(re.compile(p.regex), SplatKind(p.kind), p.part) for p in patterns]
        self._lines: list[str] = []
        self._rest = ""
        self._reports: list[_Report] = []

    def feed(self, text: str, at: float) -> tuple[SplatKind, ...]:
        """Take more of the console, seen ``at`` seconds; return what is new in it."""
        known = len(self._reports)
        *lines, self._rest = (self._rest + _ESCAPES.sub("", text)).split("\n")
        for line in lines:
            self._take(line, at)
        return tuple(report.kind for report in self._reports[known:])

    def close(self, at: float) -> tuple[Splat, ...]:
        """Take what is left of the last line; return everything that went wrong, in order."""
        if self._rest:
            self.feed("\n", at)
        return tuple(self._splat(report) for report in self._reports)

    def tail(self, lines: int = 20) -> str:
        """Return the console's last lines."""
        return "\n".join([*self._lines, self._rest][-lines:]).strip("\n")

    def _take(self, line: str, at: float) -> None:
        self._lines.append(line)
        here = len(self._lines) - 1
        message = line[_PREFIX.match(line).end() :]  # type: ignore[union-attr]
        still = self._open(here)
        kind, part = self._match(message)
        if kind is not None and not self._belongs(kind, still, part=part):
            if still is not None:
                still.last = here - 1
            if len(self._reports) < _MOST_REPORTS:
                self._reports.append(_Report(kind, here, at))
        elif still is not None and _END.match(message):
            still.last = here

    def _open(self, here: int) -> _Report | None:
        if not self._reports or self._reports[-1].last is not None:
            return None
        report = self._reports[-1]
        if here - report.first >= _LONGEST:
            report.last = here - 1
            return None
        return report

    def _match(self, message: str) -> tuple[SplatKind | None, bool]:
        for regex, kind, part in self._patterns:
            if regex.match(message):
                return kind, part
        return None, False

    @staticmethod
    def _belongs(kind: SplatKind, still: _Report | None, *, part: bool) -> bool:
        """Tell whether a match is one more line of the open report."""
        if still is None:
            return False
        if part and still.kind in {SplatKind.OOPS, SplatKind.BUG} and kind is SplatKind.KASAN:
            still.kind = kind
        return part or kind is still.kind

    def _splat(self, report: _Report) -> Splat:
        last = report.last if report.last is not None else report.first + _LONGEST
        lines = self._lines[max(0, report.first - _BEFORE) : last + 1]
        first = self._lines[report.first]
        line = first[_PREFIX.match(first).end() :]  # type: ignore[union-attr]
        return Splat(report.kind, line, "\n".join(lines).rstrip("\n"), report.at)
