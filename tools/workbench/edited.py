# SPDX-License-Identifier: GPL-2.0-only
"""Patches somebody edits: a folder with a work tree, and a file that says what it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from workbench import workfolder
from workbench.branchtree import BranchTree

if TYPE_CHECKING:
    from pathlib import Path

#: The folder's name where no ``since-`` folder is edited.
_CANONICAL: Final = "canonical"


class State(msgspec.Struct, forbid_unknown_fields=True):
    """What state.json keeps of an edit.

    ``since`` is the tag of the folder that is edited, empty for the canonical
    patches. ``below`` is the commit these stand on, ``tip`` the last one of
    theirs; ``files`` has the sha256 of each patch file they were made of.
    """

    extension: str
    since: str
    kernel: str
    below: str
    tip: str
    files: dict[str, str]


@dataclass(frozen=True)
class Edit:
    """What somebody edits: its folder, and what :class:`State` says of it."""

    folder: Path
    state: State

    @property
    def name(self) -> str:
        """How the user says it: ``ha-clusterip``, ``ha-clusterip --since v6.12``."""
        since = self.state.since
        return f"{self.state.extension} --since {since}" if since else self.state.extension

    @property
    def tree(self) -> BranchTree:
        """The work tree."""
        return BranchTree(self.folder / workfolder.TREE)


def place(root: Path, extension: str, since: str) -> Path:
    """Return the folder for what is edited."""
    return root / extension / (f"since-{since}" if since else _CANONICAL)


def ref_name(folder: Path) -> str:
    """Return the ref that keeps the commits in the store while a work tree reads them there."""
    return f"refs/kpw/edit/{folder.parent.name}/{folder.name}"


def all_below(root: Path) -> tuple[Edit, ...]:
    """Return everything that is open."""
    return tuple(read(folder) for folder in workfolder.all_below(root))


def read(folder: Path) -> Edit:
    """Read what is open in a folder; InfraError when its state is damaged."""
    return Edit(folder, workfolder.read(folder, State))
