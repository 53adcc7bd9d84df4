# SPDX-License-Identifier: GPL-2.0-only
"""What becomes of remembered resolutions when patches are edited.

A resolution is kept by the patch-id of its patch and by what stands between
the marks of each conflict. A patch with another text meets the same conflict
where it was not changed; so its resolutions get its new patch-id, and are used
where all the rest is the same. Those of a patch that is dropped go with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.description import RESOLUTIONS
from workbench.editplan import Change, Fate, Plan
from workbench.patchfile import read_patch
from workbench.resolutions import patch_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from workbench.gitstore import Store


@dataclass(frozen=True)
class Texts:
    """Patch files whose text changes: their new patch-id, None for one that goes; and all files."""

    store: Store
    now: Mapping[Path, str | None]
    every: Sequence[Path]

    def ids(self) -> dict[str, str | None]:
        """Return what becomes of each old patch-id; one that a file keeps stays as it is."""
        ids = {self._id(path): new for path, new in self.now.items()}
        stay = [self._id(path) for path in self.every if path not in self.now]
        return ids | dict(zip(stay, stay, strict=True))

    def _id(self, path: Path) -> str:
        return patch_id(self.store, read_patch(path).diff)


def follow(plan: Plan, folder: Path, texts: Texts, numbers: Mapping[int, int]) -> None:
    """Plan what becomes of the resolutions in an extension's folder."""
    if not (folder / RESOLUTIONS).is_dir():
        return
    for each in rekeyed(folder, Fates(numbers, texts.ids())):
        if each.now is None:
            plan.drop(each.was, "with its patch")
        elif each.now != each.was:
            plan.put(Change(Fate.MOVED, each.now, each.was), each.data)
        else:
            why = "used where its conflict is the same"
            plan.put(Change(Fate.CHANGED, each.now, each.was, why), each.data)


@dataclass(frozen=True)
class Rekeyed:
    """One resolution: its name before and after (None: removed), both in the extension's folder.

    ``data`` are its bytes then.
    """

    was: str
    now: str | None
    data: bytes


@dataclass(frozen=True)
class Fates:
    """What was done to patches.

    ``numbers`` has the new number of each that has one, ``ids`` the new
    patch-id of each old one, None where no patch has that text any more.
    """

    numbers: Mapping[int, int]
    ids: Mapping[str, str | None]


def rekeyed(folder: Path, fates: Fates) -> tuple[Rekeyed, ...]:
    """Return the resolutions of an extension's folder that do not stay as they are."""
    found = (_rekeyed(file, fates) for file in sorted((folder / RESOLUTIONS).glob("*.resolution")))
    return tuple(each for each in found if each is not None)


def _rekeyed(file: Path, fates: Fates) -> Rekeyed | None:
    data = file.read_bytes()
    was = f"{RESOLUTIONS}/{file.name}"
    head, mark, rest = data.partition(b"\n---\n")
    for line in head.splitlines():
        word, _, identity = line.decode(errors="replace").partition(": ")
        if word == "Patch-id" and identity in fates.ids:
            new = fates.ids[identity]
            if new is None:
                return Rekeyed(was, None, data)
            data = head.replace(line, f"Patch-id: {new}".encode()) + mark + rest
    number, dash, name = file.name.partition("-")
    now = was
    if number.isdecimal():
        now = f"{RESOLUTIONS}/{fates.numbers.get(int(number), int(number)):04}{dash}{name}"
    return Rekeyed(was, now, data) if (now, data) != (was, file.read_bytes()) else None
