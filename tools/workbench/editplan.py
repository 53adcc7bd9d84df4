# SPDX-License-Identifier: GPL-2.0-only
"""What is to be done with the files of an extension's folder, one by one and as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Fate(StrEnum):
    """What becomes of a file.

    MOVED has another number, AGAIN the same change on other text, OLD is a
    variant of a patch that was changed: it has the text it had.
    """

    KEPT = "kept"
    MOVED = "renamed"
    AGAIN = "rewritten, the same change on other text"
    CHANGED = "rewritten"
    NEW = "new"
    REMOVED = "removed"
    OLD = "old"


@dataclass(frozen=True)
class Change:
    """One file of an extension's folder: its name, the name it had, and why it is so."""

    fate: Fate
    name: str
    was: str = ""
    why: str = ""


@dataclass
class Plan:
    """All that is to be done in an extension's folder.

    ``files`` are those to write, ``gone`` those to remove.
    """

    changes: list[Change] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    def put(self, change: Change, data: bytes) -> None:
        """Note a file that stays, moves, or is written."""
        self.changes.append(change)
        if change.was and change.was != change.name:
            self.gone.add(change.was)
        if change.fate is not Fate.KEPT:
            self.files[change.name] = data

    def drop(self, name: str, why: str = "") -> None:
        """Note a file that goes."""
        self.changes.append(Change(Fate.REMOVED, name, why=why))
        self.gone.add(name)

    @property
    def nothing(self) -> bool:
        """Tell that the folder stays as it is."""
        return not self.files and not self.leaving

    @property
    def leaving(self) -> set[str]:
        """The names that nothing has then."""
        return self.gone - set(self.files)
