# SPDX-License-Identifier: GPL-2.0-only
"""Packets that a thread sends one after the other while a test changes what decides on them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

import pytest

from namespaces import SetUpError, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

#: The packets are on one CPU and what changes on another.
TWO_CPUS = pytest.mark.boot("maxcpus=2")
_PATIENCE = 20


class Stream:
    """A thread that calls ``send`` with 1, 2, 3 and so on; ``sent`` is the last it is done with."""

    def __init__(self, send: Callable[[int], object]) -> None:
        """Say what sends one; it begins with the ``with``."""
        self.sent = 0
        self._send = send
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._broke: Exception | None = None

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End, after the packet that is being sent."""
        self._over.set()
        self._thread.join()
        if self._broke is not None and kind is None:
            raise self._broke

    def more(self, count: int) -> range:
        """Wait for so many more packets; return the numbers sent in between, all but the edges."""
        # The next one may have been half on its way.
        first = self.sent + 2
        self.until(lambda: self.sent > first + count)
        return range(first, self.sent + 1)

    def until(self, enough: Callable[[], bool]) -> None:
        """Go on until something is so; SetUpError after a while."""
        if not wait_until(lambda: enough() or self._broke is not None, seconds=_PATIENCE):
            raise SetUpError(f"after {self.sent} packets it is not yet enough")

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                self._send(self.sent + 1)
                self.sent += 1
        except Exception as error:  # noqa: BLE001 raised again where the test is
            self._broke = error
