# SPDX-License-Identifier: GPL-2.0-only
"""Work beside the main thread: a guest takes one processor, and the host has more."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_Found = TypeVar("_Found")


class Beside:
    """One piece of work at a time in a thread of its own; use it as a context manager.

    Signals come to the main thread alone. So on leaving, whatever is still
    worked on is given up: it is to call :meth:`go_on` often.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._given_up = threading.Event()

    def __enter__(self) -> Self:
        """Take work from here on."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give up what is left, and wait for its clean-up."""
        self._given_up.set()
        self._pool.shutdown(cancel_futures=True)

    def start(self, work: Callable[[], _Found]) -> Future[_Found]:
        """Begin ``work``; the future has what it returns, or raises what it raises."""
        return self._pool.submit(work)

    def go_on(self) -> None:
        """Raise CancelledError in who asks when nobody waits for the result any more."""
        if self._given_up.is_set():
            raise CancelledError
