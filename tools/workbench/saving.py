# SPDX-License-Identifier: GPL-2.0-only
"""Write patches back as they came out of a rebase: only those that really changed.

What a 3-way merge carries by itself needs no file of its own, and every
kernel's folder would fill with text that says the same; ``merged`` asks for
those too. An extension is written whole or not at all, and only after a copy
of it with the new files was read and rebased to the same tree.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import atomic, patchtext, rebase
from workbench.description import DESCRIPTION, load, patch_number
from workbench.errors import InfraError, UsageError
from workbench.extensions import patches_for, with_required
from workbench.model import PatchState
from workbench.patchfile import parse_patch, read_patch
from workbench.resolutions import patch_id
from workbench.variants import since_for, with_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.declared import Extension
    from workbench.gitstore import Store
    from workbench.model import Kernel, KernelTag, PatchOutcome, RebasedSeries
    from workbench.paths import Paths
    from workbench.progress import Progress


@dataclass(frozen=True)
class Bench:
    """What saving works with; ``merged`` asks for what 3-way merges changed, too."""

    paths: Paths
    store: Store
    progress: Progress
    merged: bool = False


@dataclass(frozen=True)
class Saved:
    """What became of one extension.

    ``files`` were written, ``kept`` are copies of patches under the kernel
    they were made on, which would get the new ones otherwise. ``refused``
    are the patches that do not apply: nothing is written then.
    """

    extension: str
    files: tuple[Path, ...] = ()
    kept: tuple[Path, ...] = ()
    refused: tuple[PatchOutcome, ...] = ()


@dataclass(frozen=True)
class _New:
    """A patch file to write: below which folder, its text, and what it is made on."""

    old: Path
    old_base: KernelTag
    since: KernelTag
    base: KernelTag
    data: bytes

    @property
    def name(self) -> str:
        """Its place in the extension's folder."""
        return f"since-{self.since}/{self.old.name}"


def save(
    bench: Bench, kernel: Kernel, extensions: Sequence[Extension], extension: Extension
) -> Saved:
    """Write one extension's patches for a kernel back; ``extensions`` are all there are.

    The patches are those of the extension on what it requires, without the
    rest of the series: a patch file has to apply without it.
    """
    if extension.base is None or not patches_for(extension, kernel.tag):
        return Saved(extension.name)
    series = _rebased(bench, kernel, extensions, extension)
    if refused := tuple(each for each in series.outcomes if not each.state.applies):
        return Saved(extension.name, refused=refused)
    new = _changed(bench, kernel, extension, series)
    if not new:
        return Saved(extension.name)
    with tempfile.TemporaryDirectory(prefix="kpw-save-") as name:
        copy = Path(name) / extension.name
        folder = bench.paths.patches / extension.name
        shutil.copytree(folder, copy)
        _write(copy, new)
        kept = _displaced(load(copy), new, copy)
        _write(copy, kept)
        _prove(bench, kernel, extensions, load(copy), series)
        _write(folder, [*new, *kept])
    return Saved(
        extension.name,
        tuple(folder / each.name for each in new),
        tuple(folder / each.name for each in kept),
    )


def _rebased(
    bench: Bench, kernel: Kernel, extensions: Sequence[Extension], extension: Extension
) -> RebasedSeries:
    chain = with_required(extensions, extension)
    return rebase.rebase(bench.paths, bench.store, kernel, chain, bench.progress)


def _changed(
    bench: Bench, kernel: Kernel, extension: Extension, series: RebasedSeries
) -> list[_New]:
    """Return the patches that came out otherwise than the file used for this kernel says."""
    store = bench.store
    files = {path.name: (path, base) for path, base in patches_for(extension, kernel.tag)}
    wanted = {PatchState.REMEMBERED, *([PatchState.THREE_WAY] if bench.merged else [])}
    found = []
    for outcome in series.outcomes:
        if outcome.extension != extension.name or outcome.state not in wanted:
            continue
        path, base = files[outcome.patch.rpartition("/")[2]]
        patch = read_patch(path)
        with tempfile.TemporaryDirectory(prefix="kpw-save-") as name:
            trees = (f"{outcome.commit}~^{{tree}}", f"{outcome.commit}^{{tree}}")
            text = patchtext.body(store, Path(name), *trees)
        data = patchtext.rewritten(patch, text, kernel.commit)
        same = patch_id(store, parse_patch(path, data).diff) == patch_id(store, patch.diff)
        # A conflict over spaces only is one all the same.
        if same and outcome.state is not PatchState.REMEMBERED:
            continue
        since = since_for(extension, path, base, kernel.tag)
        found.append(_New(path, base, since, kernel.tag, data))
    return found


def _displaced(after: Extension, new: Sequence[_New], copy: Path) -> list[_New]:
    """Return old patches that the new ones take the place of on the very kernel they are made on.

    They get a folder for that kernel, so that nothing changes there.
    """
    found = []
    for each in new:
        number = patch_number(each.old)
        chosen = {patch_number(path): path for path, _ in patches_for(after, each.old_base)}
        if each.old_base != each.base and chosen.get(number) == copy / each.name:
            data = each.old.read_bytes()
            found.append(replace(each, since=each.old_base, base=each.old_base, data=data))
    return found


def _write(folder: Path, new: Sequence[_New]) -> None:
    """Put patch files and their tables into an extension's folder; the description last."""
    where = folder / DESCRIPTION
    text = where.read_text(encoding="utf-8")
    bases = {variant.since: variant.base for variant in load(folder).variants}
    for each in new:
        others = {path.name for path in (folder / f"since-{each.since}").glob("*.patch")}
        if bases.get(each.since, each.base) != each.base and others - {each.old.name}:
            raise UsageError(
                f"since-{each.since}/ has other patches, made on {bases[each.since]}",
                where=str(where),
                next_step=f"move them to a folder of their own, or port them to {each.base}",
            )
        if bases.get(each.since) != each.base:
            text = with_table(text, each.since, each.base)
            bases[each.since] = each.base
    for each in new:
        file = folder / each.name
        file.parent.mkdir(exist_ok=True)
        atomic.write(file, each.data)
    atomic.write(where, text.encode())


def _prove(
    bench: Bench,
    kernel: Kernel,
    extensions: Sequence[Extension],
    after: Extension,
    series: RebasedSeries,
) -> None:
    """See that the new files give the same tree, and without a conflict that was remembered."""
    others = [after if each.name == after.name else each for each in extensions]
    again = _rebased(bench, kernel, others, after)
    plain = all(each.state is not PatchState.REMEMBERED for each in again.outcomes)
    required = {each.name for each in with_required(others, after)} - {after.name}
    inherited = any(
        each.state is PatchState.REMEMBERED and each.extension in required
        for each in again.outcomes
    )
    if again.tree == series.tree and (plain or inherited):
        return
    told = ", ".join(f"{each.patch}: {each.state}" for each in again.outcomes)
    raise InfraError(
        f"the patches as they would be saved do not give the same tree ({told})",
        where=f"{after.name} on {kernel.name}",
        next_step="nothing was written",
    )
