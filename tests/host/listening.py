# SPDX-License-Identifier: GPL-2.0-only
"""A fixture for tests that send signals: the process and its children hear them."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def signals_are_heard() -> Iterator[None]:
    """Take back what a job in the background inherits: there SIGINT is ignored, under nohup SIGHUP.

    The workbench means to leave such signals ignored; a CI may well start it so.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
