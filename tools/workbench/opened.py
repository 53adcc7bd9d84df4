# SPDX-License-Identifier: GPL-2.0-only
"""One conflict somebody is at: a folder with a work tree, and a file that says what it is about."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from workbench import atomic
from workbench.errors import InfraError
from workbench.smalltree import SmallTree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_STATE = "state.json"
_TREE = "tree"


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
        return SmallTree(self.folder / _TREE)


@contextlib.contextmanager
def appearing(final: Path, state: State) -> Iterator[Path]:
    """Give the place for a work tree; when all went well the whole becomes ``final``."""
    final.parent.mkdir(parents=True, exist_ok=True)
    young = final.with_name(f".opening-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        young.mkdir()
        yield young / _TREE
        atomic.write(young / _STATE, msgspec.json.format(msgspec.json.encode(state)))
        young.rename(final)
    except BaseException:
        shutil.rmtree(young, ignore_errors=True)
        raise


def all_below(root: Path) -> tuple[Open, ...]:
    """Return everything that is open."""
    return tuple(read(file.parent) for file in sorted(root.glob(f"*/*/{_STATE}")))


def sweep(root: Path) -> None:
    """Remove what runs left half made or half removed; nobody else may be at it."""
    for stale in (*root.glob("*/.opening-*"), *root.glob("*/.done-*")):
        shutil.rmtree(stale)


def ref_name(folder: Path) -> str:
    """Return the ref that keeps what a work tree stands on in the store while it is open."""
    return f"refs/kpw/resolve/{folder.parent.name}/{folder.name}"


def remove(found: Open) -> None:
    """Take one away: by one rename, and then at leisure."""
    done = found.folder.with_name(f".done-{secrets.token_hex(4)}")
    found.folder.rename(done)
    shutil.rmtree(done)


def read(folder: Path) -> Open:
    """Read what is open in a folder; InfraError when its state is damaged."""
    file = folder / _STATE
    try:
        state = msgspec.json.decode(file.read_bytes(), type=State)
    except (OSError, msgspec.DecodeError) as error:
        raise InfraError(
            f"cannot be read: {error}", where=str(file), next_step=f"remove {folder}"
        ) from error
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
