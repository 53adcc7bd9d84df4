# SPDX-License-Identifier: GPL-2.0-only
"""One conflict somebody is at: a folder with a work tree, and a file that says what it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from workbench import workfolder
from workbench.smalltree import SmallTree

if TYPE_CHECKING:
    from pathlib import Path


class State(msgspec.Struct, forbid_unknown_fields=True):
    """What state.json keeps of an open conflict.

    ``commit`` is what the patch does not go into, ``digest`` the sha256 of
    the patch file, ``conflicts`` the files and what each conflict is.
    ``beside`` tells that it stands on all extensions, since it conflicts
    with those only that it does not require.
    """

    kernel: str
    extension: str
    number: str
    subject: str
    commit: str
    digest: str
    conflicts: dict[str, str]
    beside: bool = False


@dataclass(frozen=True)
class Open:
    """A conflict somebody is at, as in :class:`State`; ``conflicts`` are pairs."""

    folder: Path
    kernel: str
    extension: str
    number: str
    subject: str
    commit: str
    digest: str
    conflicts: tuple[tuple[str, str], ...]
    beside: bool = False

    @property
    def name(self) -> str:
        """How the user spells the patch: ``ha-clusterip/0001``."""
        return f"{self.extension}/{self.number}"

    @property
    def tree(self) -> SmallTree:
        """The work tree."""
        return SmallTree(self.folder / workfolder.TREE)


def all_below(root: Path) -> tuple[Open, ...]:
    """Return everything that is open."""
    return tuple(read(folder) for folder in workfolder.all_below(root))


def ref_name(folder: Path) -> str:
    """Return the ref that keeps what a work tree stands on in the store while it is open."""
    return f"refs/kpw/resolve/{folder.parent.name}/{folder.name}"


def read(folder: Path) -> Open:
    """Read what is open in a folder; InfraError when its state is damaged."""
    state = workfolder.read(folder, State)
    return Open(
        folder,
        state.kernel,
        state.extension,
        state.number,
        state.subject,
        state.commit,
        state.digest,
        tuple(state.conflicts.items()),
        state.beside,
    )
