# SPDX-License-Identifier: GPL-2.0-only
"""Signals as exceptions: Ctrl-C, SIGTERM and SIGHUP all unwind the stack."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# A second Ctrl-C while the stack unwinds would break off the clean-up and
# leave what it was about to remove; after this many seconds it is believed.
_PATIENCE = 5.0


class Terminated(BaseException):
    """SIGTERM or SIGHUP; like KeyboardInterrupt no ``except Exception`` may eat it."""


class _Once:
    """A handler that raises, and is deaf for a while after it did."""

    def __init__(self) -> None:
        self._deaf_until = 0.0

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if time.monotonic() >= self._deaf_until:
            self._deaf_until = time.monotonic() + _PATIENCE
            _raise_for(number)


def _raise_for(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(number)


@contextlib.contextmanager
def as_exceptions() -> Iterator[None]:
    """Turn SIGINT into KeyboardInterrupt, SIGTERM and SIGHUP into Terminated.

    A signal that the parent told us to ignore (nohup, a background job)
    stays ignored. Outside the main thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _Once()
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
