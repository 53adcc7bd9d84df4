# SPDX-License-Identifier: GPL-2.0-only
"""What an edited branch makes of the patches of a ``since-`` folder.

Such a folder replaces patches by their number, and adds some; it takes none
away and puts none elsewhere. So the numbers are those of the canonical patches,
and a patch from elsewhere that was changed becomes a file of the folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.description import DESCRIPTION, patch_number
from workbench.editplan import Change, Fate, Plan
from workbench.errors import UsageError
from workbench.numbering import numbered
from workbench.rekeyed import Texts, follow
from workbench.variants import without_table
from workbench.writeback import Writer

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.declared import Variant
    from workbench.gitstore import Store
    from workbench.unrolled import Edited
    from workbench.writeback import Branches


def folder(store: Store, edited: Edited, variant: Variant, branches: Branches) -> Plan:
    """Plan what an edited branch makes of a folder; UsageError for what no folder can say."""
    return _Folder(store, edited, variant, branches).plan()


class _Folder:
    def __init__(self, store: Store, edited: Edited, variant: Variant, branches: Branches) -> None:
        self._store = store
        self._extension = edited.extension
        self._variant = variant
        self._branches = branches
        self._writer = Writer(branches)
        self._here = f"since-{variant.since}"
        self._where = f"{self._extension.name}/{self._here}"
        self._plan = Plan()

    def plan(self) -> Plan:
        for at, number in enumerate(self._numbers()):
            self._place(at, number)
        former = self._writer.former
        dropped = [path for at, path in enumerate(self._branches.paths) if at not in former]
        for path in dropped:
            self._drop(path)
        rewritten = self._writer.rewritten().items()
        now = {path: new for path, new in rewritten if self._is_here(path)} | dict.fromkeys(dropped)
        where = self._branches.paths[0].parent
        where = where.parent if where.name.startswith("since-") else where
        follow(self._plan, where, Texts(self._store, now, self._every()), {})
        if set(self._variant.patches) <= set(dropped) and not self._plan.files:
            self._take_table_out(where / DESCRIPTION)
        return self._plan

    def _every(self) -> list[Path]:
        """Return all files of the extension."""
        variants = self._extension.variants
        return [*self._extension.patches, *(path for each in variants for path in each.patches)]

    def _numbers(self) -> list[int]:
        own = [int(patch_number(path)) for path in self._branches.paths]
        order = [None if was is None else own[was] for was in self._writer.former]
        # What is added must not replace anything on another kernel either.
        used = {int(patch_number(path)) for path in self._every()}
        numbers, moved = numbered(order, used - set(own))
        pairs = [*zip(order, numbers, strict=True), *moved.items()]
        if any(old not in {None, new} for old, new in pairs):
            raise UsageError(
                "the patches would get other numbers, and a since- folder keeps the canonical ones",
                where=self._where,
                next_step=f"reorder, or make room, with 'kpw edit {self._extension.name}'",
            )
        return numbers

    def _place(self, at: int, number: int) -> None:
        """Put a patch into the folder, if it is to be there."""
        was, fate = self._writer.former[at], self._writer.fate(at)
        name, data = f"{self._here}/{self._writer.name(at, number)}", self._writer.data(at)
        path = None if was is None else self._branches.paths[was]
        if path is None:
            self._plan.put(Change(fate, name), data)
        elif self._is_here(path):
            self._plan.put(Change(fate, name, self._label(path)), data)
        elif fate is Fate.CHANGED:
            self._refuse_younger(path)
            self._plan.put(Change(Fate.NEW, name, why=f"replaces {self._label(path)}"), data)
        else:
            # What a 3-way merge carries by itself needs no file.
            self._plan.put(Change(Fate.KEPT, self._label(path)), data)

    def _refuse_younger(self, path: Path) -> None:
        """Refuse a change to what a younger folder has the say on, whatever this one holds."""
        for other in self._extension.variants:
            if self._variant.since < other.since and path in other.patches:
                raise UsageError(
                    f"{self._label(path)} was changed, and takes precedence over {self._here}",
                    where=self._extension.name,
                    next_step=f"edit it with '--since {other.since}'",
                )

    def _drop(self, path: Path) -> None:
        others = (each for each in self._every() if not self._is_here(each))
        same = [each for each in others if patch_number(each) == patch_number(path)]
        if same:
            raise UsageError(
                f"{patch_number(path)} was dropped, and {self._label(same[0])} would come instead",
                where=self._where,
                next_step=f"drop it with 'kpw edit {self._extension.name}', "
                "or remove the folder's file by hand",
            )
        self._plan.drop(self._label(path))

    def _take_table_out(self, description: Path) -> None:
        text = description.read_text(encoding="utf-8")
        self._plan.files[DESCRIPTION] = without_table(text, self._variant.since).encode()
        why = f"its table for {self._here}/, which is empty"
        self._plan.changes.append(Change(Fate.REMOVED, DESCRIPTION, why=why))

    def _is_here(self, path: Path) -> bool:
        return path.parent.name == self._here

    def _label(self, path: Path) -> str:
        inside = path.parent.name != self._extension.name
        return f"{path.parent.name}/{path.name}" if inside else path.name
