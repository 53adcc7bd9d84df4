# SPDX-License-Identifier: GPL-2.0-only
"""An extension's patches as commits on the kernel they were made on.

Below them is what the extension requires and what it restores; that is not
its own. The same files give the same commits on every machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workbench import rebase
from workbench.errors import UsageError
from workbench.extensions import patches_for, with_required
from workbench.patchfile import read_patch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from workbench.declared import Extension, Variant
    from workbench.gitstore import Store
    from workbench.model import Kernel, KernelTag, PatchOutcome, RebasedSeries
    from workbench.paths import Paths
    from workbench.progress import Progress


@dataclass(frozen=True)
class Edited:
    """What is edited of an extension: its canonical patches, or with ``variant`` a folder's.

    ``extensions`` are all there are. ``whole`` has the files of all folders
    taken as on any kernel; with a variant that goes without saying.
    """

    extensions: Sequence[Extension]
    extension: Extension
    variant: Variant | None = None
    whole: bool = False

    @property
    def since(self) -> str:
        """The tag of the folder, empty for the canonical patches."""
        return str(self.variant.since) if self.variant else ""

    @property
    def base(self) -> KernelTag:
        """The kernel the patches were made on."""
        base = self.variant.base if self.variant else self.extension.base
        if base is None:
            raise AssertionError("an extension with patches has a base")
        return base

    @property
    def chosen(self) -> Extension:
        """The extension with just the files that are commits here."""
        everything = self.whole or self.variant is not None
        return self.extension if everything else replace(self.extension, variants=())

    def with_files_of(self, extension: Extension) -> Edited:
        """Return the same with an extension that was read anew; the folder need not be there."""
        return Edited(self.extensions, extension, None, self.variant is not None)


@dataclass(frozen=True)
class Unrolled:
    """A kernel, the commit the extension's own patches stand on, and those patches.

    ``patches`` are files and their commits, in order; a patch that changes
    nothing there has none, and is not among them.
    """

    kernel: Kernel
    below: str
    patches: tuple[tuple[Path, str], ...]

    @property
    def tip(self) -> str:
        """The last commit."""
        return self.patches[-1][1] if self.patches else self.below

    def touched(self) -> tuple[str, ...]:
        """All names the patches touch."""
        found = (path for file, _ in self.patches for path in read_patch(file).touched)
        return tuple(dict.fromkeys(found))

    def digests(self, folder: Path) -> dict[str, str]:
        """Return the sha256 of each patch file, by its name in the extension's folder."""
        return {
            str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file, _ in self.patches
        }


def ported(
    paths: Paths, store: Store, kernel: Kernel, edited: Edited, progress: Progress
) -> RebasedSeries:
    """Port what is edited to a kernel, after what it requires."""
    chain = (*with_required(edited.extensions, edited.extension)[:-1], edited.chosen)
    return rebase.rebase(paths, store, kernel, chain, progress)


def unroll(series: RebasedSeries, edited: Edited, patches: Path) -> Unrolled:
    """Tell the extension's own commits from those below; UsageError when a patch is not in."""
    kernel, extension = series.kernel, edited.extension
    files = {path.name: path for path, _ in patches_for(edited.chosen, kernel.tag)}
    below, own = kernel.commit, []
    for outcome in series.outcomes:
        _refuse_unapplied(outcome, kernel)
        name = outcome.patch.rpartition("/")[2]
        if outcome.commit is None:
            continue
        if outcome.extension == extension.name and name in files:
            own.append((files[name], outcome.commit))
        else:
            below = outcome.commit
    if not own:
        raise UsageError(
            f"no patch of {extension.name} changes anything on {kernel.name}",
            where=str(patches / extension.name),
            next_step="'kpw import' brings patches",
        )
    return Unrolled(kernel, below, tuple(own))


def _refuse_unapplied(outcome: PatchOutcome, kernel: Kernel) -> None:
    if not outcome.state.applies:
        name = f"{outcome.extension}/{outcome.patch}"
        raise UsageError(
            f"{outcome.state} on {kernel.name}, where it was made or is stood on",
            where=name,
            next_step=f"run 'kpw resolve {kernel.name} {name}', or mend the file, first",
        )
