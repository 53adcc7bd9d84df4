# SPDX-License-Identifier: GPL-2.0-only
"""The version of a series that was exported before, and what changed since.

The patches of a folder are made commits again, be it the user's or the one
in which :mod:`workbench.exported` keeps a version.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workbench import series
from workbench.errors import UsageError
from workbench.exportfolder import COVER, QUILT_SERIES
from workbench.growing import GrowingTree
from workbench.patchfile import read_patch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.gitapply import Entry
    from workbench.gitstore import Store
    from workbench.model import Kernel, RebasedSeries

_EXPORT: Final = "refs/kpw/export/"
_KERNELS: Final = ("refs/tags/", "refs/kpw/user/")
_BASE = re.compile(r"^(?:# )?base-commit: ([0-9a-f]{40,64})$", re.MULTILINE)


@dataclass(frozen=True)
class Earlier:
    """A version to compare with: ``name`` is how the letter calls it, both ids are commits."""

    name: str
    base: str
    commit: str


def named(store: Store, name: str) -> Earlier:
    """Return the version at a commit's name in the store; UsageError when it is none."""
    commit = store.resolve(f"{name}^{{commit}}")
    if commit is None:
        raise UsageError(
            f"--since {name}: no folder, kernel tag or commit of the store",
            next_step=f"see 'git --git-dir={store.path} for-each-ref refs/kpw/series'",
        )
    return Earlier(name, _base_of(store, name, commit), commit)


def in_folder(store: Store, folder: Path) -> Earlier:
    """Make commits of an exported folder's patches; UsageError says which does not apply."""
    files = _patches(folder)
    base = _stated_base(store, folder, files)
    additions = []
    with tempfile.TemporaryDirectory(prefix="kpw-earlier-") as scratch:
        growing = GrowingTree(store, base.tree, Path(scratch))
        for file in files:
            patch = read_patch(file)
            applied, changes = growing.apply(patch)
            if not applied.applied:
                raise UsageError(f"does not apply to {base.name}", where=str(file))
            additions.append(series.Addition(patch.mail, changes))
    return Earlier(str(folder), base.commit, _committed(store, base, additions))


def range_diff(store: Store, earlier: Earlier, ported: RebasedSeries) -> str:
    """Return git's range-diff, one line for a patch that did not change."""
    old = f"{earlier.base}..{earlier.commit}"
    new = f"{ported.kernel.commit}..{ported.commit}"
    return store.git("range-diff", "--no-color", old, new)


def _base_of(store: Store, name: str, commit: str) -> str:
    """Return the kernel a series stands on: the first one met on the way down."""
    kernels = _kernels(store)
    for each in store.git("rev-list", "--first-parent", commit).split():
        if each in kernels:
            return each
    raise UsageError(f"--since {name}: it stands on no kernel of the store")


def _kernels(store: Store) -> dict[str, str]:
    """Return the commits of all kernels of the store, with their names."""
    words = ("for-each-ref", "--format=%(objectname) %(refname)", *_KERNELS)
    lines = (line.split(" ") for line in store.git(*words).splitlines())
    return {
        commit: ref.removeprefix(_KERNELS[0]).removeprefix(_KERNELS[1]) for commit, ref in lines
    }


def _patches(folder: Path) -> list[Path]:
    """Return a folder's patches in order, without the cover letter."""
    listed = folder / QUILT_SERIES
    if listed.is_file():
        lines = (line.partition("#")[0].split() for line in listed.read_text().splitlines())
        found = [folder / words[0] for words in lines if words]
    else:
        found = [path for path in sorted(folder.glob("*.patch")) if not path.name.endswith(COVER)]
    if not found:
        raise UsageError("there is no patch in it", where=str(folder))
    return found


def _stated_base(store: Store, folder: Path, files: list[Path]) -> Kernel:
    """Return the kernel the folder says it was made on."""
    texts = [*sorted(folder.glob(f"*{COVER}")), folder / QUILT_SERIES, *files]
    read = (path.read_text(errors="replace") for path in texts if path.is_file())
    stated = next((match[1] for text in read if (match := _BASE.search(text))), None)
    names = _kernels(store)
    kernel = store.kernel(names[stated]) if stated in names else None
    if kernel is None:
        raise UsageError(
            f"its base-commit ({stated or 'none is named'}) is no imported kernel",
            where=str(folder),
            next_step="import that kernel with 'kpw fetch', or name a ref instead",
        )
    return kernel


def _committed(store: Store, base: Kernel, additions: list[series.Addition]) -> str:
    """Write the commits; their ref is named after them, since nobody knows their version."""
    said = "\0".join(f"{each.mail}{_listed(each.changes)}" for each in additions)
    digest = hashlib.sha256(said.encode()).hexdigest()[:16]
    return series.write(store, base, f"{_EXPORT}given/{base.name}/{digest}", additions)[-1]


def _listed(changes: Mapping[str, Entry | None]) -> str:
    return " ".join(f"{path}={entry}" for path, entry in sorted(changes.items()))
