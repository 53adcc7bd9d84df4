# SPDX-License-Identifier: GPL-2.0-only
"""How long work tells of itself while it runs."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import IO, TYPE_CHECKING, Final, Protocol

from workbench.printable import safe

if TYPE_CHECKING:
    from collections.abc import Iterator


_PARTS: Final = 10
# What has fewer is over before anybody asks how far it is.
_WORTH_COUNTING: Final = 20


class Progress(Protocol):
    """Something that is told how far the work is."""

    def step(
        self, what: str, done: float | None = None, total: float | None = None, unit: str = ""
    ) -> None:
        """Say what is being done now; ``done`` of ``total``.

        ``unit`` is "bytes", or what is counted ("files"); without one only the
        share is of interest. A total may be an estimate.
        """

    def note(self, line: str) -> None:
        """Say something that should stay on the screen."""


class Silent:
    """Say nothing."""

    def step(
        self, what: str, done: float | None = None, total: float | None = None, unit: str = ""
    ) -> None:
        """Ignore it."""

    def note(self, line: str) -> None:
        """Ignore it."""


def amount(done: float, total: float | None, unit: str) -> str:
    """Say how much of how much, where that is known."""
    if unit == "bytes":
        return f"{int(done) >> 20}{f' of {int(total) >> 20}' if total else ''} MiB"
    return f"{done:.0f}{f' of about {total:.0f}' if total else ''} {unit}"


class Plain:
    """One line whenever the step changes, and at each tenth of a long one: for logs and pipes."""

    def __init__(self, stream: IO[str]) -> None:
        """Write to ``stream`` (stderr, so that --json stays clean)."""
        self._stream = stream
        self._last = ""
        self._parts = 0

    def step(
        self, what: str, done: float | None = None, total: float | None = None, unit: str = ""
    ) -> None:
        """Print a step, and how far it is when that is another tenth of what is counted."""
        if what != self._last:
            self._last, self._parts = what, 0
            self.note(what)
        if not unit or (total or 0) < _WORTH_COUNTING:
            return
        parts = int(_PARTS * (done or 0) / (total or 1))
        if self._parts < parts < _PARTS:
            self._parts = parts
            self.note(f"{what}: {amount(done or 0, total, unit)}")

    def note(self, line: str) -> None:
        """Print the line."""
        self._stream.write(safe(line) + "\n")
        self._stream.flush()


@contextlib.contextmanager
def shown() -> Iterator[Progress]:
    """Give the progress display that fits stderr: live on a terminal, else plain lines."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield Plain(sys.stderr)
        return
    from workbench.live import Live

    with Live(sys.stderr) as live:
        yield live
