# SPDX-License-Identifier: GPL-2.0-only
"""Write patches back as they came out of a rebase: only those that really changed.

What a 3-way merge carries by itself needs no file of its own, and every
kernel's folder would fill with text that says the same; ``merged`` asks for
those too. A folder speaks for younger kernels as well; where one of those that
are imported would come out otherwise, it keeps the patch it has. All of this
is tried on a copy: the extension is written when the copy was read, and
rebased to the same tree.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import journal, kernelnames, rebase
from workbench.description import load
from workbench.errors import InfraError
from workbench.extensions import patches_for, with_required
from workbench.model import KernelTag, PatchState
from workbench.neighbours import Neighbours
from workbench.patchfile import parse_patch, read_patch
from workbench.resolutions import patch_id
from workbench.rewriting import contents, written_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from workbench.declared import Extension
    from workbench.gitstore import Store
    from workbench.model import Kernel, PatchOutcome, RebasedSeries
    from workbench.paths import Paths
    from workbench.progress import Progress
    from workbench.rewriting import NewPatch


@dataclass(frozen=True)
class Bench:
    """What saving works with.

    ``merged`` asks for what 3-way merges changed, too; ``dry_run`` writes
    nothing of what it tells. ``repo`` is asked for what patches stand on.
    """

    paths: Paths
    store: Store
    progress: Progress
    merged: bool = False
    dry_run: bool = False
    repo: Path | None = None

    def rebased(self, kernel: Kernel, extensions: Sequence[Extension]) -> RebasedSeries:
        """Port extensions to a kernel."""
        return rebase.rebase(
            self.paths, self.store, kernel, extensions, self.progress, repo=self.repo
        )


@dataclass(frozen=True)
class Saved:
    """What became of one extension.

    ``files`` were written, ``kept`` are the old patches in folders of their
    own, for kernels that would get the new ones otherwise, ``resolutions``
    those that the new ones need beside other extensions. ``resolved`` names
    the files that were in by a resolution, with the commits of the old ones:
    a run that proved one of them has confirmed it. ``refused`` are the
    patches that do not apply: nothing is written then.
    """

    extension: str
    files: tuple[Path, ...] = ()
    kept: tuple[Path, ...] = ()
    resolutions: tuple[Path, ...] = ()
    resolved: tuple[tuple[Path, tuple[str, ...]], ...] = ()
    refused: tuple[PatchOutcome, ...] = ()


def save(
    bench: Bench, kernel: Kernel, extensions: Sequence[Extension], extension: Extension
) -> Saved:
    """Write one extension's patches for a kernel back; ``extensions`` are all there are.

    The patches are those of the extension on what it requires, without the
    rest of the series: a patch file has to apply without it. For a kernel of
    the user's own they are those for the release it has the files from.
    """
    if extension.base is None or not patches_for(extension, kernel.tag):
        return Saved(extension.name)
    chain = with_required(extensions, extension)
    series = bench.rebased(kernel, chain)
    if refused := tuple(each for each in series.outcomes if not each.state.applies):
        return Saved(extension.name, refused=refused)
    new = _changed(bench, kernel, extension, series)
    if not new:
        return Saved(extension.name)
    names = bench.store.git("diff-tree", "-r", "-z", "--name-only", kernel.tree, series.tree)
    release = kernelnames.release_of(bench.paths, kernel, filter(None, names.split("\0")))
    if release.name != kernel.name:
        return save(bench, release, extensions, extension)
    with tempfile.TemporaryDirectory(prefix="kpw-save-") as name:
        draft = _Draft(bench, extensions, extension, Path(name))
        new, kept = _placed(draft, kernel, new)
        draft.prove(kernel, series)
        resolutions = draft.resolved_beside(kernel)
    whole = bench.rebased(kernel, extensions)
    folder = bench.paths.patches / extension.name
    files = contents(folder, [*new, *kept])
    if not bench.dry_run:
        journal.write(folder, resolutions | files)
    return Saved(
        extension.name,
        tuple(folder / each.name for each in new),
        tuple(folder / each.name for each in kept),
        tuple(folder / name for name in resolutions),
        _resolved(folder, extension, new, (series, whole)),
    )


def _resolved(
    folder: Path, extension: Extension, new: Sequence[NewPatch], ported: Sequence[RebasedSeries]
) -> tuple[tuple[Path, tuple[str, ...]], ...]:
    """Return the files that were in by a resolution, with the commits they came out as."""
    outcomes: dict[str, list[PatchOutcome]] = {}
    for outcome in (each for series in ported for each in series.outcomes):
        if outcome.extension == extension.name:
            outcomes.setdefault(outcome.patch.rpartition("/")[2], []).append(outcome)
    return tuple(
        (folder / each.name, tuple(one.commit for one in found if one.commit))
        for each in new
        if (found := outcomes[each.path.name])[0].state is PatchState.REMEMBERED
    )


class _Draft:
    """A copy of an extension with new files, to see what comes of them."""

    def __init__(
        self, bench: Bench, extensions: Sequence[Extension], extension: Extension, folder: Path
    ) -> None:
        self._bench = bench
        self._extensions = extensions
        self._chain = with_required(extensions, extension)
        self._old = extension
        self._new = extension
        self._paths = replace(bench.paths, repo=folder)
        self._copy = self._paths.patches / extension.name
        self._paths.patches.mkdir()
        for entry in bench.paths.patches.iterdir():
            if entry.name != extension.name:
                (self._paths.patches / entry.name).symlink_to(entry)

    def take(self, new: Sequence[NewPatch]) -> None:
        """Begin again from the extension as it is, with these files."""
        if self._copy.exists():
            shutil.rmtree(self._copy)
        shutil.copytree(self._bench.paths.patches / self._old.name, self._copy)
        for name, data in contents(self._copy, new).items():
            (self._copy / name).parent.mkdir(exist_ok=True)
            (self._copy / name).write_bytes(data)
        self._new = load(self._copy)

    def displaced(self, kernel: Kernel) -> list[Kernel]:
        """Return the other imported kernels, oldest first, whose tree would be another one.

        Those the old patches do not apply to do not count.
        """
        found = []
        for other in self._others(kernel):
            before = self.rebased(other, self._old)
            if before.applies and before.tree != self.rebased(other, self._new).tree:
                found.append(other)
        return found

    def _others(self, kernel: Kernel) -> Iterator[Kernel]:
        """Give the other imported kernels, oldest first, that other files are used for now."""
        store = self._bench.store
        for tag in sorted(map(KernelTag.parse, store.tags())):
            other = store.kernel(str(tag))
            if other is not None and tag != kernel.tag and self._differs(tag):
                yield other

    def _differs(self, tag: KernelTag) -> bool:
        before, after = (patches_for(each, tag) for each in (self._old, self._new))
        return [path.read_bytes() for path, _ in before] != [path.read_bytes() for path, _ in after]

    def old_on(self, kernel: Kernel, new: Sequence[NewPatch]) -> list[NewPatch]:
        """Return the old patches, as they come out on a kernel, that new ones would replace."""
        chosen = {path for path, _ in patches_for(self._new, kernel.tag)}
        names = {each.path.name for each in new if self._copy / each.name in chosen}
        series = self.rebased(kernel, self._old)
        found = written_for(self._bench.store, kernel, self._old, series, names)
        return [replace(each, since=kernel.tag) for each in found]

    def rebased(self, kernel: Kernel, extension: Extension) -> RebasedSeries:
        """Port the extension as it is given, after what it requires."""
        chain = (*self._chain[:-1], extension)
        return self._bench.rebased(kernel, chain)

    def resolved_beside(self, kernel: Kernel) -> dict[str, bytes]:
        """Return the resolutions the new files need in the whole series, wherever they are used."""
        after = [self._new if each.name == self._new.name else each for each in self._extensions]
        bench, name = self._bench, self._old.name
        beside = Neighbours(
            self._paths, bench.store, bench.progress, name, self._extensions, after, bench.repo
        )
        files = [file for each in (kernel, *self._others(kernel)) for file in beside.keep(each)]
        return {f"{file.parent.name}/{file.name}": file.read_bytes() for file in files}

    def prove(self, kernel: Kernel, series: RebasedSeries) -> None:
        """See that the new files give the same tree, and that none needs a resolution any more."""
        again = self.rebased(kernel, self._new)
        left = any(
            each.state is PatchState.REMEMBERED and each.extension == self._new.name
            for each in again.outcomes
        )
        if again.tree == series.tree and not left:
            return
        told = ", ".join(f"{each.patch}: {each.state}" for each in again.outcomes)
        raise InfraError(
            f"the patches as they would be saved do not give the same tree ({told})",
            where=f"{self._new.name} on {kernel.name}",
            next_step="nothing of it was written",
        )


def _placed(
    draft: _Draft, kernel: Kernel, new: list[NewPatch]
) -> tuple[list[NewPatch], list[NewPatch]]:
    """Give each new patch its folder such that no other imported kernel gets another tree.

    Also return the old patches that need a folder of their own for that.
    """
    draft.take(new)
    displaced = draft.displaced(kernel)
    if any(each.tag.series != kernel.tag.series for each in displaced):
        # The start of the series speaks for younger ones: too much here.
        new = [replace(each, since=kernel.tag) for each in new]
        draft.take(new)
        displaced = draft.displaced(kernel)
    kept: list[NewPatch] = []
    while displaced:
        kept += draft.old_on(displaced[0], new)
        draft.take([*new, *kept])
        first, displaced = displaced[0], draft.displaced(kernel)
        if first in displaced:
            raise InfraError(
                f"what is saved for {kernel.name} would change {first.name}",
                next_step="nothing of it was written; write the patches of both by hand",
            )
    return new, kept


def _changed(
    bench: Bench, kernel: Kernel, extension: Extension, series: RebasedSeries
) -> list[NewPatch]:
    """Return the patches that came out otherwise than the file used for this kernel says."""
    wanted = {PatchState.REMEMBERED, *([PatchState.THREE_WAY] if bench.merged else [])}
    states = {
        each.patch.rpartition("/")[2]: each.state
        for each in series.outcomes
        if each.extension == extension.name and each.state in wanted
    }
    found = []
    for each in written_for(bench.store, kernel, extension, series, set(states)):
        diffs = (read_patch(each.path).diff, parse_patch(each.path, each.data).diff)
        before, after = (patch_id(bench.store, diff) for diff in diffs)
        # A conflict over spaces only is one all the same.
        if before != after or states[each.path.name] is PatchState.REMEMBERED:
            found.append(each)
    return found
