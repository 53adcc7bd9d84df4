# SPDX-License-Identifier: GPL-2.0-only
"""How long work tells of itself while it runs."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import IO, TYPE_CHECKING, Protocol

from workbench.printable import safe

if TYPE_CHECKING:
    from collections.abc import Iterator


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


class Plain:
    """One line whenever the step changes: for logs and pipes."""

    def __init__(self, stream: IO[str]) -> None:
        """Write to ``stream`` (stderr, so that --json stays clean)."""
        self._stream = stream
        self._last = ""

    def step(
        self, what: str, done: float | None = None, total: float | None = None, unit: str = ""
    ) -> None:
        """Print a step once, however often its numbers move."""
        if what != self._last:
            self._last = what
            self.note(what)

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
