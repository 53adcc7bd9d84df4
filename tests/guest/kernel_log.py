# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel says in its log while a test runs."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def kernel_log() -> Iterator[Callable[[], str]]:
    """Give a reader of what the kernel logs from now on; each call gives what is new."""
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.lseek(log, 0, os.SEEK_END)
        yield lambda: "".join(_records(log))
    finally:
        os.close(log)


def _records(log: int) -> Iterator[str]:
    with contextlib.suppress(BlockingIOError):
        while True:
            yield os.read(log, 8192).decode(errors="replace")
