# SPDX-License-Identifier: GPL-2.0-only
"""Patch files as patches came out of a rebase, and the tables that go with them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import patchtext
from workbench.description import DESCRIPTION, load
from workbench.errors import UsageError
from workbench.extensions import patches_for
from workbench.patchfile import read_patch
from workbench.resolutions import patch_id
from workbench.variants import since_for, with_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.declared import Extension
    from workbench.gitstore import Store
    from workbench.model import Kernel, KernelTag, RebasedSeries


@dataclass(frozen=True)
class NewPatch:
    """A patch file to write in the place of ``path``: its folder, its text, what it is made on."""

    path: Path
    since: KernelTag
    base: KernelTag
    data: bytes

    @property
    def name(self) -> str:
        """Its place in the extension's folder."""
        return f"since-{self.since}/{self.path.name}"


def written_for(
    store: Store, kernel: Kernel, extension: Extension, series: RebasedSeries, names: set[str]
) -> list[NewPatch]:
    """Write patches as they came out of a rebase."""
    files = {path.name: (path, base) for path, base in patches_for(extension, kernel.tag)}
    found = []
    stands_on: list[str] = []
    for outcome in series.outcomes:
        if outcome.commit is None:
            continue
        trees = (f"{outcome.commit}~^{{tree}}", f"{outcome.commit}^{{tree}}")
        with tempfile.TemporaryDirectory(prefix="kpw-save-") as folder:
            text = patchtext.body(store, Path(folder), *trees)
        name = outcome.patch.rpartition("/")[2]
        if outcome.extension == extension.name and name in names:
            path, base = files[name]
            patch = read_patch(path)
            data = patchtext.rewritten(patch, text, kernel.commit, stands_on)
            since = since_for(extension, path, base, kernel.tag)
            found.append(NewPatch(path, since, kernel.tag, data))
        stands_on.append(patch_id(store, text))
    return found


def contents(folder: Path, new: Sequence[NewPatch]) -> dict[str, bytes]:
    """Return what is to be in an extension's folder: patch files, and the tables for them."""
    where = folder / DESCRIPTION
    text = where.read_text(encoding="utf-8")
    bases = {variant.since: variant.base for variant in load(folder).variants}
    for each in new:
        others = {path.name for path in (folder / f"since-{each.since}").glob("*.patch")}
        if bases.get(each.since, each.base) != each.base and others - {each.path.name}:
            raise UsageError(
                f"since-{each.since}/ has other patches, made on {bases[each.since]}",
                where=str(where),
                next_step=f"move them to a folder of their own, or port them to {each.base}",
            )
        if bases.get(each.since) != each.base:
            text = with_table(text, each.since, each.base)
            bases[each.since] = each.base
    return {each.name: each.data for each in new} | {DESCRIPTION: text.encode()}
