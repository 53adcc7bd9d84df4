# SPDX-License-Identifier: GPL-2.0-only
"""Progress on a terminal: one moving line, and above it what took how long."""

from __future__ import annotations

import threading
import time
from typing import IO, TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from workbench.printable import safe
from workbench.progress import amount

if TYPE_CHECKING:
    from types import TracebackType

# A step that took less leaves no line behind.
_WORTH_A_LINE = 0.5


class _Bar(ProgressColumn):
    """A bar and a percentage, but only for a step that knows its total."""

    def __init__(self) -> None:
        super().__init__()
        self._bar = BarColumn(bar_width=24)

    def render(self, task: Task) -> Text | object:  # type: ignore[override]
        if not task.total:
            return Text("")
        return self._bar.render(task)


class _Numbers(ProgressColumn):
    """How much of how much, where that is known, and the seconds since the step began."""

    def render(self, task: Task) -> Text:
        return Text(f"{_counted(task)}{task.elapsed or 0:.0f} s", style="dim")


def _counted(task: Task) -> str:
    if unit := task.fields["unit"]:
        return f"{amount(task.completed, task.total, unit)}, "
    return f"{task.percentage:3.0f} % " if task.total else ""


class Live:
    """A progress for terminals; use it as a context manager.

    Safe to be told from several threads.
    """

    def __init__(self, stream: IO[str]) -> None:
        """Draw on ``stream``."""
        console = Console(file=stream, highlight=False, emoji=False, markup=False)
        text = TextColumn("{task.description}", markup=False)
        columns = (SpinnerColumn(), text, _Bar(), _Numbers())
        # stdout stays what the command prints: it may be a pipe.
        self._bar = Progress(*columns, console=console, transient=True, redirect_stdout=False)
        self._lock = threading.Lock()
        self._what = ""
        self._since = 0.0

    def __enter__(self) -> Self:
        """Start to draw."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was; the last step is told only if it came to its end."""
        with self._lock:
            if kind is None:
                self._tell_ended()
            self._bar.stop()

    def step(
        self, what: str, done: float | None = None, total: float | None = None, unit: str = ""
    ) -> None:
        """Show a step; the one before it is over when the words change."""
        with self._lock:
            if what != self._what:
                self._tell_ended()
                for task in self._bar.task_ids:
                    self._bar.remove_task(task)
                self._bar.add_task(what, total=None, unit=unit)
                self._what, self._since = what, time.monotonic()
            for task in self._bar.task_ids:
                self._bar.update(task, completed=done or 0, total=total, unit=unit)

    def note(self, line: str) -> None:
        """Print a line above the moving one."""
        self._bar.console.print(safe(line), soft_wrap=True)

    def _tell_ended(self) -> None:
        took = time.monotonic() - self._since
        if self._what and took >= _WORTH_A_LINE:
            self._bar.console.print(Text(f"{self._what} ({took:.1f} s)", style="dim"))
