# SPDX-License-Identifier: GPL-2.0-only
"""Port the series to several kernels: what they share is read and worked out once."""

from __future__ import annotations

import os
import tempfile
import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

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

    UsageError for a malformed patch of any kernel, before anything is tried. A
    base is obtained in the thread that calls, so that Ctrl-C breaks it off.
    """
    progress = progress or Silent()
    with tempfile.TemporaryDirectory(prefix="kpw-rebase-") as name:
        errands = _Errands(obtain_base or downloaded(paths, progress, repo))
        rebaser = Rebaser(Bench(store, extensions, paths.patches, errands.ask, repo), Path(name))
        count = _Count(progress, sum(len(rebaser.tasks(kernel)) for kernel in kernels))

        def tell() -> None:
            errands.go_on()
            count.tell()

        # Threads, since git does half of the work.
        pool = ThreadPoolExecutor(max_workers=min(len(kernels), os.cpu_count() or 1) or 1)
        try:
            ports = [pool.submit(rebaser.port, kernel, tell) for kernel in kernels]
            errands.run_for(ports)
            return [port.result() for port in ports]
        finally:
            errands.end()
            pool.shutdown(cancel_futures=True)


class _Errand(NamedTuple):
    """A kernel to obtain, and where whoever asked waits for it."""

    tag: KernelTag
    answer: Future[Kernel]


class _Errands:
    """What threads must have from outside; the thread that started them goes for it.

    A signal interrupts that one alone: in any other a download, and the
    import after it, would run to its end first.
    """

    def __init__(self, obtain: Callable[[KernelTag], Kernel]) -> None:
        self._obtain = obtain
        self._news: SimpleQueue[Future[RebasedSeries] | _Errand] = SimpleQueue()
        self._guard = threading.Lock()
        self._given: list[_Errand] = []
        self._ended = False

    def ask(self, tag: KernelTag) -> Kernel:
        """Have a kernel obtained, and wait for it."""
        errand = _Errand(tag, Future())
        with self._guard:
            self.go_on()
            self._given.append(errand)
        self._news.put(errand)
        return errand.answer.result()

    def go_on(self) -> None:
        """End the thread that asks, if nobody waits for it any more."""
        if self._ended:
            raise CancelledError

    def run_for(self, ports: Sequence[Future[RebasedSeries]]) -> None:
        """Run errands until all are done; the first fault is raised, and ends it."""
        for port in ports:
            port.add_done_callback(self._news.put)
        left = len(ports)
        while left:
            news = self._news.get()
            if isinstance(news, Future):
                news.result()
                left -= 1
            else:
                self._run(news)

    def _run(self, errand: _Errand) -> None:
        try:
            errand.answer.set_result(self._obtain(errand.tag))
        except Exception as error:  # noqa: BLE001 - whoever asked is to judge it
            errand.answer.set_exception(error)

    def end(self) -> None:
        """Let nobody wait, or begin another patch."""
        with self._guard:
            self._ended = True
            for errand in self._given:
                errand.answer.cancel()


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
