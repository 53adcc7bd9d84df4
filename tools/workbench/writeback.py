# SPDX-License-Identifier: GPL-2.0-only
"""What an edited branch makes of the canonical patches of an extension.

A commit that says and does what it did keeps its file byte for byte. The files
of ``since-`` folders and the resolutions follow the number of their patch;
their text is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench import patchmail, patchtext
from workbench.description import DESCRIPTION, patch_number
from workbench.editplan import Change, Fate, Plan
from workbench.numbering import numbered
from workbench.patchfile import read_patch
from workbench.rekeyed import Texts, follow
from workbench.tying import tied
from workbench.variants import without_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from workbench.declared import Variant
    from workbench.gitstore import Store
    from workbench.pieces import Piece
    from workbench.unrolled import Edited


@dataclass(frozen=True)
class Branches:
    """The commits below an extension's own, its own as they were, and as they are now.

    ``paths`` are the files of the second, ``base`` the commit of the kernel.
    """

    base: str
    below: Sequence[Piece]
    before: Sequence[Piece]
    after: Sequence[Piece]
    paths: Sequence[Path]


class Writer:
    """Writes the text of patch files; what is on which other patches is told as it was."""

    def __init__(self, branches: Branches) -> None:
        """Read nothing yet."""
        self._branches = branches
        self.former = tied(branches.after, branches.before)

    def fate(self, at: int) -> Fate:
        """Tell what became of a commit, whatever its number."""
        was = self.former[at]
        if was is None:
            return Fate.NEW
        old, new = self._branches.before[was], self._branches.after[at]
        if (old.mail, old.patch_id) != (new.mail, new.patch_id):
            return Fate.CHANGED
        same = old.body == new.body and self._stands_as_it_did(was, at)
        return Fate.KEPT if same else Fate.AGAIN

    def _stands_as_it_did(self, was: int, at: int) -> bool:
        """Tell whether a file that names the patches it stands on stands on the same."""
        if b"\nprerequisite-patch-id: " not in self._branches.paths[was].read_bytes():
            return True
        before = [each.patch_id for each in self._branches.before[:was]]
        return before == [each.patch_id for each in self._branches.after[:at]]

    def rewritten(self) -> dict[Path, str | None]:
        """Return the files that get another text, with their new patch-id."""
        return {
            self._branches.paths[was]: self._branches.after[at].patch_id
            for at, was in enumerate(self.former)
            if was is not None and self.fate(at) is not Fate.KEPT
        }

    def name(self, at: int, number: int) -> str:
        """Return a file's name: what follows the number stays while the subject does."""
        new, was = self._branches.after[at].mail.subject, self.former[at]
        if was is not None and self._branches.before[was].mail.subject == new:
            return f"{number:04}{self._branches.paths[was].name[4:]}"
        return patchmail.file_name(number, new)

    def data(self, at: int) -> bytes:
        """Return a file's bytes."""
        branches, was = self._branches, self.former[at]
        new = branches.after[at]
        if was is None:
            says = any(b"\nbase-commit: " in path.read_bytes() for path in branches.paths)
            return patchtext.fresh(new.mail, new.body, branches.base if says else "")
        path = branches.paths[was]
        if self.fate(at) is Fate.KEPT:
            return path.read_bytes()
        stands_on = [each.patch_id for each in (*branches.below, *branches.after[:at])]
        patch = read_patch(path)
        mail = new.mail if new.mail != branches.before[was].mail else None
        return patchtext.rewritten(patch, new.body, branches.base, stands_on, mail)


def canonical(store: Store, edited: Edited, branches: Branches) -> Plan:
    """Plan what an edited branch makes of the canonical patches, and of what follows them."""
    return _Canonical(store, edited, branches).plan()


class _Canonical:
    def __init__(self, store: Store, edited: Edited, branches: Branches) -> None:
        self._store = store
        self._extension = edited.extension
        self._branches = branches
        self._writer = Writer(branches)
        self._plan = Plan()
        own = [_number(path) for path in branches.paths]
        self._own = [None if was is None else own[was] for was in self._writer.former]
        self._dropped = dict(zip(own, branches.paths, strict=True))
        for number in (each for each in self._own if each is not None):
            del self._dropped[number]
        others = {_number(path) for path in self._others()} - set(own)
        numbers, moved = numbered(self._own, others)
        self._given = numbers
        pairs = zip(self._own, numbers, strict=True)
        self._numbers = moved | {old: new for old, new in pairs if old is not None}

    def _others(self) -> list[Path]:
        """Return the files that are no commits: variants', and canonical ones without effect."""
        canonical = [each for each in self._extension.patches if each not in self._branches.paths]
        return canonical + [path for each in self._extension.variants for path in each.patches]

    def plan(self) -> Plan:
        plan = self._plan
        for at, number in enumerate(self._given):
            self._own_file(at, number)
        for path in self._dropped.values():
            plan.drop(path.name)
        for path in self._others():
            if path.parent.name == self._extension.name:
                self._follow(path, path.name)
        text = (self._folder / DESCRIPTION).read_text(encoding="utf-8")
        for variant in self._extension.variants:
            text = self._variant(variant, text)
        if text.encode() != (self._folder / DESCRIPTION).read_bytes():
            plan.files[DESCRIPTION] = text.encode()
        self._resolutions()
        return plan

    @property
    def _folder(self) -> Path:
        return self._branches.paths[0].parent

    def _own_file(self, at: int, number: int) -> None:
        was, fate = self._writer.former[at], self._writer.fate(at)
        name = self._writer.name(at, number)
        before = "" if was is None else self._branches.paths[was].name
        if fate is Fate.KEPT and name != before:
            fate = Fate.MOVED
        self._plan.put(Change(fate, name, before), self._writer.data(at))

    def _follow(self, path: Path, name: str) -> None:
        """Let a file have the number its patch has now."""
        number = _number(path)
        new = self._numbers[number]
        folder, slash, _ = name.rpartition("/")
        now = f"{folder}{slash}{new:04}{path.name[4:]}"
        if new != number:
            self._plan.put(Change(Fate.MOVED, now, name), path.read_bytes())
        if slash and self._is_changed(number):
            self._plan.changes.append(Change(Fate.OLD, now, why=folder.removeprefix("since-")))

    def _is_changed(self, number: int) -> bool:
        return number in self._own and self._writer.fate(self._own.index(number)) is Fate.CHANGED

    def _variant(self, variant: Variant, text: str) -> str:
        """Plan a folder's files; return the description, without its table when none is left."""
        folder = f"since-{variant.since}"
        for path in variant.patches:
            dropped = self._dropped.get(_number(path))
            if dropped is None:
                self._follow(path, f"{folder}/{path.name}")
            else:
                self._plan.drop(f"{folder}/{path.name}", f"with {dropped.name}")
        if all(_number(path) in self._dropped for path in variant.patches):
            self._plan.changes.append(
                Change(Fate.REMOVED, DESCRIPTION, why=f"its table for {folder}/, which is empty")
            )
            return without_table(text, variant.since)
        return text

    def _resolutions(self) -> None:
        """Plan what becomes of the remembered resolutions."""
        others = self._others()
        now: dict[Path, str | None] = dict.fromkeys(self._dropped.values())
        now |= {path: None for path in others if _number(path) in self._dropped}
        now |= self._writer.rewritten()
        texts = Texts(self._store, now, [*others, *self._branches.paths])
        follow(self._plan, self._folder, texts, self._numbers)


def _number(path: Path) -> int:
    return int(patch_number(path))
