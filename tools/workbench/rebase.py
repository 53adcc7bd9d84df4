# SPDX-License-Identifier: GPL-2.0-only
"""Port the series to a kernel without a work tree, and say what became of each patch.

The result is what ``git am -3`` gives, patch by patch (:mod:`workbench.porter`).
What an extension restores is a commit of its own before its first patch.
"""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import series
from workbench.bases import Bases, downloaded
from workbench.dependents import Step, dependents
from workbench.extensions import patches_for, restores_for
from workbench.model import PatchOutcome, RebasedSeries
from workbench.patchfile import PatchFile, read_patch
from workbench.porter import Bench, Porter, Task
from workbench.progress import Progress, Silent
from workbench.restore import Restoring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from workbench.declared import Extension
    from workbench.gitstore import Store
    from workbench.model import Kernel, KernelTag
    from workbench.paths import Paths
    from workbench.porter import Ported
    from workbench.standoff import Standoff


@dataclass(frozen=True)
class Halted:
    """A series up to one patch: how it stands there, None when the patch is in (or need not be).

    The commit of ``series``, which has no ref, is what the patch does not go into.
    """

    series: RebasedSeries
    patch: PatchFile
    standoff: Standoff | None


def rebase(
    paths: Paths,
    store: Store,
    kernel: Kernel,
    extensions: Sequence[Extension],
    progress: Progress | None = None,
    *,
    obtain_base: Callable[[KernelTag], Kernel] | None = None,
    repo: Path | None = None,
) -> RebasedSeries:
    """Port the patches of ``extensions``, in their order, to ``kernel``.

    Never stops at the first patch that does not apply. ``obtain_base`` brings
    the kernel a patch was made on, should a merge need one that is not in the
    store, and the kernel files are restored from (None: out of ``repo``, else
    download it). A conflict is explained by the history of ``repo``, if it has
    the kernel.
    UsageError for a malformed patch, before anything is tried.
    """
    progress = progress or Silent()
    obtain = obtain_base or downloaded(paths, progress, repo)
    bench = Bench(store, extensions, paths.patches, obtain, repo)
    with tempfile.TemporaryDirectory(prefix="kpw-rebase-") as name:
        rebaser = Rebaser(bench, Path(name))
        return rebaser.port(kernel, _counting(progress, kernel, len(rebaser.tasks(kernel))))


def halt_at(
    paths: Paths,
    store: Store,
    kernel: Kernel,
    extensions: Sequence[Extension],
    patch: Path,
    progress: Progress | None = None,
    *,
    repo: Path | None = None,
) -> Halted:
    """Port the patches of ``extensions`` as :func:`rebase` does, up to and with one."""
    progress = progress or Silent()
    bench = Bench(store, extensions, paths.patches, downloaded(paths, progress, repo))
    with tempfile.TemporaryDirectory(prefix="kpw-rebase-") as name:
        rebaser = Rebaser(bench, Path(name))
        tell = _counting(progress, kernel, len(rebaser.tasks(kernel)))
        return rebaser.halt_at(kernel, patch, tell)


def _counting(progress: Progress, kernel: Kernel, total: int) -> Callable[[], None]:
    done = itertools.count()
    return lambda: progress.step(f"{kernel.name}: rebase", next(done), total)


class Rebaser:
    """Ports one series to any number of kernels; what they share is worked out once.

    Two threads may port to two kernels at the same time.
    """

    def __init__(self, bench: Bench, folder: Path) -> None:
        """``folder`` is scratch."""
        self._bench = bench
        self._folder = folder
        self._bases = Bases(bench.store, bench.extensions, folder, bench.obtain)
        self._names = tuple(each.name for each in bench.extensions)

    def tasks(self, kernel: Kernel) -> list[Task | Restoring]:
        """Return what is to be done on a kernel; UsageError for a malformed patch."""
        return [task for each in self._bench.extensions for task in _tasks(each, kernel.tag)]

    def port(self, kernel: Kernel, tell: Callable[[], None]) -> RebasedSeries:
        """Port the series to one kernel; ``tell`` is called before each patch."""
        tasks = self.tasks(kernel)
        ported, _ = self._ported(kernel, tasks, tell)
        return self._written(series.ref_name(kernel, self._names), kernel, tasks, ported)

    def halt_at(self, kernel: Kernel, patch: Path, tell: Callable[[], None]) -> Halted:
        """Port the series to one kernel, up to and with one patch."""
        tasks = self.tasks(kernel)
        last = next(
            at
            for at, task in enumerate(tasks)
            if isinstance(task, Task) and task.patch.path == patch
        )
        del tasks[last + 1 :]
        ported, standoffs = self._ported(kernel, tasks, tell)
        done = self._written("", kernel, tasks, ported)
        return Halted(done, read_patch(patch), standoffs.get(patch))

    def _ported(
        self, kernel: Kernel, tasks: Sequence[Task | Restoring], tell: Callable[[], None]
    ) -> tuple[list[Ported], dict[Path, Standoff]]:
        """Port patches; also return where those stood that did not go in."""
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            porter = Porter(self._bench, kernel, self._bases, Path(name))
            ported = []
            for task in tasks:
                tell()
                ported.append(porter.port(task))
        return ported, porter.standoffs

    def _written(
        self,
        ref: str,
        kernel: Kernel,
        tasks: Sequence[Task | Restoring],
        ported: Sequence[Ported],
    ) -> RebasedSeries:
        """Make the commits, and put outcomes beside them."""
        store = self._bench.store
        pairs = list(zip(tasks, ported, strict=True))
        additions = [
            series.Addition(task.mail, each.changes) for task, each in pairs if each.changes
        ]
        commits = series.write(store, kernel, ref, additions)
        commit = commits[-1] if commits else kernel.commit
        tree = store.tree_of(commit) if commits else kernel.tree
        outcomes = _outcomes(tasks, ported, commits)
        return RebasedSeries(kernel, self._names, outcomes, commit, tree, ref)


def _tasks(extension: Extension, tag: KernelTag) -> Iterator[Task | Restoring]:
    for restore in restores_for(extension, tag):
        yield Restoring(extension, restore)
    for path, base in patches_for(extension, tag):
        yield Task(extension, read_patch(path), base)


def _outcomes(
    tasks: Sequence[Task | Restoring], ported: Sequence[Ported], commits: Sequence[str]
) -> tuple[PatchOutcome, ...]:
    left = iter(commits)
    steps = [_step(task) for task in tasks]
    return tuple(
        PatchOutcome(
            extension=task.extension.name,
            patch=task.label,
            subject=task.mail.subject,
            state=each.state,
            commit=next(left) if each.changes else None,
            offsets=each.offsets,
            conflicts=each.conflicts,
            detail=each.detail,
            hunks=each.hunks,
            needed_by=() if each.state.applies else dependents(steps[at], steps[at + 1 :]),
            inferred_base=each.inferred_base,
        )
        for at, (task, each) in enumerate(zip(tasks, ported, strict=True))
    )


def _step(task: Task | Restoring) -> Step:
    patch = task.patch if isinstance(task, Task) else None
    extension = task.extension
    return Step(extension.name, task.label, task.touched, patch, extension.requires)
