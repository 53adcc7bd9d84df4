# SPDX-License-Identifier: GPL-2.0-only
"""Port the series to several kernels: what they share is read and worked out once."""

from __future__ import annotations

import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.bases import downloaded
from workbench.porter import Bench
from workbench.progress import Progress, Silent
from workbench.rebase import Rebaser

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workbench.declared import Extension
    from workbench.gitstore import Store
    from workbench.model import Kernel, KernelTag, RebasedSeries
    from workbench.paths import Paths


def rebase_all(
    paths: Paths,
    store: Store,
    kernels: Sequence[Kernel],
    extensions: Sequence[Extension],
    progress: Progress | None = None,
    *,
    obtain_base: Callable[[KernelTag], Kernel] | None = None,
    repo: Path | None = None,
) -> list[RebasedSeries]:
    """Port the patches of ``extensions`` to each kernel, as :func:`workbench.rebase.rebase` does.

    UsageError for a malformed patch of any kernel, before anything is tried.
    """
    progress = progress or Silent()
    with tempfile.TemporaryDirectory(prefix="kpw-rebase-") as name:
        obtain = obtain_base or downloaded(paths, progress)
        rebaser = Rebaser(Bench(store, extensions, paths.patches, obtain, repo), Path(name))
        count = _Count(progress, sum(len(rebaser.tasks(kernel)) for kernel in kernels))
        # Threads, since git does half of the work.
        pool = ThreadPoolExecutor(max_workers=min(len(kernels), os.cpu_count() or 1) or 1)
        try:
            return list(pool.map(lambda kernel: rebaser.port(kernel, count.tell), kernels))
        finally:
            pool.shutdown(cancel_futures=True)


class _Count:
    """Counts the patches of all kernels together: the kernels take turns."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0
        self._guard = threading.Lock()

    def tell(self) -> None:
        with self._guard:
            self._progress.step("rebase", self._done, self._total)
            self._done += 1
